import io
from dataclasses import replace

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

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
        "ranking: 2 bright.png > 1 grey.png > 0 dark.png\n"
    )


def test_what_was_not_judged_is_a_question_mark_with_its_reason_below():
    z = np.zeros((4, 4))
    z[0, 2] = np.nan
    made = WinMatrix.from_order_logits(z, errors=("", "the image is empty (0 bytes)", "", ""))
    lines = printed(terminal_matrix(made, ["a", "b", "c", "d"])).splitlines()
    assert lines[1] == "0 a    -    ?    ?  .50   0.500"
    assert lines[2] == "1 b    ?    ?    ?    ?   not judged"
    assert lines[5:] == [
        "ranking: 0 a = 2 c = 3 d",
        "? 1 (b): the image is empty (0 bytes)",
        "? 0 (a) against 2 (c): the judge gave no finite answer for this pair",
    ]


def test_the_largest_spread_of_an_ensemble_is_named():
    spread = np.array([[0, 0.1, np.nan], [0.1, 0, 0.25], [np.nan, 0.25, 0]])
    made = replace(part_judged(), spread=spread)
    lines = printed(terminal_matrix(made, ["a", "b", "c"])).splitlines()
    assert lines[-1] == "largest spread among the judges: 0.25, 1 (b) against 2 (c)"


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


def lines_of(size, width, colored, **options):
    names = [f"a_rather_long_name_of_image_{n}.png" for n in range(size)]
    if colored:
        options |= {"force_terminal": True, "color_system": "truecolor"}
    text = printed(terminal_matrix(matrix(size), names, elsewhere="--json prints it"), width=width, **options)
    assert ("\x1b[" in text) == colored
    return [Text.from_ansi(line).plain for line in text.splitlines()]


@pytest.mark.parametrize("colored", [False, True])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_every_candidate_is_a_line_with_its_name_and_win_rate_at_every_width(width, colored):
    for size in range(2, 71):
        lines = lines_of(size, width, colored)
        assert max(map(len, lines)) <= width
        rows = lines[1 : size + 1]
        rates = matrix(size).win_rate()
        # The end of a name tells files apart.
        for n in range(size):
            (row,) = [row for row in rows if f"_{n}.png " in row]
            assert f"  {rates[n]:.3f}" in row


def test_a_matrix_that_does_not_fit_is_a_ranked_table_that_says_where_the_matrix_is():
    fits, wide = lines_of(13, 80, False), lines_of(16, 80, False)
    assert fits[0].split() == [*map(str, range(13)), "win", "rate"]
    assert fits[14] == "ranking: 12 > 11 > 10 > 9 > 8 > 7 > 6 > 5 > 4 > 3 > 2 > 1 > 0"
    assert wide[0].split() == ["#", "win", "rate"]
    assert wide[1].split() == ["1", "15", "a_rather_long_name_of_image_15.png", "0.969"]
    assert wide[16].split()[:2] == ["16", "0"]
    assert " ".join(wide[17:]) == ("the 16 x 16 matrix needs 88 columns, here are 80; --json prints it")
    # With that width it is there.
    assert lines_of(16, 88, False)[0].split()[0] == "0"


def test_equal_win_rates_share_a_rank_and_the_unjudged_have_none():
    made = WinMatrix.from_order_logits(np.zeros((12, 12)), errors=["no image"] + [""] * 11)
    lines = printed(terminal_matrix(made), width=40).splitlines()
    assert [line.split()[:2] for line in lines[1:13]] == [["1", str(n)] for n in range(1, 12)] + [["?", "0"]]


def test_a_name_takes_the_cells_that_it_has_and_breaks_no_line():
    names = ["两只睡着的猫_两只睡着的猫_1.png", "a\nb\x1b[31m\tc.png", ""]
    lines = printed(terminal_matrix(matrix(3), names), width=42).splitlines()
    assert len({cell_len(line) for line in lines[1:4]}) == 1
    assert max(map(cell_len, lines)) <= 42
    assert "…睡着的猫_1.png " in lines[1]
    assert "a b\ufffd[31m c.png" in lines[2]
    assert lines[4] == "ranking: 2 > 1 > 0"


def test_reasons_of_many_pairs_are_one_line():
    made = WinMatrix.from_order_logits(np.full((5, 5), np.nan))
    lines = printed(terminal_matrix(made)).splitlines()
    assert lines[6:] == [
        "ranking: none, as nothing was judged",
        "? 0 against 1 and 9 more: the judge gave no finite answer for this pair",
    ]


def test_candidates_that_fail_for_one_reason_are_one_line():
    made = WinMatrix.missing(["too many"] * 4 + ["no image"])
    lines = printed(terminal_matrix(made)).splitlines()
    assert lines[-2:] == ["? 0, 1, 2 and 1 more: too many", "? 4: no image"]


def test_a_terminal_shows_wins_in_blue_and_losses_in_orange():
    text = printed(terminal_matrix(matrix(2)), force_terminal=True, color_system="truecolor")
    loses, wins = text.splitlines()[1:3]
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
