"""Letters of every script in figures: a font of the machine that has them, else a mark, and one line about it.

Text in figures (classes, words) may be in any script, and the house's font has the Latin, Greek and Cyrillic ones. matplotlib
draws a box for what no font in use has, and warns of each such letter each time that it meets it.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

MISSING = re.compile(r"Glyph (\d+) \(.*\) missing from (?:current )?font", re.DOTALL)
SAID: set[str] = set()
"""Letters that this process has told of: several figures of a run hold the same names."""


def with_glyphs(figure: Figure, save: Callable[[], None]) -> None:
    """Call `save`, which draws the figure; where letters are missing, do it again with fonts of the machine that have them.

    What no font has is drawn as a box, and logged once a process, in one line.
    """
    missing = _drawn(save)
    families = _families(missing)
    if families:
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_fontfamily([*text.get_fontfamily(), *families])
        missing = _drawn(save)
    fresh = sorted(missing - SAID)
    if fresh:
        SAID.update(fresh)
        some = " ".join(fresh[:10]) + (" …" if len(fresh) > 10 else "")
        logging.getLogger("unroll").warning(
            "unroll: no font on this machine has %r for the figures, which show boxes; install one that has, for Chinese say "
            "fonts-noto-cjk",
            some,
        )


def _drawn(save: Callable[[], None]) -> set[str]:
    """Call `save`; the letters that were missing. Other warnings are given again."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save()
    missing = set()
    for warning in caught:
        found = MISSING.match(str(warning.message))
        if found:
            missing.add(chr(int(found[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return missing


def _families(letters: set[str]) -> list[str]:
    """Families of the machine's fonts that have these letters between them, the plainest of each first; as few as will do."""
    families: list[str] = []
    left = set(letters)
    # Sans before Serif, regular before others, so that figures stay of one look and the choice is the same every time.
    entries = sorted(
        fontManager.ttflist, key=lambda e: ("Sans" not in e.name, e.style != "normal", str(e.weight), e.name, e.fname)
    )
    for entry in entries:
        if not left:
            break
        if "Last Resort" in entry.name or not Path(entry.fname).is_file():  # which has a box for everything
            continue
        try:
            has = {chr(code) for code in FT2Font(entry.fname).get_charmap()}
        except (OSError, RuntimeError, ValueError):  # one that cannot be read is none
            continue
        if left & has:
            families.append(entry.name)
            left -= has
    return families
