"""What of a dataset's splits the calibration and the held-out metrics of a bundle come from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from prefrm.errors import DataError
from prefrm.media import decode
from prefrm.records import read_groups, write_groups
from prefrm.train.config import DataConfig
from prefrm.train.measure import measure
from prefrm.winmatrix import FakeScorer


@pytest.fixture
def data(brightness: Callable[..., Path]) -> DataConfig:
    return DataConfig(path=brightness(train=1, validation=4, test=2))


@pytest.fixture
def scorer() -> FakeScorer:
    """Prefers the brighter image, too timidly."""
    return FakeScorer(lambda prompt, image: decode(image).getpixel((0, 0))[0] / 1000)


def test_both_splits_calibrate_and_measure(scorer: FakeScorer, data: DataConfig, tmp_path: Path) -> None:
    calibration, evaluation = measure(scorer, data, tmp_path / "report")
    assert (calibration.split, calibration.pairs) == ("validation", 12)
    assert calibration.map.temperature < 0.5
    assert evaluation.applied == calibration.map
    assert evaluation.thresholds.split == "validation"
    numbers = json.loads((tmp_path / "report" / "report.json").read_text())
    assert numbers["applied"] == {"name": calibration.name, "parameters": calibration.parameters}
    assert numbers["before"]["applied"] is None
    assert len(evaluation.judged) == 2


def test_without_a_test_split_the_calibration_stays(
    scorer: FakeScorer, data: DataConfig, tmp_path: Path
) -> None:
    calibration, evaluation = measure(scorer, replace(data, test=None), tmp_path / "report")
    assert calibration == measure(scorer, data, tmp_path / "other")[0]
    assert evaluation is None
    assert not (tmp_path / "report").exists()


def test_without_a_validation_split_the_judge_is_measured_as_it_is(
    scorer: FakeScorer, data: DataConfig, tmp_path: Path
) -> None:
    calibration, evaluation = measure(scorer, replace(data, validation=None), tmp_path / "report")
    assert calibration is None
    assert evaluation.applied is None
    assert evaluation.thresholds is None
    assert "there is none: data.validation is null." in (tmp_path / "report" / "report.md").read_text()


def test_without_either_nothing_is_asked(data: DataConfig, tmp_path: Path) -> None:
    class Never:
        def score(self, groups: object) -> None:
            raise AssertionError

    assert measure(Never(), replace(data, validation=None, test=None), tmp_path) == (None, None)


def test_a_validation_split_that_nobody_could_judge_is_named(data: DataConfig, tmp_path: Path) -> None:
    groups = [replace(group, candidates=(b"broken",) * 3) for group in read_groups(data.path, "validation")]
    write_groups(groups, data.path, "validation")

    def reads(prompt: str, image: bytes) -> float:
        if image == b"broken":
            raise ValueError("it cannot be read")
        return float(len(image))

    with pytest.raises(DataError, match=r"'validation' was compared and judged \(.+: it cannot be read\)"):
        measure(FakeScorer(reads), data, tmp_path)
