"""`prefrm calibrate`."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import AsJson, Data, Target, open_scorer, print_unreadable, require_judged
from prefrm.errors import ConfigError
from prefrm.files import require_writable_file, require_writable_folder
from prefrm.hub import is_hub
from prefrm.options import with_options
from prefrm.scorers import (
    ScorerFile,
    Source,
    is_scorer_file,
    is_url,
    read_scorer_file,
    sources,
    write_calibrated,
    write_scorer_file,
)
from prefrm.winmatrix import CalibrationRecord

if TYPE_CHECKING:
    from prefrm.eval import Evaluation
    from prefrm.winmatrix import Scorer

__all__ = ["calibrate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """Where the calibration of a scorer is recorded.

    Attributes:
        own: whether it replaces a calibration of the scorer itself, without which the scorer is measured; if
            not, it comes after whatever calibration the scorer has.
        before: what it replaces.
        write: records a calibration, and returns what `--json` tells of the place.
        afterwards: a line for a person.
    """

    own: bool
    before: CalibrationRecord | None
    write: Callable[[CalibrationRecord], dict[str, str]]
    afterwards: str


@with_options
def calibrate(
    target: Target,
    data: Data,
    split: Annotated[
        str, typer.Option(help="the split to fit to; one that the judge was not trained on")
    ] = "validation",
    out: Annotated[
        Path | None,
        typer.Option(
            help="write the calibrated bundle there, or a YAML file that names the scorer and its "
            "calibration, which a URL needs; by default, the bundle or YAML file is changed in place"
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    local: Local,
    remote: Remote,
) -> None:
    """Fit a scorer's calibration to a split of a dataset; a bundle's weights stay, its digest changes.

    The exit status is 1 if nothing could be judged.
    """
    from prefrm.data import dataset_folder
    from prefrm.records import count_groups

    local.require_bundle(target)
    remote.require_url(target)
    record = _record(target, out)
    data = dataset_folder(data, [split])
    count_groups(data, split)
    _check_unseen(target, data, split)
    with open_scorer(target, None, remote, local, calibrated=not record.own) as scorer:
        scored, fitted = _fit(scorer, data, split)
    place = record.write(fitted)
    numbers = {"before": _numbers(scored, record.before), "after": _numbers(scored, fitted)}
    if as_json:
        report = {"split": split, "pairs": fitted.pairs, **numbers, **place}
        print(json.dumps(report, indent=2, allow_nan=False))
        return
    print(f"on the {fitted.pairs} pairs of {split} to which the calibration was fitted:")
    for when, found in zip(numbers, (record.before, fitted), strict=True):
        described = "uncalibrated" if record.own else "as it is"
        if found is not None:
            described = found.describe()
        log_loss, ece = numbers[when]["log_loss"], numbers[when]["ece"]
        print(f"{when}: log loss {log_loss:.4f}, calibration error {ece:.4f} ({described})")
    print(record.afterwards)


def _record(target: str, out: Path | None) -> _Record:
    """Where the calibration of `target` goes. Raises `ConfigError` if it cannot be written there."""
    if is_url(target) or is_scorer_file(target) or (out is not None and is_scorer_file(out)):
        return _of_file(target, out)
    return _of_bundle(target, out)


def _of_file(target: str, out: Path | None) -> _Record:
    if out is None and is_url(target):
        raise ConfigError(f"a URL has no place for a calibration; give --out FILE.yaml for that of {target}")
    path = Path(target) if out is None else out
    if not is_scorer_file(path):
        raise ConfigError(f"--out {path}: the calibration of {target} is written into a .yaml file")
    require_writable_file(path, "--out")
    own = is_scorer_file(target)
    before = read_scorer_file(target).calibration if own else None

    def write(fitted: CalibrationRecord) -> dict[str, str]:
        if own:
            write_calibrated(target, fitted, path)
        else:
            write_scorer_file(ScorerFile(scorers=(Source(scorer=target),), calibration=fitted), path)
        return {"file": str(path)}

    return _Record(own=own, before=before, write=write, afterwards=f"the calibrated scorer is {path}")


def _of_bundle(target: str, out: Path | None) -> _Record:
    from prefrm.manifest import bundle_folder, read_manifest

    if out is not None:
        require_writable_folder(out, "--out")
    elif is_hub(target):
        raise ConfigError(
            f"{target} is on the Hub and cannot be changed in place; give --out FOLDER for the calibrated "
            "bundle, or --out FILE.yaml"
        )
    folder = bundle_folder(target)
    return _Record(
        own=True,
        before=read_manifest(folder).calibration,
        write=lambda fitted: _amend(folder, fitted, out),
        afterwards="held-out numbers of the earlier calibration were removed; measure again: "
        f"prefrm eval {out or target} DATA --amend",
    )


def _check_unseen(target: str, data: Path, split: str) -> None:
    """Raise `ConfigError` if a bundle that `target` leads to was trained on the split."""
    from prefrm.manifest import bundle_folder, read_manifest
    from prefrm.records import fingerprint, read_groups

    bundles = [source for source in sources(target) if not is_url(source)]
    learned = {read_manifest(bundle_folder(bundle)).data_fingerprint for bundle in bundles}
    if learned and fingerprint(read_groups(data, split)) in learned:
        raise ConfigError(
            f"the judge was trained on the split {split!r}, on which it is overconfident; "
            "name a split that it was not trained on"
        )


def _fit(scorer: "Scorer", data: Path, split: str) -> "tuple[Evaluation, CalibrationRecord]":
    """The scorer measured on the split, and the calibration for it."""
    from prefrm.eval import evaluate_split, fit_evaluation

    scored = evaluate_split(scorer, data, split)
    print_unreadable(scored.unreadable)
    metrics = scored.metrics
    require_judged(metrics.comparisons > metrics.unjudged, f"no pair of the split {split!r} could be judged")
    fitted = fit_evaluation(scored, split)
    return scored, CalibrationRecord.of(fitted.calibration, split=split, pairs=fitted.thresholds.pairs)


def _amend(bundle: Path, record: CalibrationRecord, out: Path | None) -> dict[str, str]:
    """Record the calibration in a bundle; numbers that were measured under another one go."""
    from prefrm.bundle import amend_bundle
    from prefrm.eval import results_section, with_calibration, with_results

    card = with_calibration((bundle / "README.md").read_text(encoding="utf-8"), record.describe())
    after = amend_bundle(
        bundle,
        calibration=record,
        metrics={},
        card=with_results(card, results_section(None, None)),
        out=out,
    )
    print(f"{'amended' if out is None else out}: {after.describe()}", file=sys.stderr)
    return {"digest": after.digest}


def _numbers(scored: "Evaluation", record: CalibrationRecord | None) -> dict[str, Any]:
    evaluation = scored if record is None else scored.calibrated(record.map)
    return {
        "calibration": None if record is None else {"name": record.name, "parameters": record.parameters},
        "log_loss": evaluation.metrics.log_loss,
        "ece": evaluation.calibration.ece,
    }
