"""Pictures that come from an untrusted process, decoded within bounds and encoded anew: none of their bytes is kept."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

MOST_PICTURES = 12
MOST_BYTES = 16 << 20  # of one, as it comes
MOST_PIXELS = 20_000_000
WIDEST, HIGHEST = 1600, 4800  # pixels, as it is kept
SIGN = b"\x89PNG\r\n\x1a\n"


def encoded_anew(content: bytes) -> bytes:
    """A PNG file of the same picture, on white, and at most so wide and so high.

    Raises:
        ValueError: it is no PNG, damaged, or too large.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MB")
    if not content.startswith(SIGN) or content[12:16] != b"IHDR" or len(content) < 24:
        raise ValueError("it is no PNG picture")
    _bound(*struct.unpack(">II", content[16:24]))  # before Pillow, which only warns
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            _bound(*image.size)  # a second header may say another size
            picture = image.convert("RGBA")
        shown = Image.new("RGB", picture.size, "white")
        shown.paste(picture, mask=picture)
        shown.thumbnail((WIDEST, HIGHEST))
        room = io.BytesIO()
        shown.save(room, "PNG")
    except Exception as error:  # Pillow raises many kinds
        if isinstance(error, _TooLargeError):
            raise
        raise ValueError(f"it is damaged ({type(error).__name__})") from None
    return room.getvalue()


class _TooLargeError(ValueError):
    pass


def _bound(width: int, height: int) -> None:
    if not 0 < width * height <= MOST_PIXELS:
        raise _TooLargeError(f"it has {width:,} × {height:,} pixels; at most {MOST_PIXELS:,} are taken")


def taken_over(pictures: Mapping[str, Any]) -> tuple[dict[str, bytes], list[str]]:
    """The last pictures, encoded anew, by new names such as ``01.png``; and a note on each that is left out.

    Args:
        pictures: arrays of uint8, by names that sort in their order.
    """
    found: dict[str, bytes] = {}
    names = sorted(pictures)
    notes = [f"only the last {MOST_PICTURES} of {len(names)} figures are kept"] if len(names) > MOST_PICTURES else []
    for name in names[-MOST_PICTURES:]:
        try:
            array = pictures[name]
            if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 1:
                raise ValueError("it is no picture")
            found[f"{len(found) + 1:02d}.png"] = encoded_anew(array.tobytes())
        except ValueError as error:
            notes.append(f"figure {names.index(name) + 1} is left out: {error}")
    return found, notes
