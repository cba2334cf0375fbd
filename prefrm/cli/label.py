"""`prefrm label`."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prefrm.cli.criteria import ByCriteria
from prefrm.cli.images import SPLIT, build_groups, is_dataset, rank_files
from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import (
    Pairs,
    Split,
    Target,
    open_scorer,
    print_not_judged,
    require_judge,
    require_judged,
)
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.options import with_options

if TYPE_CHECKING:
    from prefrm.label import LabelledGroup, PairSummary, Summary
    from prefrm.records import PreferenceGroup

__all__ = ["label"]


@with_options
def label(
    target: Target,
    data: Annotated[
        Path,
        typer.Argument(
            help="a folder of images, or a dataset, as `prefrm data build` writes it: its folder or hf://org/name"
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="where the labels are written; an interrupted run continues there")
    ],
    split: Split = SPLIT,
    select: Annotated[
        Literal["best_worst", "all"], typer.Option(help="one pair from each group, or every pair")
    ] = "best_worst",
    min_margin: Annotated[
        float, typer.Option(help="a pair's 2 P(chosen wins) - 1 is more than this, in [0, 1)")
    ] = 0.0,
    pairs: Pairs = None,
    conversational: Annotated[
        bool, typer.Option("--conversational", help="write prompts and texts as chat messages")
    ] = False,
    *,
    by: ByCriteria,
    local: Local,
    remote: Remote,
) -> None:
    """Label offline: win matrices, win rates, rankings, and tables of pairs for DPO trainers.

    With several criteria the labels are of the combined matrix, with a column for each criterion beside it.

    In a folder of images, those with the same prompt are a group; docs/data.md has the layouts from which
    prompts are read. The exit status is 1 if nothing could be judged.
    """
    from prefrm import label as labelling
    from prefrm.data import dataset_folder
    from prefrm.progress import track
    from prefrm.records import count_groups, read_groups

    local.require_bundle(target)
    remote.require_url(target)
    # The library says it, too, but only once everything is judged.
    if not 0 <= min_margin < 1:
        raise ConfigError(f"--min-margin must be in [0, 1); received {min_margin}")
    criteria = by.criteria()
    require_writable_folder(out, "--out")
    data = dataset_folder(data, [split])
    images = None if is_dataset(data) else data
    if images is not None:
        if split != SPLIT:
            raise ConfigError(f"--split {split}: {data} is a folder of images, which has no splits")
        require_judge(target, remote)
        data = build_groups(images, out)
    total = count_groups(data, split)
    with open_scorer(target, pairs, remote, local) as scorer, track("labelling", total) as advance:
        judge = scorer.identity()
        summary = labelling.label(
            scorer, read_groups(data, split), out, judge=judge, criteria=criteria, progress=advance
        )
    if summary.unreadable:
        print_not_judged(_not_judged(read_groups(data, split), labelling.read_matrices(out)))
    written = labelling.write_pairs(
        read_groups(data, split),
        out,
        select=select,
        min_margin=min_margin,
        conversational=conversational,
    )
    _print_labels(summary, written, out)
    if images is not None:
        print(f"the files of each prompt, best first: {rank_files(images, data, out)}")
    require_judged(summary.unjudged_pairs < summary.pairs, f"the reasons are in {out}")


def _not_judged(
    groups: "Iterable[PreferenceGroup]", labelled: "Iterable[LabelledGroup]"
) -> Iterator[tuple[str, int, str]]:
    for group, entry in zip(groups, labelled, strict=True):
        for n, (image, reason) in enumerate(zip(group.candidates, entry.matrix.errors, strict=True)):
            if reason and image is not None:
                yield group.id, n, reason


def _print_labels(summary: "Summary", pairs: "PairSummary", out: Path) -> None:
    from prefrm.label import DIFFUSION_DPO, TRL_DPO

    judged = summary.pairs - summary.unjudged_pairs - summary.inferred_pairs
    inferred = f", {summary.inferred_pairs} inferred" if summary.inferred_pairs else ""
    print(f"{summary.groups} groups, {judged} pairs judged{inferred}, {summary.unjudged_pairs} not judged")
    if summary.groups > summary.without_images:
        print(f"{pairs.pairs} pairs of images for {DIFFUSION_DPO.consumer}: {out / DIFFUSION_DPO.name}")
    if summary.with_texts:
        print(f"{pairs.text_pairs} pairs of texts for {TRL_DPO.consumer}: {out / TRL_DPO.name}")
    elif summary.groups == summary.without_images:
        print(f"no table of pairs for videos; the matrices are in {out / 'win_matrices'}")
    else:
        print(f"no table for {TRL_DPO.consumer}: the dataset has no texts")
    reasons = {"not judged": pairs.unjudged, "not beyond the margin": pairs.below_margin}
    if any(reasons.values()):
        print("left out: " + ", ".join(f"{count} {why}" for why, count in reasons.items() if count))
