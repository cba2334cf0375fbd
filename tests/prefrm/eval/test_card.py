import re

from prefrm.eval import evaluate, results_section, with_results


def test_a_card_gets_new_results_in_the_place_of_the_old_ones(bright_scorer, make_group):
    old = "# A judge\n\nfacts\n\n## Results\n\nold numbers\n\n### detail\n\n## Use\n\ncode\n"
    results = results_section(
        "test", evaluate(bright_scorer, [make_group("a", [10, 200])]), ["order_gap.png"]
    )
    new = with_results(old, results)
    cells = re.sub(" +", " ", new)
    assert "old numbers" not in new and "### detail" not in new
    assert cells.index("facts") < cells.index(
        "| pair accuracy | 1.000 (0.025 to 1.000; 1 pair of 1 prompt) | 0.500 |"
    )
    assert new.index("](plots/order_gap.png)") < new.index("\n\n## Use\n\ncode\n")
    assert with_results(new, results) == new


def test_a_card_without_results_gets_them_at_its_end():
    card = with_results("# Mine\n\nA text with \\1 in it.\n", results_section(None, None))
    assert (
        card == "# Mine\n\nA text with \\1 in it.\n\n## Results\n\nIt was not evaluated on held-out data.\n"
    )
    assert with_results(card, results_section(None, None)) == card


def test_equally_good_candidates_are_in_the_card_or_the_reason_why_not(bright_scorer, make_group):
    def told(levels):
        return results_section("test", evaluate(bright_scorer, [make_group("a", levels)]))

    assert "2 candidates in 1 sets of equal quality" in told([10, 10, 90])
    assert "- (no group has two judged candidates of equal quality)" in told([10, 90])
