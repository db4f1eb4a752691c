"""Letters that the figures' own font lacks: another font of the machine's, or a box and one line."""

from __future__ import annotations

import logging
import warnings

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from unroll.report import glyphs
from unroll.report.canvas import subplots
from unroll.report.figures import save_figure

UNKNOWN = "\U0010fffd\U0010fffc"  # which no font has


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch):
    monkeypatch.setattr(glyphs, "SAID", set())


def figure_of(text):
    figure, axes = subplots(figsize=(2, 2), layout="constrained")
    axes.set_xticks([0, 1], [text, "b"])
    axes.set_title(text)
    return figure


def test_what_no_font_has_is_told_in_one_line_for_all_figures(tmp_path, caplog):
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING, "unroll"):
        warnings.simplefilter("always")
        for name in ("one", "two"):
            save_figure(figure_of(f"a {UNKNOWN}"), tmp_path / name)
    assert [record.getMessage().startswith("unroll: no font on this machine has") for record in caplog.records] == [
        True
    ]
    assert caught == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "one.svg", "two.png", "two.svg"]


def test_a_font_of_the_machine_that_has_the_letters_is_used(tmp_path, caplog, monkeypatch):
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "unknown"])
    builder.setupCharacterMap({ord(letter): "unknown" for letter in UNKNOWN})
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf({".notdef": square, "unknown": square})
    builder.setupHorizontalMetrics({".notdef": (800, 0), "unknown": (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares for a test", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    fontManager.addfont(tmp_path / "squares.ttf")
    with caplog.at_level(logging.WARNING, "unroll"):
        save_figure(figure_of(f"a {UNKNOWN}"), tmp_path / "one")
    assert caplog.records == []


def test_other_warnings_while_a_figure_is_drawn_are_given_on(tmp_path):
    def save():
        warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        glyphs.with_glyphs(figure_of("a"), save)
