import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, DatasetError
from prefrm.eval import (
    Fitted,
    Opponent,
    Splits,
    Study,
    Thresholds,
    evaluate,
    summary,
    write_report,
)
from prefrm.winmatrix import FakeScorer, TemperatureScaling, WinMatrix


def temperature(value):
    return TemperatureScaling(temperature=value)


@pytest.fixture
def groups(make_group):
    generator = np.random.default_rng(0)
    return [
        make_group(f"g{n}", generator.integers(0, 256, size=4).tolist(), skill=("colors", "counting")[n % 2])
        for n in range(12)
    ]


class CountingScorer:
    """A scorer that knows how often it was asked for how many groups."""

    def __init__(self, inner):
        self.inner, self.calls = inner, []

    def score(self, groups):
        self.calls.append(len(groups))
        return self.inner.score(groups)


def test_a_judge_that_sees_what_the_labels_see_is_always_right(bright_scorer, groups):
    seen = []
    evaluation = evaluate(bright_scorer, iter(groups), batch=5, progress=seen.append)
    assert seen == [5, 10, 12]
    assert evaluation.metrics.groups == 12
    assert evaluation.metrics.accuracy.value == 1.0
    assert evaluation.metrics.kendall_tau == 1.0
    assert evaluation.metrics.best_of_k_regret == 0.0
    assert set(evaluation.metrics.by_tag["skill"]) == {"colors", "counting"}
    assert evaluation.metrics.mean_order_gap > 0


def test_groups_are_drawn_one_batch_ahead_of_what_is_scored(groups):
    drawn = []
    scorer = CountingScorer(FakeScorer(lambda prompt, image: 0.0))
    stream = (drawn.append(len(scorer.calls)) or group for group in groups)
    evaluate(scorer, stream, batch=4)
    assert max(drawn[:4]) == 0 and max(drawn[:8]) <= 1 and min(drawn[8:]) >= 1


def test_an_unreadable_image_costs_its_own_candidate_only(bright_scorer, groups):
    broken = replace(groups[3], candidates=(*groups[3].candidates[:2], b"GIF89a", groups[3].candidates[3]))
    evaluation = evaluate(bright_scorer, [*groups[:3], broken, *groups[4:]])
    (entry,) = evaluation.unreadable
    assert (entry.id, entry.candidates) == ("g3", (2,))
    assert "not a valid PNG or JPEG or WEBP image" in entry.reason
    # Three of the group's six pairs are gone and everything else is there.
    assert evaluation.metrics.unjudged == 3
    assert evaluation.metrics.comparisons == 72
    assert evaluation.metrics.accuracy.value == 1.0


def test_a_pair_that_the_judge_refused_is_reported_with_its_reason(groups, tmp_path):
    z = np.zeros((4, 4))
    z[0, 2] = np.nan
    matrix = WinMatrix.from_order_logits(z, pair_errors={(0, 2): "it said: perhaps"})

    class Perhaps(FakeScorer):
        def score(self, groups):
            return [matrix for _ in groups]

    evaluation = evaluate(Perhaps(lambda prompt, image: 0.0), groups[:1])
    (entry,) = evaluation.to_dict()["unreadable"]
    assert entry == {"id": groups[0].id, "candidates": [0, 2], "reason": "it said: perhaps"}
    write_report(evaluation, tmp_path)
    line = f"- record `{groups[0].id}`, candidate 0 and 2: it said: perhaps"
    assert line in (tmp_path / "report.md").read_text()


def test_a_candidate_that_the_dataset_lacks_is_not_reported(bright_scorer, make_group):
    evaluation = evaluate(bright_scorer, [make_group("a", [10, None, 200])])
    assert evaluation.unreadable == ()
    assert evaluation.metrics.unjudged == 0


def test_evaluating_under_another_calibration_asks_nobody(groups):
    scorer = CountingScorer(FakeScorer(lambda prompt, image: float(len(image) % 7)))
    evaluation = evaluate(scorer, groups, batch=12)
    softer = evaluation.calibrated(temperature(2.0)).calibrated(temperature(6.0))
    assert scorer.calls == [12]
    assert softer.applied == temperature(6.0) and softer.as_scored is evaluation
    assert softer.metrics.accuracy.value == evaluation.metrics.accuracy.value
    expected = evaluate(FakeScorer(lambda prompt, image: (len(image) % 7) / 6), groups)
    assert softer.metrics.log_loss == pytest.approx(expected.metrics.log_loss, rel=1e-5)
    assert softer.calibration.ece == pytest.approx(expected.calibration.ece, rel=1e-4)


def test_the_fitted_calibration_has_the_least_log_loss(bright_scorer, groups, make_group):
    noisy = [replace(g, comparisons=tuple(c.flipped() for c in g.comparisons)) if n % 4 == 0 else g
             for n, g in enumerate(groups)]  # fmt: skip
    evaluation = evaluate(bright_scorer, noisy)
    best = evaluation.fitted_calibration()
    others = [replace(best, temperature=best.temperature * factor) for factor in (0.8, 1.0, 1.25)]
    losses = [evaluation.calibrated(one).metrics.log_loss for one in others]
    assert losses[1] == min(losses)


def test_nothing_to_evaluate_is_an_error(bright_scorer, groups):
    with pytest.raises(DatasetError, match="holds no group"):
        evaluate(bright_scorer, [])
    with pytest.raises(ConfigError, match="a batch must hold at least 1 item; received 0"):
        evaluate(bright_scorer, groups, batch=0)


def test_the_report_holds_the_numbers_and_the_plots(bright_scorer, groups, tmp_path):
    broken = replace(groups[3], candidates=(*groups[3].candidates[:2], b"GIF89a", groups[3].candidates[3]))
    before = evaluate(bright_scorer, [*groups[:3], broken, *groups[4:]])
    after = before.calibrated(temperature(1.7))
    write_report(after, tmp_path / "report", before=before)
    folder = tmp_path / "report"
    numbers = json.loads((folder / "report.json").read_text())
    assert numbers == json.loads(json.dumps(after.to_dict() | {"before": before.to_dict()}))
    assert numbers["applied"] == {"name": "temperature", "parameters": {"temperature": 1.7}}
    assert numbers["before"]["applied"] is None
    text = re.sub(" +", " ", (folder / "report.md").read_text())
    cell = "1.000 (0.731 to 1.000; 69 pairs of 12 prompts)"
    assert f"| pair accuracy | {cell} | {cell} |" in text
    assert f"| log loss (nats) | {before.metrics.log_loss:.3f} | {after.metrics.log_loss:.3f} |" in text
    ece = (f"{entry.calibration.ece_strict:.3f}" for entry in (before, after))
    assert f"| expected calibration error, strict pairs alone | {' | '.join(ece)} |" in text
    assert numbers["calibration"]["ece_strict"] == after.calibration.ece_strict
    assert "record `g3`, candidate 2: " in text
    pictures = sorted(path.name for path in folder.glob("*.png"))
    assert pictures == ["accuracy.png", "accuracy_by_skill.png", "order_gap.png", "reliability.png"]
    for name in pictures:
        assert f"]({name})" in text
        with Image.open(folder / name) as image:
            assert image.width > 500


def test_a_place_that_can_hold_no_report_is_refused(bright_scorer, groups, tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ConfigError, match=r"the report's folder .*taken cannot be written: Not a directory;"):
        write_report(evaluate(bright_scorer, groups), tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_no_plot_of_an_earlier_report_outlives_its_numbers(bright_scorer, groups, tmp_path):
    write_report(evaluate(bright_scorer, groups), tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    write_report(evaluate(bright_scorer, [replace(group, tags={}) for group in groups]), tmp_path)
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures == ["accuracy.png", "mine.png", "order_gap.png", "reliability.png"]


def test_a_report_without_judged_pairs_has_no_plots_and_no_numbers(groups, tmp_path):
    def blind(prompt, image):
        raise ValueError("cannot see")

    evaluation = evaluate(FakeScorer(blind), groups[:2])
    assert math.isnan(evaluation.metrics.accuracy.value)
    assert len(evaluation.unreadable) == 8
    write_report(evaluation, tmp_path)
    assert not list(tmp_path.glob("*.png"))
    assert json.loads((tmp_path / "report.json").read_text())["metrics"]["accuracy"]["value"] is None
    assert "| pair accuracy | - |" in re.sub(" +", " ", (tmp_path / "report.md").read_text())


def test_another_judge_and_another_calibration_stand_beside_it(bright_scorer, groups, tmp_path):
    thresholds = Thresholds(split="validation", pairs=9, half_tie=0.0, tie_calibrated=0.0)
    study = Study(
        splits=Splits(test="test", validation="validation"),
        fitted=Fitted(calibration=temperature(0.5), thresholds=thresholds),
        evaluation=evaluate(bright_scorer, groups),
        recalibrated=evaluate(bright_scorer, groups).calibrated(temperature(0.5)),
    )
    blind = replace(study, evaluation=evaluate(FakeScorer(lambda prompt, image: 0.0), groups))
    opponent = Opponent.of("blind|judge", blind, study)
    shown = write_report(study.evaluation, tmp_path, recalibrated=study.recalibrated, against=opponent)
    assert "against.png" in shown and set(shown) == {path.name for path in tmp_path.glob("*.png")}
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["recalibrated"]["applied"]["parameters"] == {"temperature": 0.5}
    # A judge that says 0.5 to everything is wrong everywhere, by ImageReward's definition.
    difference = numbers["against"]["pair_accuracy"]
    assert {key: difference[key] for key in ("value", "high", "pairs", "prompts")} == {
        "value": 1.0, "high": 1.0, "pairs": 72, "prompts": 12
    }  # fmt: skip
    assert 0.5 < difference["low"] < 0.6
    text = re.sub(" +", " ", (tmp_path / "report.md").read_text())
    assert "| | as scored | at temperature 0.5 |" in text
    assert f"| pair accuracy | +1.000 | {difference['low']:+.3f} to +1.000 | 72 | 12 |" in text
    shown = f"+1.000 ({difference['low']:+.3f} to +1.000; 72 pairs of 12 prompts)"
    assert f"against blind|judge: pair accuracy {shown}, " in summary(study, opponent)[-1]


def test_equally_good_candidates_are_shown_and_drawn(bright_scorer, make_group, tmp_path):
    same = [make_group(f"g{n}", [10, 10, 200]) for n in range(3)]
    assert "illusory_advantage.png" in write_report(evaluate(bright_scorer, same), tmp_path)
    assert (
        "Mean |advantage| of 6 candidates in 3 sets of equal quality:" in (tmp_path / "report.md").read_text()
    )
    unknown = [replace(group, quality=None) for group in same]
    assert "illusory_advantage.png" not in write_report(evaluate(bright_scorer, unknown), tmp_path)
    assert "- (the dataset does not say how good its candidates are)" in (tmp_path / "report.md").read_text()
    assert not (tmp_path / "illusory_advantage.png").exists()
