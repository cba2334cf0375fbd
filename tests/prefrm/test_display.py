import numpy as np
import pytest

from prefrm.display import BLACK, WHITE, markdown_table, one_line, short_number, text_color


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b", "a  b"),
        ("one\ntwo\r\n  three\u2028four\n", "one two three four"),
        ("a\tb", "a b"),
        ("bell\x07 and \x1b[31m", "bell\ufffd and \ufffd[31m"),
        ("undecodable \udcff", "undecodable \ufffd"),
        ("a judge \u202egpj.exe\u2066", "a judge \ufffdgpj.exe\ufffd"),
        ("👩\u200d🚀 and नमस्ते", "👩\u200d🚀 and नमस्ते"),
    ],
)
def test_a_text_on_one_line(text, line):
    assert one_line(text) == line


def test_a_table_is_aligned_in_its_source_too():
    assert markdown_table(["judge", "p"], [["a|b", "0.5"], ["c", "12.25"]]) == (
        "| judge |     p |\n| ----- | ----: |\n| a\\|b  |   0.5 |\n| c     | 12.25 |"
    )
    assert markdown_table(["a", "b"], [["x", "y"]], 2) == "| a   | b   |\n| --- | --- |\n| x   | y   |"


def test_a_short_number_has_three_digits_or_is_whole():
    assert [short_number(value) for value in (0.01234, 9.999, 99.94, 123.4, 12345.6)] == [
        "0.0123", "10", "99.9", "123", "12,346"
    ]  # fmt: skip


def contrast(a, b):
    """By the definition of WCAG 2.2."""

    def luminance(color):
        c = np.asarray(color, dtype=float)
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_has_the_contrast_of_wcag_aa_on_every_background():
    rgb = {BLACK: (0, 0, 0), WHITE: (1, 1, 1)}
    for background in np.random.default_rng(0).random((500, 3)):
        chosen = contrast(rgb[text_color(tuple(background))], background)
        assert chosen == max(contrast(color, background) for color in rgb.values())
        assert chosen >= 4.5
