"""`prefrm calibrate`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrm.cli.local import Local
from prefrm.cli.shared import AsJson, Data, print_not_judged, require_judged
from prefrm.errors import ConfigError
from prefrm.options import with_options

if TYPE_CHECKING:
    from prefrm.bundle import CalibrationRecord, Manifest
    from prefrm.eval import Evaluation

__all__ = ["calibrate"]


@with_options
def calibrate(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="the folder of a bundle, which is amended")],
    data: Data,
    split: Annotated[
        str, typer.Option(help="the split to fit to; one that the judge was not trained on")
    ] = "validation",
    as_json: AsJson = False,
    *,
    local: Local,
) -> None:
    """Fit a bundle's calibration to a split of a dataset; its weights stay, its digest changes.

    The exit status is 1 if nothing could be judged.
    """
    from prefrm.bundle import read_manifest
    from prefrm.records import count_groups

    if "://" in bundle:
        raise ConfigError(f"a calibration is written into a bundle's folder; received the URL {bundle}")
    before = read_manifest(bundle)
    count_groups(data, split)
    _check_unseen(before, data, split)
    scored, record = _fit(bundle, data, split, local)
    after = _amend(Path(bundle), record)
    print(f"amended: {after.describe()}", file=sys.stderr)
    numbers = {"before": _numbers(scored, before.calibration), "after": _numbers(scored, record)}
    if as_json:
        report = {"split": split, "pairs": record.pairs, **numbers, "digest": after.digest}
        print(json.dumps(report, indent=2, allow_nan=False))
        return
    print(f"on the {record.pairs} pairs of {split} to which the calibration was fitted:")
    for when, found in zip(numbers, (before.calibration, record), strict=True):
        described = "uncalibrated" if found is None else found.describe()
        log_loss, ece = numbers[when]["log_loss"], numbers[when]["ece"]
        print(f"{when}: log loss {log_loss:.4f}, calibration error {ece:.4f} ({described})")
    print(f"held-out numbers were of the earlier calibration and are gone: prefrm eval {bundle} DATA --amend")


def _check_unseen(manifest: "Manifest", data: Path, split: str) -> None:
    from prefrm.records import fingerprint, read_groups

    if fingerprint(read_groups(data, split)) == manifest.data_fingerprint:
        raise ConfigError(
            f"the judge was trained on the split {split!r}, on which it is more certain than on other data; "
            "name a split that it has not seen"
        )


def _fit(bundle: str, data: Path, split: str, local: Local) -> "tuple[Evaluation, CalibrationRecord]":
    """The judge as it is without calibration, measured on the split, and the calibration for it."""
    from prefrm.bundle import CalibrationRecord, load_bundle
    from prefrm.engine import Engine
    from prefrm.eval import evaluate_split, fit_evaluation

    judge = load_bundle(bundle, local.device, local.dtype).judge
    scored = evaluate_split(Engine(judge), data, split)
    print_not_judged((one.id, one.candidate, one.reason) for one in scored.unreadable)
    metrics = scored.metrics
    require_judged(metrics.comparisons > metrics.unjudged, f"no pair of the split {split!r} could be judged")
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
