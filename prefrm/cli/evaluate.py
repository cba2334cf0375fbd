"""`prefrm eval`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefrm.cli.criteria import ByCriteria
from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import (
    AsJson,
    Data,
    Split,
    Target,
    open_scorer,
    print_unreadable,
    require_judge,
    require_judged,
)
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.hub import is_hub
from prefrm.options import with_options
from prefrm.scorers import is_scorer_file, is_url

if TYPE_CHECKING:
    from prefrm.eval import Evaluation, Splits, Study
    from prefrm.rewards import Criteria

__all__ = ["evaluate"]


@with_options
def evaluate(
    target: Target,
    data: Data,
    split: Split = "test",
    validation: Annotated[
        str | None,
        typer.Option(
            help="the split on which calibration and tie thresholds are fitted; `none` fits nothing",
            show_default="validation, if the dataset has it",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="SCORER", help="another scorer, compared on the same groups")
    ] = None,
    definition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="a published accuracy, shown beside published judges: hpdv3, hpdv2, imagereward, "
            "imagereward_groups, pickapic, genai_bench or mmrb2; may be given several times",
            show_default="those published on this dataset",
        ),
    ] = None,
    amend: Annotated[
        bool,
        typer.Option(
            "--amend", help="write card, numbers and plots into the bundle; this changes its digest"
        ),
    ] = False,
    out: Annotated[Path, typer.Option(help="folder for report.md, report.json and the plots")] = Path(
        "runs/eval"
    ),
    as_json: AsJson = False,
    *,
    by: ByCriteria,
    local: Local,
    remote: Remote,
) -> None:
    """Measure a scorer on a preference dataset: tables, plots, JSON.

    Groups of a dataset have their own criteria, and the report is broken down by them. With --criterion a
    judge is asked by others in their place; the combined matrix is measured, with an accuracy for each.

    The exit status is 1 if nothing could be judged.
    """
    from prefrm import eval as evaluation
    from prefrm.data import dataset_folder

    criteria = by.criteria()
    if amend and criteria is not None:
        raise ConfigError("--amend writes the numbers of each group's own criterion; leave out --criterion")
    local.require_bundle(target, against)
    remote.require_url(target, against)
    if amend and (is_url(target) or is_hub(target) or is_scorer_file(target)):
        raise ConfigError(f"--amend writes into a bundle's folder; received {target}")
    data = dataset_folder(data, [split, validation or "validation"])
    splits = evaluation.find_splits(data, split, validation)
    definitions = _definitions(definition or (), data, splits)
    if against is not None:
        for name in (target, against):
            inputs = require_judge(name, remote)
            evaluation.require_readable(name, inputs, data, split, criteria=criteria)
    require_writable_folder(out, "--out")
    result = _study(target, data, splits, criteria, local, remote)
    opponent = None
    if against is not None:
        other = _study(against, data, splits, criteria, local, remote)
        opponent = evaluation.Opponent.of(against, other, result)
    plots = evaluation.write_report(
        result.evaluation,
        out,
        recalibrated=result.recalibrated,
        against=opponent,
        why_no_thresholds=splits.why,
        definitions=definitions,
    )
    print_unreadable(result.evaluation.unreadable)
    if amend:
        # The comparison with another judge does not belong into this one's bundle.
        own = {name: (out / name).read_bytes() for name in plots if name != evaluation.AGAINST}
        _amend(Path(target), split, result.evaluation, own)
    if as_json:
        print((out / "report.json").read_text(encoding="utf-8"), end="")
    else:
        print("\n".join(evaluation.summary(result, opponent, definitions)))
        print(f"report: {out / 'report.md'}")
    metrics = result.evaluation.metrics
    require_judged(metrics.unjudged < metrics.comparisons, "the report names the reasons that are known")


def _study(
    target: str, data: Path, splits: "Splits", criteria: "Criteria | None", local: Local, remote: Remote
) -> "Study":
    from prefrm.eval import evaluate_splits

    with open_scorer(target, None, remote, local) as scorer:
        return evaluate_splits(scorer, data, splits, criteria=criteria)


def _definitions(names: Sequence[str], data: Path, splits: "Splits") -> tuple[str, ...]:
    """The published definitions to show; why those of the dataset are not shown goes to standard error."""
    from prefrm.eval import choose_definitions, why_unpublished
    from prefrm.records import read_info

    # A dataset that was not built by a recipe has no such file; it has no published numbers.
    has_published = splits.test == "test" and (data / "dataset.json").is_file()
    info = read_info(data) if has_published else None
    if info is not None and not names and (why := why_unpublished(info)):
        print(
            f"no published accuracies are shown: the test split is not the published one: {why}; "
            "--definition NAME shows them nevertheless",
            file=sys.stderr,
        )
    return choose_definitions(names, info, fitted=splits.validation)


def _amend(bundle: Path, split: str, evaluation: "Evaluation", plots: dict[str, bytes]) -> None:
    from prefrm.bundle import amend_bundle, read_manifest
    from prefrm.eval import results_section, with_results

    card = (bundle / "README.md").read_text(encoding="utf-8")
    amended = amend_bundle(
        bundle,
        calibration=read_manifest(bundle).calibration,
        metrics=evaluation.to_dict(),
        card=with_results(card, results_section(split, evaluation, list(plots))),
        plots=plots,
    )
    print(f"amended: {amended.describe()}", file=sys.stderr)
