"""How many answers a judge needs if the queue of `prefrm app --collect` chooses the pairs, and if chance
does.

A simulated annotator answers pairs of the shapes world, some of them wrongly. A judge is trained on the first
answers, which are drawn by chance; with it the next pairs are chosen, and so on. Beside it the same numbers
of answers are drawn by chance alone. Every judge is trained anew on all answers so far, with the same number
of steps, and its accuracy is over the strict pairs of held-out prompts, whose labels are clean.

    runs/data/                        the world, built once
    runs/ORDER-seedS-COUNT-JUDGE/     one training: the answers as a dataset, its bundle, row.json

What is there already is not done again. Who changes prefrm itself deletes runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from prefrm import media
from prefrm.answers import Question
from prefrm.app.collect.queue import PairQueue, QueueSettings
from prefrm.bench.cases import FLIP, Kind
from prefrm.bench.kept import build_once, keep, kept, make_room
from prefrm.bench.report import spread
from prefrm.bench.training import ADAPTER, LR, one_thread_on_cpu, spec_of, training_asked
from prefrm.display import markdown_table
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.files import write_json
from prefrm.plots.charts import learning_curve
from prefrm.progress import track
from prefrm.records import (
    Comparison,
    DatasetInfo,
    PreferenceGroup,
    fingerprint,
    read_groups,
    write_groups,
    write_info,
)
from prefrm.train import DataConfig, OptimConfig, TrainConfig, run
from prefrm.winmatrix import WinMatrix

__all__ = [
    "FULL",
    "QUICK",
    "CollectingStudy",
    "Point",
    "answers_needed",
    "bench_collecting",
    "report_collecting",
]

Order = Literal["informative", "random"]
ORDERS: tuple[Order, ...] = ("informative", "random")
NAMES = {"informative": "chosen", "random": "by chance"}
JUDGE = Kind(head="scalar")
ANNOTATOR = "oracle"
DPI = 160
HELD_OUT = ("validation", "test")
Pair = tuple[str, int, int]
"""Id of a group and two of its candidates i < j."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectingStudy:
    """What is compared, and how large.

    Attributes:
        pool: groups of 4 whose pairs may be asked about.
        counts: numbers of answers, rising; the first are drawn by chance for both.
        seeds: of chance and of the trainings.
        committee: judges that choose together; they differ by their seed.
        steps: optimizer steps of each training.
        groups: of a training step.
        validation: groups that the judges are calibrated on.
        test: groups that their accuracy is measured on.
    """

    pool: int = 1500
    counts: tuple[int, ...] = (150, 300, 600, 1200)
    seeds: tuple[int, ...] = (0, 1, 2)
    committee: int = 1
    steps: int = 300
    groups: int = 8
    validation: int = 150
    test: int = 600


FULL = CollectingStudy()
QUICK = CollectingStudy(pool=60, counts=(30, 60), seeds=(0,), steps=10, validation=24, test=48)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A judge of the curve.

    Attributes:
        order: of the pairs.
        seed: of chance and of the training.
        answers: number that it was trained on.
        accuracy: over the strict pairs of the test split.
        ties: share of the answers that are ties.
    """

    order: Order
    seed: int
    answers: int
    accuracy: float
    ties: float


def bench_collecting(study: CollectingStudy, runs: Path, docs: Path, *, device: str = "auto") -> list[Point]:
    """Train every judge, then write `collecting.md`, `collecting.json` and the curve into `docs`.

    Args:
        study: what is compared.
        runs: where the trainings are kept; an interrupted study resumes from it.
        docs: where the report goes.
        device: as in `Judge.from_base`.
    """
    data = runs / "data"
    build_once(
        data, "shapes", seed=0, train=study.pool, flip=FLIP, validation=study.validation, test=study.test
    )
    points = []
    total = len(study.seeds) * len(ORDERS) * len(study.counts)
    with one_thread_on_cpu(device), track("points of the curve", total) as advance:
        for seed in study.seeds:
            for order in ORDERS:
                for point in _curve(study, order, seed, runs, device):
                    points.append(point)
                    advance(len(points))
    report_collecting(study, points, docs)
    return points


def _curve(study: CollectingStudy, order: Order, seed: int, runs: Path, device: str) -> Iterator[Point]:
    """The judges of one order and seed, each after those that chose its pairs."""
    groups = list(read_groups(runs / "data", "train"))
    asked: list[Pair] = []
    judged: list[list[WinMatrix]] = []
    for n, count in enumerate(study.counts):
        # Both begin with the same answers, and with the same judges.
        place = runs / f"{order if n else 'first'}-seed{seed}-{count}"
        asked += _choose(groups, asked, judged, count - len(asked), order if n else "random", seed)
        last = n == len(study.counts) - 1
        members = 1 if order == "random" or last else study.committee
        rows, judged = [], []
        for member in range(members):
            folder = place.with_name(f"{place.name}-{member}")
            rows.append(_train(study, folder, groups, asked, seed + 100 * member, runs / "data", device))
            if not last and order == "informative":
                judged.append(_judge(folder, groups, device))
        yield Point(order=order, seed=seed, answers=count, accuracy=rows[0], ties=_ties(groups, asked))


def _choose(
    groups: Sequence[PreferenceGroup],
    asked: Sequence[Pair],
    judged: Sequence[Sequence[WinMatrix]],
    count: int,
    order: Order,
    seed: int,
) -> list[Pair]:
    """The next pairs, as the page would show them to one annotator."""
    queue = PairQueue(QueueSettings(known=0, repeats=0, order=order, seed=seed))
    digests = {group.id: _digests(group) for group in groups}
    for n, (id, i, j) in enumerate(asked):
        queue.shown(_question(n, id, digests[id][i], digests[id][j]))
    for n, group in enumerate(groups):
        queue.add(group.id, digests[group.id], [matrices[n] for matrices in judged])
    found = []
    for n in range(count):
        showing = queue.next(ANNOTATOR, 0.0)
        if showing is None:
            raise ConfigError(
                f"the pool has {len(asked) + n} pairs, fewer than are asked; give it more groups"
            )
        queue.shown(_question(len(asked) + n, showing.group, showing.left, showing.right))
        queue.answered(_question(len(asked) + n, showing.group, showing.left, showing.right), "tie")
        i, j = sorted(digests[showing.group].index(side) for side in (showing.left, showing.right))
        found.append((showing.group, i, j))
    return found


def _question(id: int, group: str, left: str, right: str) -> Question:
    return Question(
        id=id,
        annotator=ANNOTATOR,
        group=group,
        left=left,
        right=right,
        criterion="",
        purpose="new",
        known=None,
        asked_at=0.0,
    )


def _digests(group: PreferenceGroup) -> list[str]:
    return [media.digest(candidate or b"") for candidate in group.candidates]


def _train(
    study: CollectingStudy,
    folder: Path,
    groups: Sequence[PreferenceGroup],
    asked: Sequence[Pair],
    seed: int,
    data: Path,
    device: str,
) -> float:
    """The accuracy of the judge that is trained on the answers, in a folder."""
    config = TrainConfig(
        output=folder / "run",
        judge=spec_of(JUDGE),
        data=DataConfig(path=folder / "data"),
        adapter=ADAPTER,
        optim=OptimConfig(steps=study.steps, batch_size=study.groups, lr=LR),
        device=device,
        seed=seed,
    )
    wanted = {**training_asked(config), "pairs": [list(pair) for pair in asked]}
    if (row := kept(folder, wanted)) is not None:
        return float(row["accuracy"])
    make_room(folder, wanted, spent="run/bundle")
    _write_answers(groups, asked, folder / "data", data)
    accuracy = run(config, resume=True).held_out.metrics.accuracy.value
    keep(folder, {"accuracy": accuracy})
    return accuracy


def _write_answers(
    groups: Sequence[PreferenceGroup], asked: Sequence[Pair], folder: Path, data: Path
) -> None:
    """A dataset of the answers: of each group the candidates that were asked about."""
    said = {group.id: {(c.i, c.j): c for c in group.comparisons} for group in groups}
    wanted: dict[str, list[Comparison]] = {}
    for group, i, j in asked:
        wanted.setdefault(group, []).append(said[group][i, j])
    splits = {"train": [_of(group, wanted[group.id]) for group in groups if group.id in wanted]}
    splits |= {split: list(read_groups(data, split)) for split in HELD_OUT}
    for split, some in splits.items():
        write_groups(some, folder, split)
    fingerprints = {split: fingerprint(some) for split, some in splits.items()}
    write_info(folder, DatasetInfo(recipe="collected", options={}, fingerprints=fingerprints))


def _of(group: PreferenceGroup, comparisons: Sequence[Comparison]) -> PreferenceGroup:
    """The group with these comparisons and their candidates alone."""
    used = sorted({n for c in comparisons for n in (c.i, c.j)})
    place = {n: k for k, n in enumerate(used)}
    return replace(
        group,
        candidates=tuple(group.candidates[n] for n in used),
        comparisons=tuple(replace(c, i=place[c.i], j=place[c.j]) for c in comparisons),
        quality=None,
        completions=None,
    )


def _judge(folder: Path, groups: Sequence[PreferenceGroup], device: str) -> list[WinMatrix]:
    return Engine.from_bundle(folder / "run" / "bundle", device=device).score(
        [group.group() for group in groups]
    )


def _ties(groups: Sequence[PreferenceGroup], asked: Sequence[Pair]) -> float:
    said = {(group.id, c.i, c.j): c for group in groups for c in group.comparisons}
    return float(np.mean([not said[pair].is_strict for pair in asked]))


def answers_needed(points: Sequence[Point]) -> tuple[float, float]:
    """The accuracy of the judges with the most answers drawn by chance, and the share of them that chosen
    ones take.

    Means over seeds, between which counts are interpolated on a logarithmic scale; NaN if no number of chosen
    answers that was tried suffices.
    """
    curves = {order: _mean(points, order) for order in ORDERS}
    most, target = curves["random"][-1]
    chosen = curves["informative"]
    if chosen[0][1] >= target:
        return target, chosen[0][0] / most
    for (less, low), (more, high) in pairwise(chosen):
        if low < target <= high:
            share = (target - low) / (high - low)
            return target, float(less ** (1 - share) * more**share) / most
    return target, float("nan")


def _mean(points: Sequence[Point], order: Order) -> list[tuple[int, float]]:
    counts = sorted({point.answers for point in points})
    of = [(count, [p.accuracy for p in points if (p.order, p.answers) == (order, count)]) for count in counts]
    return [(count, float(np.mean(values))) for count, values in of if values]


def report_collecting(study: CollectingStudy, points: Sequence[Point], docs: Path) -> None:
    """Write the report of these points."""
    docs.mkdir(parents=True, exist_ok=True)
    target, share = answers_needed(points)
    facts = {"study": asdict(study), "points": [asdict(point) for point in points]}
    write_json(
        docs / "collecting.json", facts | {"share": None if np.isnan(share) else share, "accuracy": target}
    )
    curves = {NAMES[order]: [(float(x), y) for x, y in _mean(points, order)] for order in ORDERS}
    learning_curve(curves, xlabel="answers", ylabel="accuracy").savefig(docs / "collecting.png", dpi=DPI)
    body = [
        [f"{count}", *(_cell(points, order, count) for order in ORDERS)]
        for count in sorted({point.answers for point in points})
    ]
    lines = [
        "# Chosen pairs against pairs drawn by chance",
        "",
        f"Judges of {study.steps} steps, on a pool of {study.pool:,} groups of 4 of the shapes world;",
        f"{FLIP:.0%} of the answers are wrong. {len(study.seeds)} seeds, committees of {study.committee}.",
        f"Accuracy is over strict pairs of {study.test} groups of held-out prompts, with the lowest",
        "and the highest of the seeds.",
        "",
        markdown_table(["answers", *(NAMES[order] for order in ORDERS)], body),
        "",
        f"The accuracy of {max(p.answers for p in points):,} answers drawn by chance, {target:.3f}, takes "
        + ("more than were tried." if np.isnan(share) else f"{share:.2f} of as many chosen ones."),
        "",
        "![Held-out accuracy by number of answers](collecting.png)",
        "",
    ]
    (docs / "collecting.md").write_text("\n".join(lines), encoding="utf-8")


def _cell(points: Sequence[Point], order: Order, count: int) -> str:
    return spread([p.accuracy for p in points if (p.order, p.answers) == (order, count)])
