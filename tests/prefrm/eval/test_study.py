from dataclasses import replace

import pytest

from prefrm.errors import ConfigError, DatasetError
from prefrm.eval import evaluate_splits, find_splits, fit_split
from prefrm.media import decode
from prefrm.records import Comparison, write_groups
from prefrm.winmatrix import FakeScorer


@pytest.fixture
def data(tmp_path, make_group):
    """On validation, candidates up to 40 grey levels (1 in log-odds) apart tie."""

    def groups(first, count):
        for n in range(first, first + count):
            levels = [100, 100 + 37 * (n % 4), 240 + n % 7]
            comparisons = tuple(
                Comparison.tie(i, j)
                if abs(levels[i] - levels[j]) < 40
                else Comparison.preferred(*((i, j) if levels[i] > levels[j] else (j, i)))
                for i, j in ((0, 1), (0, 2), (1, 2))
            )
            yield make_group(f"g{n}", levels, comparisons=comparisons)

    for split, first, count in (("validation", 0, 12), ("test", 20, 8), ("train", 40, 4)):
        write_groups(groups(first, count), tmp_path / "data", split)
    return tmp_path / "data"


def rewrite(data, make_group, **change):
    write_groups([replace(make_group("x", [10, 200]), **change)], data, "test")


def test_the_validation_split_is_found_unless_another_is_named(data):
    assert find_splits(data, "test").validation == "validation"
    assert find_splits(data, "test", "train").validation == "train"
    assert find_splits(data, "test", "none").why == "none was asked for"
    assert find_splits(data, "validation").why == "'validation' itself is measured"
    (data / "validation.parquet").unlink()
    assert find_splits(data, "test").why == "the dataset has no split 'validation'"


@pytest.mark.parametrize("splits", [("nowhere", None), ("test", "nowhere")])
def test_a_missing_split_is_named(data, splits):
    with pytest.raises(DatasetError, match=r"nowhere.parquet does not exist; splits found"):
        find_splits(data, *splits)


def test_nothing_is_fitted_on_what_is_measured(data):
    with pytest.raises(ConfigError, match="cannot be fitted on 'test', on which they are measured"):
        find_splits(data, "test", "test")


def test_the_thresholds_separate_the_ties_of_the_validation_split(bright_scorer, data):
    done = evaluate_splits(bright_scorer, data, find_splits(data, "test"))
    thresholds = done.evaluation.thresholds
    assert (thresholds.split, thresholds.pairs) == ("validation", 36)
    # Up to 37 levels are 0.925 in log-odds and tie; the next strict pair is farther.
    assert 0.43 < thresholds.tie_calibrated < 0.6
    assert done.evaluation.metrics.accuracies["tie_calibrated_accuracy"].overall.value == 1.0
    assert done.evaluation.metrics.accuracies["half_tie_accuracy"].overall.value == 1.0


def test_what_was_fitted_is_what_is_measured_with(bright_scorer, data):
    done = evaluate_splits(bright_scorer, data, find_splits(data, "test"))
    assert done.fitted == fit_split(bright_scorer, data, "validation")
    assert done.fitted.calibration == done.recalibrated.applied
    assert done.fitted.thresholds == done.evaluation.thresholds


def test_a_judge_that_contradicts_its_labels_is_named(bright_scorer, data, caplog):
    fit_split(bright_scorer, data, "validation")
    assert not caplog.records
    fit_split(FakeScorer(lambda prompt, image: -decode(image).getpixel((0, 0))[0] / 40), data, "validation")
    assert "the judge contradicts the labels of 'validation'" in caplog.text


def test_what_is_measured_does_not_move_what_is_fitted(bright_scorer, data, make_group):
    splits = find_splits(data, "test")
    before = evaluate_splits(bright_scorer, data, splits)
    rewrite(data, make_group, comparisons=(Comparison.preferred(0, 1),))
    after = evaluate_splits(bright_scorer, data, splits)
    assert after.evaluation.thresholds == before.evaluation.thresholds
    assert after.recalibrated.applied == before.recalibrated.applied
    assert after.evaluation.metrics.accuracy.value == 0.0


def test_no_accuracy_depends_on_the_calibration(bright_scorer, data):
    done = evaluate_splits(bright_scorer, data, find_splits(data, "test"))
    assert done.recalibrated.applied is not None
    assert done.recalibrated.metrics.accuracies == done.evaluation.metrics.accuracies
    assert done.recalibrated.metrics.log_loss != done.evaluation.metrics.log_loss


def test_without_a_validation_split_only_what_needs_it_is_missing(bright_scorer, data):
    done = evaluate_splits(bright_scorer, data, find_splits(data, "test", "none"))
    assert done.fitted is done.recalibrated is None
    assert list(done.evaluation.metrics.accuracies) == [
        "pair_accuracy",
        "prompt_accuracy",
        "three_label_accuracy",
    ]


def test_a_validation_split_that_compares_nothing_is_refused(bright_scorer, data, make_group):
    write_groups([make_group("v", [1, 2], comparisons=())], data, "validation")
    with pytest.raises(DatasetError, match="no pair of the split 'validation' was compared and judged"):
        evaluate_splits(bright_scorer, data, find_splits(data, "test"))
