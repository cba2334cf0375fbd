"""`prefrm calibrate`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrm.cli.local import Local
from prefrm.cli.shared import AsJson, Data, print_not_judged, require_judged
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.hub import is_hub
from prefrm.options import with_options
from prefrm.scorers import is_url

if TYPE_CHECKING:
    from prefrm.bundle import CalibrationRecord, Manifest
    from prefrm.eval import Evaluation

__all__ = ["calibrate"]


@with_options
def calibrate(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE", help="the folder of a bundle, or hf://org/name with --out")
    ],
    data: Data,
    split: Annotated[
        str, typer.Option(help="the split to fit to; one that the judge was not trained on")
    ] = "validation",
    out: Annotated[
        Path | None,
        typer.Option(help="write the calibrated bundle there; by default, the bundle is changed in place"),
    ] = None,
    as_json: AsJson = False,
    *,
    local: Local,
) -> None:
    """Fit a bundle's calibration to a split of a dataset; its weights stay, its digest changes.

    The exit status is 1 if nothing could be judged.
    """
    from prefrm.bundle import bundle_folder, read_manifest
    from prefrm.data import dataset_folder
    from prefrm.records import count_groups

    if is_url(bundle):
        raise ConfigError(f"a calibration is written into a bundle's folder; received the URL {bundle}")
    if out is not None:
        require_writable_folder(out, "--out")
    elif is_hub(bundle):
        raise ConfigError(
            f"{bundle} is on the Hub and cannot be changed in place; give --out FOLDER for the calibrated "
            "bundle"
        )
    folder = bundle_folder(bundle)
    before = read_manifest(folder)
    data = dataset_folder(data, [split])
    count_groups(data, split)
    _check_unseen(before, data, split)
    scored, record = _fit(folder, data, split, local)
    after = _amend(folder, record, out)
    print(f"{'amended' if out is None else out}: {after.describe()}", file=sys.stderr)
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
    print(
        "held-out numbers of the earlier calibration were removed; measure again: "
        f"prefrm eval {out or bundle} DATA --amend"
    )


def _check_unseen(manifest: "Manifest", data: Path, split: str) -> None:
    from prefrm.records import fingerprint, read_groups

    if fingerprint(read_groups(data, split)) == manifest.data_fingerprint:
        raise ConfigError(
            f"the judge was trained on the split {split!r}, on which it is overconfident; "
            "name a split that it was not trained on"
        )


def _fit(bundle: Path, data: Path, split: str, local: Local) -> "tuple[Evaluation, CalibrationRecord]":
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


def _amend(bundle: Path, record: "CalibrationRecord", out: Path | None) -> "Manifest":
    """Record the calibration; numbers that were measured under another one go."""
    from prefrm.bundle import amend_bundle
    from prefrm.eval import results_section, with_calibration, with_results

    card = with_calibration((bundle / "README.md").read_text(encoding="utf-8"), record.describe())
    return amend_bundle(
        bundle,
        calibration=record,
        metrics={},
        card=with_results(card, results_section(None, None)),
        out=out,
    )


def _numbers(scored: "Evaluation", record: "CalibrationRecord | None") -> dict[str, Any]:
    evaluation = scored if record is None else scored.calibrated(record.map)
    return {
        "calibration": None if record is None else {"name": record.name, "parameters": record.parameters},
        "log_loss": evaluation.metrics.log_loss,
        "ece": evaluation.calibration.ece,
    }
