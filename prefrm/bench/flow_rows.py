"""All methods of `prefrm flow --list` on the shipped flow model, at equal rollouts: `docs/flow/rows.md`.

    runs/METHOD/   what `prefrm flow` writes, and the files of `prefrm.bench.kept`

Rows that are done are kept, so an interrupted benchmark resumes.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prefrm.bench.kept import keep, kept, make_room, seconds_spent, spending
from prefrm.bench.training import one_thread_on_cpu
from prefrm.config import to_mapping
from prefrm.display import markdown_table
from prefrm.files import write_whole
from prefrm.flow.config import (
    EvaluationConfig,
    FlowConfig,
    OptimConfig,
    PolicyConfig,
    PromptsConfig,
    RolloutConfig,
)
from prefrm.flow.methods import METHODS, method
from prefrm.flow.run import OpenGradient, OpenScorer, run
from prefrm.progress import track

__all__ = ["MethodRow", "Sizes", "bench_rows"]

PAGE = """\
# Methods at equal rollouts

`prefrm bench rows`: rows of `prefrm flow --list` on `shapes-flow`, each with its own settings and {images}
images or the nearest number that its trees allow: {iteration} an iteration, one update each,
`optim.lr={lr:g}`, seed {seed}, the judge in the same process, one thread. Oracle and judge are of {pictures}
pictures for {held_out} held-out prompts with the same seeds; the judge's number is the mean probability that
it prefers a picture to one of the policy before. CPU seconds are the command's, with start and evaluation. So
few updates tell which methods are quick, not where they end; one seed and one learning rate for all do not
rank neighbours. With one judge `balanced_dpo` is `flow_dpo`. The settings of `configs/flow/shapes_nft.yaml`
are not those of the row `nft`.

{table}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of a row's training.

    Attributes:
        images: of the whole training, and `iteration` of an iteration, as near as the method's trees allow.
        group: K, images of a prompt, likewise.
        steps: T.
        held_out, evaluated: prompts of an evaluation, and images of each.
    """

    images: int = 1024
    iteration: int = 64
    group: int = 8
    steps: int = 10
    lr: float = 1e-3
    seed: int = 5
    held_out: int = 48
    evaluated: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRow:
    """A method's training: scores of held-out prompts, and CPU seconds."""

    method: str
    images: int
    updates: int
    oracle_before: float
    oracle_after: float
    judge_after: float
    seconds: float


def bench_rows(
    judge: str,
    runs: Path,
    page: Path,
    open_scorer: OpenScorer,
    open_gradient: OpenGradient,
    *,
    methods: Sequence[str] = tuple(METHODS),
    sizes: Sizes = Sizes(),
) -> list[MethodRow]:
    """Train with each method and write the table.

    Args:
        judge: a bundle, or a URL that has gradients.
        runs: where the trainings are kept.
        page: file of the table.
        open_scorer, open_gradient: as in `prefrm.flow.run.run`.
        methods: names of rows.
        sizes: of each training.
    """
    rows: list[MethodRow] = []
    with one_thread_on_cpu("cpu"), track("methods", len(methods)) as advance:
        for n, name in enumerate(methods, 1):
            rows.append(_row(_config(name, judge, runs, sizes), open_scorer, open_gradient))
            advance(n)
    header = ["method", "images", "updates", "oracle before", "oracle after", "judge after", "CPU s"]
    body = [_line(row) for row in rows]
    facts = asdict(sizes) | {"pictures": sizes.held_out * sizes.evaluated}
    write_whole(page, PAGE.format(**facts, table=markdown_table(header, body)))
    return rows


def _line(row: MethodRow) -> list[str]:
    scores = [f"{score:.3f}" for score in (row.oracle_before, row.oracle_after, row.judge_after)]
    return [row.method, str(row.images), str(row.updates), *scores, f"{row.seconds:.0f}"]


def _row(config: FlowConfig, open_scorer: OpenScorer, open_gradient: OpenGradient) -> MethodRow:
    settings = to_mapping(config)
    del settings["output"]
    asked: dict[str, Any] = json.loads(json.dumps(settings))
    if (found := kept(config.output, asked)) is not None:
        return MethodRow(**found)
    make_room(config.output, asked, spent="report.json")
    with spending(config.output):
        facts = run(config, open_scorer, open_gradient=open_gradient, resume=True)
    row = MethodRow(
        method=config.method,
        images=facts["images"],
        updates=facts["iterations"],
        oracle_before=facts["oracle_before"],
        oracle_after=facts["oracle_after"],
        judge_after=facts["reward_after"]["judge"],
        seconds=seconds_spent(config.output),
    )
    keep(config.output, asdict(row))
    return row


def _config(name: str, judge: str, runs: Path, sizes: Sizes) -> FlowConfig:
    rollout = method(name).rollout
    leaves = math.prod(rollout.tree(sizes.steps))
    # Of one prompt: whole trees, and with the rule "each" for each step that can be stochastic.
    each = sizes.steps - 1 if rollout.stochastic.rule == "each" else 1
    images = math.ceil(sizes.group / leaves) * leaves * each
    prompts = max(1, sizes.iteration // images)
    iterations = max(1, round(sizes.images / (prompts * images)))
    return FlowConfig(
        output=runs / name,
        device="cpu",
        seed=sizes.seed,
        method=name,
        judge=judge,
        policy=PolicyConfig(model="shapes-flow", steps=sizes.steps),
        prompts=PromptsConfig(world="shapes"),
        rollout=RolloutConfig(prompts=prompts, group=sizes.group, batch=sizes.iteration),
        optim=OptimConfig(iterations=iterations, lr=sizes.lr, batch=sizes.iteration),
        evaluation=EvaluationConfig(every=iterations, prompts=sizes.held_out, images=sizes.evaluated),
    )
