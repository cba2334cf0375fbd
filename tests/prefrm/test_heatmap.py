import io

import numpy as np
import pytest
from rich.console import Console

from prefrm.errors import ConfigError
from prefrm.heatmap import terminal_matrix
from prefrm.winmatrix import WinMatrix


def matrix(size, errors=None):
    u = np.arange(size, dtype=float)
    return WinMatrix.from_order_logits(u[:, None] - u[None, :], errors=errors)


def printed(renderable, width=80, **options):
    file = io.StringIO()
    Console(file=file, width=width, **options).print(renderable)
    return file.getvalue()


def test_plain_text_is_an_aligned_table():
    assert printed(terminal_matrix(matrix(3), ["dark.png", "grey.png", "bright.png"])) == (
        "                0    1    2   win rate\n"
        "0 dark.png      -  .27  .12   0.194\n"
        "1 grey.png    .73    -  .27   0.500\n"
        "2 bright.png  .88  .73    -   0.806\n"
    )


def test_what_was_not_judged_is_a_question_mark_with_its_reason_below():
    z = np.zeros((4, 4))
    z[0, 2] = np.nan
    made = WinMatrix.from_order_logits(z, errors=("", "the image is empty (0 bytes)", "", ""))
    lines = printed(terminal_matrix(made, ["a", "b", "c", "d"])).splitlines()
    assert lines[1] == "0 a    -    ?    ?  .50   0.500"
    assert lines[2] == "1 b    ?    ?    ?    ?   not judged"
    assert lines[5:] == [
        "? 1 (b): the image is empty (0 bytes)",
        "? 0 against 2: the judge gave no finite answer for this pair",
    ]


def part_judged():
    """0 and 1, 1 and 2 judged; 0 and 2 inferred."""
    z = np.subtract.outer([0.0, 1.0, 3.0], [0.0, 1.0, 3.0])
    judged = np.where(np.eye(3)[::-1] == 1, np.nan, z)
    return WinMatrix.from_order_logits(judged).with_inferred(z)


@pytest.mark.parametrize("colored", [False, True])
def test_what_was_inferred_is_marked_and_the_mark_explained(colored):
    options = {"force_terminal": True, "color_system": "truecolor"} if colored else {}
    text = printed(terminal_matrix(part_judged()), **options)
    first, *_, note = text.splitlines()[1:]
    assert ".05~" in first and ".27 " in first and "?" not in text
    assert note == "~ inferred from the pairs that were judged"
    assert text.count("~") == 3
    # Italics: the third parameter of a style's escape sequence in colour, and nothing without.
    assert ("\x1b[3;" in first) == colored
    assert "~" not in printed(terminal_matrix(matrix(3)))


@pytest.mark.parametrize("colored", [False, True])
@pytest.mark.parametrize("size", [2, 8, 16])
def test_each_candidate_is_one_line_within_eighty_columns(size, colored):
    labels = [f"a_rather_long_name_of_image_{n}.png" for n in range(size)]
    options = {"force_terminal": True, "color_system": "truecolor"} if colored else {}
    width = 80 if not colored or size < 16 else 92
    text = printed(terminal_matrix(matrix(size), labels), width=width, **options)
    assert len(text.splitlines()) == size + 1
    assert ("\x1b[" in text) == colored
    for line in printed(terminal_matrix(matrix(size), labels), width=width).splitlines():
        assert len(line) <= width


def test_a_terminal_shows_wins_in_blue_and_losses_in_orange():
    text = printed(terminal_matrix(matrix(2)), force_terminal=True, color_system="truecolor")
    loses, wins = text.splitlines()[1:]
    assert ".27" in loses and ".73" in wins
    red, _, blue = (int(part) for part in loses.split("48;2;")[1].split("m")[0].split(";"))
    assert red > blue
    red, _, blue = (int(part) for part in wins.split("48;2;")[1].split("m")[0].split(";"))
    assert blue > red


def test_an_even_pair_is_nearly_white():
    text = printed(
        terminal_matrix(WinMatrix.from_order_logits(np.zeros((2, 2)))),
        force_terminal=True,
        color_system="truecolor",
    )
    background = text.splitlines()[1].split("48;2;")[1].split("m")[0]
    assert min(int(part) for part in background.split(";")) > 240


def test_a_terminal_without_colour_gets_the_plain_table():
    plain = printed(terminal_matrix(matrix(3)))
    assert printed(terminal_matrix(matrix(3)), force_terminal=True, color_system=None) == plain


def test_a_long_reason_is_wrapped_and_not_cut_off():
    reason = " ".join(f"word{n}" for n in range(40)) + " the-end"
    made = WinMatrix.from_order_logits(np.zeros((2, 2)), errors=("", reason))
    text = printed(terminal_matrix(made, ["a", "b"]), width=40)
    assert "the-end" in text
    assert max(len(line) for line in text.splitlines()) <= 40


@pytest.mark.parametrize("labels", [[], ["a"], ["a", "b", "c"]])
def test_labels_are_one_for_each_candidate(labels):
    with pytest.raises(ConfigError, match=f"2 candidates need as many labels; received {len(labels)}"):
        terminal_matrix(matrix(2), labels)
