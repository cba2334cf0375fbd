"""Length bias of texts, and breakdowns by criterion and kind."""

import re
from types import SimpleNamespace

import pytest

from prefrm.eval import evaluate, write_report
from prefrm.eval.report import summary
from prefrm.records import Comparison, PreferenceGroup
from prefrm.winmatrix import FakeScorer


def group(id, texts, comparisons, criterion=""):
    return PreferenceGroup(
        id=id, prompt=f"prompt {id}", candidates=texts, comparisons=comparisons, criterion=criterion
    )


# The longer one is preferred twice, the shorter one once, of equal lengths one, and one pair is a tie.
GROUPS = [
    group("a", ("a long answer", "short"), (Comparison.preferred(0, 1),), "detail"),
    group("b", ("short", "a long answer"), (Comparison.preferred(1, 0),), "detail"),
    group("c", ("a long answer", "short"), (Comparison.preferred(1, 0),)),
    group("d", ("same", "size"), (Comparison.preferred(0, 1),)),
    group("e", ("short", "a long answer"), (Comparison.tie(0, 1),)),
]


def by_length(prompt, text):
    return len(text) / 8


@pytest.fixture
def judged():
    return evaluate(FakeScorer(by_length), GROUPS)


def test_a_judge_that_prefers_the_longer_text_is_right_where_the_labels_do_too(judged):
    bias = judged.metrics.length_bias
    assert {name: (entry.value, entry.pairs) for name, entry in bias.accuracy.items()} == {
        "longer": (1.0, 2), "shorter": (0.0, 1), "equal": (0.0, 1),
    }  # fmt: skip
    assert bias.always_longer == pytest.approx(2 / 3)
    # sigmoid of a difference of 8 characters.
    assert bias.judge == pytest.approx(0.731, abs=1e-3)
    assert bias.labels == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert judged.metrics.ties == 1
    opposite = evaluate(FakeScorer(lambda p, t: -by_length(p, t)), GROUPS).metrics.length_bias
    assert opposite.judge == pytest.approx(1 - bias.judge, abs=1e-6)
    assert opposite.accuracy["shorter"].value == 1.0


def test_images_have_no_length(make_group, bright_scorer):
    metrics = evaluate(bright_scorer, [make_group("a", (10, 200))]).metrics
    assert metrics.length_bias is None and list(metrics.by_tag) == ["skill"]


def test_accuracy_is_broken_down_by_criterion_and_by_kind_where_there_are_several(judged, make_group):
    assert {name: entry.value for name, entry in judged.metrics.by_tag["criterion"].items()} == {
        "detail": 1.0, "overall": 0.0,
    }  # fmt: skip
    assert "kind" not in judged.metrics.by_tag
    mixed = evaluate(FakeScorer(lambda p, x: len(x) / 8), [*GROUPS[:2], make_group("i", (10, 200))])
    assert list(mixed.metrics.by_tag["kind"]) == ["image", "text"]
    assert "criterion" in mixed.metrics.by_tag


@pytest.mark.slow
def test_the_report_shows_both(judged, tmp_path):
    write_report(judged, tmp_path)
    report = re.sub(" +", " ", (tmp_path / "report.md").read_text())
    assert "## By criterion" in report and "## Length of texts" in report
    assert "| preferred text shorter | 0.000 |" in report
    assert "prefers the longer one with 0.731 in the mean, and the labels with 0.625" in report
    study = SimpleNamespace(
        evaluation=judged, recalibrated=None, splits=SimpleNamespace(validation="v", why="")
    )
    assert any(
        "pair accuracy 1.000 where it is longer, 0.000 where it is shorter" in x for x in summary(study)
    )
