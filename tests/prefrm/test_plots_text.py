"""Text in figures: measured, shortened, wrapped, and drawn with a font that has its characters."""

import io
import logging
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image

from prefrm import plots
from prefrm.plots.fonts import families
from prefrm.plots.lettering import Lettering

LETTERING = Lettering(points=9)
TEXTS = [
    "a-name/without-any-space-v1",
    "words and more words and  spaces",
    "一只红色的猫坐在蓝色的桌子上",
    "iiiiiWWWWW",
]


@pytest.mark.parametrize("keep", ["start", "end", "ends"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_shortened_text_is_as_long_as_its_room_allows(text, keep):
    assert LETTERING.fit(text, LETTERING.width(text), keep) == text
    for share in (0.4, 0.6, 0.8):
        room = share * LETTERING.width(text)
        short = LETTERING.fit(text, room, keep)
        head, tail = short.split("…")
        assert LETTERING.width(short) <= room
        assert text.startswith(head) and text.endswith(tail)
        assert bool(head) == (keep != "end") and bool(tail) == (keep != "start")
        # The next character would not have had room; a space that was dropped at the cut counts for it.
        left = room - LETTERING.width(short)
        assert left < max(LETTERING.width(character) for character in text) + 0.05


@pytest.mark.parametrize("text", TEXTS)
def test_a_wrapped_text_is_whole_where_lines_suffice_and_ends_with_an_ellipsis_where_not(text):
    lines = LETTERING.wrap(text, 0.7, 9)
    assert len(lines) > 1
    assert max(map(LETTERING.width, lines)) <= 0.7
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert LETTERING.wrap(text, 0.7, 2)[0] == lines[0]
    assert LETTERING.wrap(text, 0.7, 2)[1].endswith("…") == (len(lines) > 2)
    assert LETTERING.wrap("", 0.7, 2) == []


def test_no_mark_is_parted_from_its_letter():
    text = "e\u0301" * 12
    for room in (0.2, 0.23, 0.26, 0.3):
        head, _, _ = LETTERING.fit(text, room).partition("…")
        assert len(head) % 2 == 0
        assert all(len(line) % 2 == 0 for line in LETTERING.wrap(text, room, 20))


def drawn(text):
    """The figure that shows a text, and its pixels."""
    figure = plots.win_matrix_figure(plots_matrix(), prompt=text)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        return figure, image.convert("L").point(lambda value: 255 * (value < 90))


def plots_matrix():
    import numpy as np

    from prefrm.winmatrix import WinMatrix

    return WinMatrix.from_order_logits(np.zeros((2, 2)))


def test_characters_that_no_font_has_are_named_once(caplog):
    """They are of a plane for private use."""
    with caplog.at_level(logging.WARNING):
        drawn("a \U000ff123\U000ff122 b \U000ff123")
        drawn("\U000ff122")
    (record,) = caplog.records
    assert "no font of this system has the characters \U000ff123 \U000ff122, so" in record.getMessage()


def make_font(folder: Path, family: str, character: str) -> None:
    """A font that has one character, a black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(folder / f"{family}.ttf")


def test_a_font_of_the_system_draws_what_the_default_font_lacks(tmp_path, monkeypatch, caplog):
    character = "\U000ff124"
    make_font(tmp_path, "Squares", character)
    monkeypatch.setattr(font_manager, "X11FontDirectories", [str(tmp_path)])
    with caplog.at_level(logging.WARNING):
        figure, pixels = drawn(character)
    assert not caplog.records
    assert families(f"a{character}") == ["sans-serif", "Squares"]
    (title,) = [text for text in figure.texts if text.get_text() == character]
    box = title.get_window_extent()
    shown = pixels.crop((int(box.x0), int(pixels.height - box.y1), int(box.x1), int(pixels.height - box.y0)))
    black = shown.histogram()[255] / (shown.width * shown.height)
    assert black > 0.7
