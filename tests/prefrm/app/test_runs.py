"""What is read of a run while it trains, without a page."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from prefrm.app.runs import Run, group_metrics, thinned
from prefrm.errors import DataError
from prefrm.group_log import GroupLog, LoggedGroup
from prefrm.winmatrix import FakeScorer, Group, WinMatrix


def logged(step: int | None, *worth: float, prompt: str = "a cat", name: str = "preference") -> LoggedGroup:
    group = Group(prompt=prompt, candidates=tuple(str(value).encode() for value in worth))
    (matrix,) = FakeScorer(lambda prompt, image: float(image), first_bonus=0.5).score([group])
    return LoggedGroup(
        group=group, matrices={name: matrix}, rewards={name: matrix.win_rate().tolist()}, step=step
    )


def test_metrics_of_train_and_flow_are_read_while_they_grow(tmp_path: Path) -> None:
    run, path = Run(tmp_path, "run"), tmp_path / "metrics.jsonl"
    assert run.metrics() == {} and run.changed() == 0
    path.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25, "valid')
    assert run.metrics() == {"loss": [(1, 0.5)]}
    path.write_text('{"iteration": 1, "eval/judge": 0.6}\n{"iteration": 0, "eval/judge": 0.5, "note": "x"}\n')
    os.utime(path, (2e9, 2e9))
    assert run.metrics() == {"eval/judge": [(0, 0.5), (1, 0.6)]} and run.changed() == 2e9


def test_metrics_of_transformers_are_read_of_the_newest_checkpoint(tmp_path: Path) -> None:
    for step in (8, 16):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        history = [{"step": n, "reward": n / 10, "kl": math.nan} for n in range(8, step + 1, 8)]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
        os.utime(folder / "trainer_state.json", (step, step))
    assert Run(tmp_path, "run").metrics() == {"reward": [(8, 0.8), (16, 1.6)]}


def test_metrics_of_tensorboard_are_read_while_they_grow(tmp_path: Path) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    pytest.importorskip("tensorboard")
    run = Run(tmp_path, "run")
    with tensorboard.SummaryWriter(str(tmp_path / "runs" / "today")) as writer:
        writer.add_scalar("train/reward", 0.5, 1)
        writer.flush()
        assert run.metrics() == {"train/reward": [(1, 0.5)]}
        writer.add_scalar("train/reward", 0.75, 2)
        writer.flush()
        assert run.metrics() == {"train/reward": [(1, 0.5), (2, 0.75)]}


def test_groups_are_found_in_the_folders_of_a_run(tmp_path: Path) -> None:
    run = Run(tmp_path, "run")
    assert run.entries() == []
    GroupLog(tmp_path / "groups").add([logged(1, 0, 1)])
    GroupLog(tmp_path / "others").add([logged(1, 5, 6, prompt="a dog")])
    newest, oldest = run.entries()
    assert (newest.prompt, oldest.prompt) == ("a dog", "a cat")
    assert run.group(newest.id).candidates == (b"5", b"6") and run.group(oldest.id).candidates == (b"0", b"1")
    for gone in (newest.id.replace("others", "nowhere"), "others:..", "x"):
        with pytest.raises(DataError, match="no"):
            run.group(gone)


def test_advantages_come_from_the_completions_that_trl_writes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    groups = [logged(3, 0, 1), logged(3, 0, 1, prompt="a dog"), logged(3, 2, 7, prompt="a cow")]
    GroupLog(tmp_path / "groups").add([*groups, logged(4, 0, 1)])
    rates = [rate for group in groups for rate in group.rewards["preference"]]
    table = {
        "step": [3] * 6,
        "prompt": [[{"role": "user", "content": text}] for text in ("a cat", "a dog", "a cow") for _ in "12"],
        # As TRL gathers them, through float32, and None as NaN.
        "preference": np.array(rates, np.float32).tolist(),
        "advantage": [-0.7, 0.7, -0.6, 0.6, -0.9, 0.9],
    }
    (tmp_path / "completions").mkdir()
    pq.write_table(pa.table(table), tmp_path / "completions" / "completions_00003.parquet")
    found = {(one.step, one.prompt): one.advantages for one in Run(tmp_path, "run").entries()}
    assert found == {
        (3, "a cat"): (-0.7, 0.7),
        (3, "a dog"): (-0.6, 0.6),
        (3, "a cow"): (-0.9, 0.9),
        (4, "a cat"): None,
    }


def test_groups_give_metrics_of_each_step(tmp_path: Path) -> None:
    partly = LoggedGroup(
        group=Group(prompt="a", candidates=(b"0", b"1")),
        matrices={"judge": WinMatrix.missing(["broken", ""])},
        rewards={"judge": [None, None]},
        step=2,
    )
    GroupLog(tmp_path / "groups").add([logged(1, 0, 9), logged(1, 0, 0)])
    GroupLog(tmp_path / "groups").add([partly])
    metrics = group_metrics(Run(tmp_path, "run").entries())
    assert metrics["groups/unjudged pairs"] == [(1, 0.0), (2, 1.0)]
    ((step, spread),) = metrics["groups/win-rate spread"]
    # Win rates of about (0, 1) and of exactly (0.5, 0.5).
    assert step == 1 and spread == pytest.approx(0.25, abs=1e-3)
    assert 0 < metrics["groups/order gap"][0][1] < 0.3


def test_a_long_metric_is_thinned_by_means() -> None:
    points = [(step, float(step)) for step in range(1001)]
    thin = thinned(points, 11)
    assert len(thin) == 11 and thin[-1] == (1000, 1000.0) and thin[0] == (49.5, 49.5)
    assert thinned(points[:11], 11) == points[:11]
