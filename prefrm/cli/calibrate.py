"""`prefrm calibrate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrm.cli.shared import AsJson, Data
from prefrm.errors import ConfigError

if TYPE_CHECKING:
    from prefrm.bundle import CalibrationRecord, Manifest
    from prefrm.eval import Evaluation

__all__ = ["calibrate"]


def calibrate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="the folder of a bundle, which is amended")],
    data: Data,
    split: Annotated[
        str, typer.Option(help="the split to fit to; one that the judge was not trained on")
    ] = "validation",
    as_json: AsJson = False,
) -> None:
    """Fit a bundle's calibration to a split of a dataset; its weights stay, its digest changes."""
    from prefrm.bundle import read_manifest
    from prefrm.records import count_groups

    if "://" in bundle:
        raise ConfigError(f"a calibration is written into a bundle's folder; received the URL {bundle}")
    before = read_manifest(bundle)
    count_groups(data, split)
    _check_unseen(before, data, split)
    scored, record = _fit(bundle, data, split)
    after = _amend(Path(bundle), record)
    report = {
        "split": split,
        "pairs": record.pairs,
        "before": _numbers(scored, before.calibration),
        "after": _numbers(scored, record),
        "digest": after.digest,
    }
    print(json.dumps(report, indent=2, allow_nan=False) if as_json else "\n".join(_lines(report, after)))


def _check_unseen(manifest: "Manifest", data: Path, split: str) -> None:
    from prefrm.records import fingerprint, read_groups

    if fingerprint(read_groups(data, split)) == manifest.data_fingerprint:
        raise ConfigError(
            f"the judge was trained on the split {split!r}, on which it is more certain than on other data; "
            "name a split that it has not seen"
        )


def _fit(bundle: str, data: Path, split: str) -> "tuple[Evaluation, CalibrationRecord]":
    """The judge as it is without calibration, measured on the split, and the calibration for it."""
    from prefrm.bundle import CalibrationRecord, load_bundle
    from prefrm.engine import Engine
    from prefrm.eval import evaluate_split, fit_evaluation

    scored = evaluate_split(Engine(load_bundle(bundle).judge), data, split)
    fitted = fit_evaluation(scored, split)
    record = CalibrationRecord.of(fitted.calibration, split=split, pairs=fitted.thresholds.pairs)
    return scored, record


def _amend(bundle: Path, record: "CalibrationRecord") -> "Manifest":
    """Record the calibration; numbers that were measured under another one go."""
    from prefrm.bundle import amend_bundle
    from prefrm.eval import results_section, with_calibration, with_results

    card = with_calibration((bundle / "README.md").read_text(encoding="utf-8"), record.describe())
    return amend_bundle(
        bundle, calibration=record, metrics={}, card=with_results(card, results_section(None, None))
    )


def _numbers(scored: "Evaluation", record: "CalibrationRecord | None") -> dict[str, Any]:
    evaluation = scored if record is None else scored.calibrated(record.map)
    return {
        "calibration": None if record is None else {"name": record.name, "parameters": record.parameters},
        "log_loss": evaluation.metrics.log_loss,
        "ece": evaluation.calibration.ece,
    }


def _lines(report: dict[str, Any], after: "Manifest") -> list[str]:
    lines = [f"{report['pairs']} pairs of {report['split']}, the same before and after"]
    for when in ("before", "after"):
        numbers = report[when]
        found = numbers["calibration"]
        lines.append(
            f"{when}: log loss {numbers['log_loss']:.4f}, calibration error {numbers['ece']:.4f} "
            f"({'uncalibrated' if found is None else _described(found)})"
        )
    return [*lines, f"amended: {after.describe()}", "measure it again: prefrm eval BUNDLE DATA --amend"]


def _described(found: dict[str, Any]) -> str:
    from prefrm.winmatrix import calibration_map

    return calibration_map(found["name"], found["parameters"]).describe()
