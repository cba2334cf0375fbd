"""What an audit finds in judged groups whose verdicts are known."""

import numpy as np
import pytest

from prefrm.app.findings import AuditedGroup, by_tag, find
from prefrm.errors import ConfigError
from prefrm.records import Comparison, PreferenceGroup
from prefrm.winmatrix import WinMatrix


def audited(id: str, logits: list[list[float]], *labels: Comparison, criterion: str = "") -> AuditedGroup:
    """A group of texts "0", "1", ... with these log-odds, and the tag "parity" of its id."""
    group = PreferenceGroup(
        id=id,
        prompt="the same",
        candidates=tuple(str(n) for n in range(len(logits))),
        comparisons=labels,
        criterion=criterion,
        tags={"parity": "even" if int(id) % 2 == 0 else "odd"},
    )
    return AuditedGroup.of(group, WinMatrix.from_order_logits(np.array(logits)))


# 0 beats 1 with sigmoid(3), and 1 beats 2 with sigmoid(1) on average of two orders that differ by 2.
PLAIN = [[0, 3, 2], [-3, 0, 2], [-2, 0, 0]]
CYCLE = [[0, 1, -2], [-1, 0, 3], [2, -3, 0]]


def test_disagreements_are_ordered_by_confidence() -> None:
    groups = [
        audited("0", PLAIN, Comparison.preferred(1, 0), Comparison.preferred(2, 1), Comparison.tie(0, 2)),
        audited("1", PLAIN, Comparison.preferred(0, 1)),
    ]
    first, second = find(groups, "disagreement")
    assert (first.record, first.candidates) == ("0", (0, 1)) and second.candidates == (1, 2)
    assert first.severity == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-6)
    assert "the label prefers 1, the judge 0 with 0.95" in first.text
    assert find(groups, "disagreement", tag="parity=odd") == []
    assert find(groups, "disagreement", most=1) == [first]


def test_order_gaps_and_cycles_are_found() -> None:
    groups = [audited("0", PLAIN), audited("1", CYCLE)]
    (gap,) = find(groups, "order gap")
    assert gap.candidates == (1, 2) and gap.severity == pytest.approx(0.8808 - 0.5, abs=1e-4)
    (cycle,) = find(groups, "cycle")
    assert (cycle.record, cycle.candidates) == ("1", (0, 1, 2))
    assert cycle.severity == pytest.approx(2 * 0.7311 - 1, abs=1e-4)


def test_criteria_that_contradict_each_other_are_found() -> None:
    opposite = [[-x for x in row] for row in PLAIN]
    groups = [audited("0", PLAIN, criterion="layout"), audited("2", opposite, criterion="color")]
    first, *_ = find(groups, "criteria")
    assert (first.record, first.other, first.candidates) == ("0", "2", (0, 1))
    assert "by layout 0 beats 1 with 0.95, by color 1 beats 0 with 0.95" in first.text
    assert find([groups[0], audited("4", PLAIN, criterion="color")], "criteria") == []


def test_a_row_for_each_tag_counts_and_averages() -> None:
    groups = [
        audited("0", PLAIN, Comparison.preferred(1, 0), Comparison.preferred(0, 2)),
        audited("1", CYCLE, Comparison.preferred(0, 1)),
    ]
    whole, even, odd = by_tag(groups)
    assert (whole.tag, whole.groups, whole.strict, whole.cycles) == ("", 2, 3, 1)
    assert whole.agreement == pytest.approx(2 / 3)
    assert (even.tag, even.agreement, odd.tag, odd.agreement) == ("parity=even", 0.5, "parity=odd", 1.0)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="disagreement, order gap, cycle, criteria"):
        find([], "typo")
