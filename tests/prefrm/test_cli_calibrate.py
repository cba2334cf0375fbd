"""`prefrm calibrate`: what it fits, what it writes, and what it refuses."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefrm.bundle import read_manifest, write_bundle
from prefrm.cli import run
from prefrm.engine import Engine
from prefrm.eval import apply_calibration, evaluate, fit_calibration, pairs_of
from prefrm.judge import Judge
from prefrm.records import Comparison, PreferenceGroup, fingerprint, read_groups, write_groups
from prefrm.scorers import ScorerFile, Source, open_scorer, read_scorer_file, write_scorer_file
from prefrm.winmatrix import CalibrationRecord, FakeScorer
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

CARD = "# A judge\n\n- calibration: not calibrated: old words\n\n## Results\n\nOn the split `test`:\n\nold\n"


@pytest.fixture
def dataset(judge: Judge, png: Callable[..., bytes], tmp_path: Path) -> Path:
    """Images that the judge tells apart, and labels of which three in four agree with it."""
    images = [png(n) for n in range(8)]
    groups = [
        PreferenceGroup(
            id=f"g{n}",
            prompt=f"prompt {n}",
            candidates=(images[n], images[(n + 3) % 8]),
            comparisons=(Comparison.preferred(0, 1),),
        )
        for n in range(8)
    ]
    matrices = Engine(judge).score([group.group() for group in groups])
    for n, (group, matrix) in enumerate(zip(groups, matrices, strict=True)):
        agrees = (matrix.p[0, 1] > 0.5) == (n % 4 > 0)
        groups[n] = replace(group, comparisons=(Comparison.preferred(*((0, 1) if agrees else (1, 0))),))
    for split in ("validation", "train"):
        write_groups(groups if split == "validation" else groups[:4], tmp_path / "data", split)
    return tmp_path / "data"


@pytest.fixture
def bundle(judge: Judge, dataset: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    learned = fingerprint(read_groups(dataset, "train"))
    write_bundle(folder, judge, calibration=None, data_fingerprint=learned, metrics={"old": 1.0}, card=CARD)
    return folder


def test_a_calibration_is_fitted_written_and_said(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = evaluate(Engine.from_bundle(bundle, device="cpu"), read_groups(dataset, "validation"))
    pairs = pairs_of(scored.judged)
    weights = {name: digest for name, digest in read_manifest(bundle).files.items() if name != "README.md"}
    assert run(["calibrate", str(bundle), str(dataset), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    manifest = read_manifest(bundle)
    fitted = fit_calibration(pairs.p, pairs.target)
    assert manifest.calibration.map == fitted
    assert (manifest.calibration.split, manifest.calibration.pairs) == ("validation", 8)
    assert report["split"] == "validation" and report["pairs"] == 8 and report["digest"] == manifest.digest
    assert report["before"]["calibration"] is None
    assert report["after"]["calibration"] == {"name": fitted.name, "parameters": fitted.parameters}
    after = scored.calibrated(fitted)
    for when, expected in (("before", scored), ("after", after)):
        assert report[when]["log_loss"] == expected.metrics.log_loss
        assert report[when]["ece"] == expected.calibration.ece
    assert report["after"]["log_loss"] < report["before"]["log_loss"]
    assert {name: manifest.files[name] for name in weights} == weights


def test_what_was_measured_under_another_calibration_goes(bundle: Path, dataset: Path) -> None:
    assert run(["calibrate", str(bundle), str(dataset)]) == 0
    manifest = read_manifest(bundle)
    assert manifest.metrics == {}
    card = (bundle / "README.md").read_text()
    assert f"- calibration: {manifest.calibration.describe()}\n" in card
    assert "old" not in card and "It was not evaluated on held-out data." in card


def test_the_engine_and_an_evaluation_give_the_matrices_of_the_new_calibration(
    bundle: Path, dataset: Path
) -> None:
    groups = [group.group() for group in read_groups(dataset, "validation")]
    before = Engine.from_bundle(bundle, device="cpu").score(groups)
    assert run(["calibrate", str(bundle), str(dataset)]) == 0
    after = Engine.from_bundle(bundle, device="cpu").score(groups)
    calibration = read_manifest(bundle).calibration.map
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(other.p, apply_calibration(one.p, calibration), atol=1e-6)
        np.testing.assert_allclose(other.order_gap, one.calibrated(calibration).order_gap, atol=1e-6)


def test_fitting_again_starts_from_the_judge_and_changes_nothing(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["calibrate", str(bundle), str(dataset)]) == 0
    first = read_manifest(bundle)
    shown = capsys.readouterr().out
    assert "(uncalibrated)" in shown and f"({first.calibration.describe()})" in shown
    assert run(["calibrate", str(bundle), str(dataset)]) == 0
    assert read_manifest(bundle) == first
    assert "uncalibrated" not in capsys.readouterr().out


def test_a_split_of_which_nothing_can_be_judged_changes_nothing(
    bundle: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_manifest(bundle)
    groups = [replace(group, candidates=(b"broken", b"too")) for group in read_groups(dataset, "validation")]
    write_groups(groups, dataset, "validation")
    assert run(["calibrate", str(bundle), str(dataset)]) == 1
    error = capsys.readouterr().err
    assert "record 'g0', " in error
    assert "prefrm: nothing was judged: no pair of the split 'validation' could be judged" in error
    assert read_manifest(bundle) == before


def test_the_calibration_of_a_url_and_of_an_ensemble_is_a_scorer_file(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A URL is wrapped; what was wrapped, or an ensemble, is fitted again without its calibration."""
    groups = list(read_groups(dataset, "validation"))
    bright = FakeScorer(lambda prompt, image: sum(image) % 101 / 30)
    scored = evaluate(bright, groups)
    fitted = scored.fitted_calibration()
    path = tmp_path / "calibrated.yaml"
    with background(JudgeServer(bright, ModelInfo(name="judge"))) as served:
        assert run(["calibrate", served.http_url, str(dataset), "--out", str(path), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["file"] == str(path) and report["before"]["calibration"] is None
        assert report["before"]["log_loss"] == pytest.approx(scored.metrics.log_loss)
        assert report["after"]["calibration"] == {"name": fitted.name, "parameters": fitted.parameters}
        file = read_scorer_file(path)
        assert file == ScorerFile(
            scorers=(Source(scorer=served.http_url),),
            calibration=CalibrationRecord.of(fitted, split="validation", pairs=8),
        )
        with open_scorer(path) as scorer:
            matrices = scorer.score([group.group() for group in groups])
        for group, matrix in zip(scored.judged, matrices, strict=True):
            np.testing.assert_allclose(matrix.p, apply_calibration(group.matrix.p, fitted), atol=1e-6)
        assert run(["calibrate", str(path), str(dataset)]) == 0
        assert read_scorer_file(path) == file
        assert f"the calibrated scorer is {path}" in capsys.readouterr().out
        both = ScorerFile(
            scorers=(Source(scorer=served.http_url), Source(scorer=served.grpc_url, weight=2.0)),
            combine="vote",
        )
        write_scorer_file(both, path)
        assert run(["calibrate", str(path), str(dataset), "--out", str(tmp_path / "other.yaml")]) == 0
        assert read_scorer_file(path) == both
        other = read_scorer_file(tmp_path / "other.yaml")
        assert other.calibration is not None and replace(other, calibration=None) == both


def test_a_bundle_may_be_calibrated_from_outside(bundle: Path, dataset: Path, tmp_path: Path) -> None:
    before, path = read_manifest(bundle), tmp_path / "calibrated.yaml"
    assert run(["calibrate", str(bundle), str(dataset), "--out", str(path)]) == 0
    assert read_manifest(bundle) == before
    assert run(["calibrate", str(bundle), str(dataset)]) == 0
    # The bundle had no calibration before, so both are fitted to the same log-odds.
    assert read_scorer_file(path).calibration == read_manifest(bundle).calibration


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["grpc://host:1/judge", "{data}"], "give --out FILE.yaml for that of grpc://host:1/judge"),
        (["grpc://host:1/judge", "{data}", "--out", "folder"], "is written into a .yaml file"),
        (["{data}/none.yaml", "{data}"], "none.yaml: cannot be read"),
        (["{data}", "{data}"], "is not a bundle"),
        (["{bundle}", "{bundle}"], "does not exist"),
        (["{bundle}", "{data}", "--split", "test"], "test.parquet does not exist"),
        (["{bundle}", "{data}", "--split", "train"], "was trained on the split 'train'"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(
    bundle: Path,
    dataset: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = read_manifest(bundle)
    assert run(["calibrate", *(one.format(data=dataset, bundle=bundle) for one in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("prefrm: ") and error.count("\n") == 1 and message in error
    assert read_manifest(bundle) == before
