"""The study of reward hacking: do policies exploit win rates less than pointwise utilities?

    runs/data/      preference groups with noisy labels
    runs/judges/    the judges, trained once
    runs/CELL/      one training of the policy: what `prefrm flow` writes, asked.json, seconds.txt, row.json

Finished trainings are kept, so an interrupted study resumes; what is of other
settings or of another version is. Who changes prefrm itself deletes runs.
"""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from data_recipes.pipeline.workers import in_order
from prefrm.bench.hacking_cases import SECOND, Cell, Study
from prefrm.bench.hacking_judges import CALIBRATED, judge_asked, likeness, open_judges, train_judges
from prefrm.bench.hacking_report import write_hacking_report
from prefrm.bench.hacking_rows import Point, Row
from prefrm.bench.judges import BenchError
from prefrm.bench.kept import keep, kept, make_room, seconds_spent, spending
from prefrm.bench.training import one_thread_on_cpu
from prefrm.config import to_mapping
from prefrm.flow.config import (
    ORACLE,
    EvaluationConfig,
    FlowConfig,
    OptimConfig,
    PolicyConfig,
    PromptsConfig,
    RewardConfig,
    RolloutConfig,
)
from prefrm.flow.report import DIVERSITY, PREFIX
from prefrm.flow.run import run
from prefrm.progress import track

__all__ = ["bench_hacking", "report_hacking"]

# Names in a run's metrics: of the training reward, and of its judges as evaluations measure them. Only
# calibrated probabilities of different judges are of one scale.
REWARD, PROXY = "reward", "judge"


def bench_hacking(study: Study, runs: Path, docs: Path, *, workers: int = 1) -> list[Row]:
    """Train the judges and every cell, then write `hacking.md`, `hacking.json` and the picture into `docs`.

    Args:
        study: what is compared, and how large.
        runs: where the trainings are kept; an interrupted study resumes from it.
        docs: where the report goes.
        workers: cells side by side, each in a process with one thread.
    """
    with one_thread_on_cpu("cpu"):
        train_judges(study, runs)
        waiting = [cell for cell in study.cells if _kept(cell, study, runs) is None]
        done = len(study.cells) - len(waiting)
        with track("training policies", len(study.cells), done) as advance:
            work = partial(_cell, study=study, runs=runs)
            for n, (cell, row) in enumerate(in_order(work, waiting, workers), done + 1):
                advance(n)
                print(f"{cell.name}: {_ended(row)}, {row.seconds:.0f} s", flush=True)
    return report_hacking(study, runs, docs)


def report_hacking(study: Study, runs: Path, docs: Path) -> list[Row]:
    """Write the report of the cells that are done; trains no policy.

    Raises:
        BenchError: none is done.
    """
    rows = [row for cell in study.cells if (row := _kept(cell, study, runs)) is not None]
    if not rows:
        raise BenchError(f"no training of the study is done in {runs}; leave out --report to train")
    with one_thread_on_cpu("cpu"):
        judges, alike = train_judges(study, runs), likeness(study, runs)
    write_hacking_report(
        rows,
        judges,
        study,
        docs,
        likeness=alike,
        sheets={cell.name: runs / cell.name / "samples" for cell in study.cells},
    )
    return rows


def _cell(cell: Cell, *, study: Study, runs: Path) -> Row:
    """Train one cell, or go on from its newest checkpoint, and keep its row."""
    config, asked = _config(cell, study, runs), _asked(cell, study, runs)
    make_room(config.output, asked, spent="report.json")
    with one_thread_on_cpu("cpu"), spending(config.output):
        run(config, open_judges(runs), resume=True)
    row = Row(
        reward=cell.reward.name,
        method=cell.method,
        seed=cell.seed,
        points=_points(config.output / "metrics.jsonl"),
        seconds=seconds_spent(config.output),
    )
    keep(config.output, asdict(row))
    return row


def _ended(row: Row) -> str:
    last = row.points[-1]
    return f"judge {last.judge:.3f}, second judge {last.second:.3f}, oracle {last.oracle:.3f}"


def _kept(cell: Cell, study: Study, runs: Path) -> Row | None:
    found = kept(runs / cell.name, _asked(cell, study, runs))
    return None if found is None else Row.from_json(found)


def _asked(cell: Cell, study: Study, runs: Path) -> dict[str, Any]:
    """What two trainings have in common if their rows may stand for each other, as JSON."""
    settings = to_mapping(_config(cell, study, runs))
    del settings["output"]
    # Where the judges lie does not matter, what they learnt from does.
    judges = {name: judge_asked(name, study, runs) for name in (*cell.reward.judges, SECOND)}
    asked = settings | {"reward": asdict(cell.reward), "judges": judges}
    same: dict[str, Any] = json.loads(json.dumps(asked))
    return same


def _config(cell: Cell, study: Study, runs: Path) -> FlowConfig:
    return FlowConfig(
        output=runs / cell.name,
        device="cpu",
        seed=cell.seed,
        method=cell.method,
        settings=study.settings_of(cell.method),
        rewards={REWARD: RewardConfig(scorer=cell.reward.name, reward=cell.reward.reward)},
        held_out={
            PROXY: RewardConfig(scorer=cell.reward.name + CALIBRATED),
            SECOND: RewardConfig(scorer=SECOND + CALIBRATED),
        },
        policy=PolicyConfig(model="shapes-flow", steps=study.steps),
        prompts=PromptsConfig(world="shapes"),
        rollout=RolloutConfig(prompts=study.prompts, group=study.group, batch=study.prompts * study.group),
        optim=OptimConfig(iterations=study.iterations, lr=study.lr[cell.method]),
        evaluation=EvaluationConfig(every=study.every, prompts=study.held_out, images=study.images),
    )


def _points(metrics: Path) -> tuple[Point, ...]:
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    names = {"judge": PROXY, "second": SECOND, "oracle": ORACLE, "diversity": DIVERSITY}
    return tuple(
        Point(
            iteration=line["iteration"],
            **{field: line[PREFIX + name] for field, name in names.items()},
        )
        for line in lines
        if PREFIX + ORACLE in line
    )
