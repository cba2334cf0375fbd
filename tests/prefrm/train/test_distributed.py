"""Two processes learn what one does, at the same number of groups a step."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from prefrm.bundle import read_manifest
from prefrm.config import to_mapping
from prefrm.judge import JudgeSpec
from prefrm.records import PreferenceGroup, read_groups, write_groups
from prefrm.train import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    EvaluationConfig,
    OptimConfig,
    TrainConfig,
    run,
)
from tests.forked import command, ranks


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    """Comparisons of unequal weight, some unreadable; an epoch is two steps and a half."""
    data = brightness(train=10, validation=2)
    groups = [weighed(n, group) for n, group in enumerate(read_groups(data, "train"))]
    broken = groups[5]
    groups[5] = replace(broken, candidates=(broken.candidates[0], b"no image", broken.candidates[2]))
    write_groups(groups, data, "train")
    return TrainConfig(
        output=tmp_path / "one",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=data, test=None),
        adapter=AdapterConfig(rank=4, alpha=8),
        optim=OptimConfig(steps=7, batch_size=4, pairs_per_group=2, lr=1e-3),
        checkpoint=CheckpointConfig(save_every=4),
        evaluation=EvaluationConfig(every=3, patience=9),
        device="cpu",
    )


def weighed(n: int, group: PreferenceGroup) -> PreferenceGroup:
    comparisons = (replace(c, weight=0.1 + (7 * n + 3 * k) % 11) for k, c in enumerate(group.comparisons))
    return replace(group, comparisons=tuple(comparisons))


def launch(config: TrainConfig, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = config.output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(to_mapping(config)))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "prefrm", "train"]
    return subprocess.run(
        [sys.executable, *command, str(path), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def curve(config: TrainConfig, name: str = "loss") -> list[float | None]:
    return [json.loads(line).get(name) for line in (config.output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_does(config: TrainConfig) -> None:
    two = replace(
        config,
        output=config.output.with_name("two"),
        optim=replace(config.optim, batch_size=1, accumulation=2),
    )
    done = launch(two)
    assert done.returncode == 0, done.stderr
    result = run(config)
    assert curve(two) == pytest.approx(curve(config), abs=1e-5)
    looked = curve(two, "validation_log_loss")
    assert [value is not None for value in looked] == [False, False, True, False, False, True, True]
    assert looked[2] == pytest.approx(curve(config, "validation_log_loss")[2], abs=1e-4)
    weights, expected = (
        load_file(one.output / "bundle" / "model" / "model.safetensors") for one in (two, config)
    )
    for name, tensor in expected.items():
        assert tensor.allclose(weights[name], atol=1e-4), name
    # Both processes left something out; it is said once, and the bundle is written once.
    (record,) = result.left_out
    assert done.stderr.count(f"record {record!r}: comparisons were left out") == 1
    assert done.stdout.count("bundle: ") == 1
    manifest = read_manifest(two.output / "bundle")
    assert manifest.data_fingerprint == read_manifest(config.output / "bundle").data_fingerprint
    assert manifest.calibration is not None
    assert not (two.output / "checkpoints").exists()


@pytest.mark.slow
def test_an_error_in_one_process_ends_the_run(config: TrainConfig, tmp_path: Path) -> None:
    """Only the first process writes a report."""
    config.output.mkdir()
    (config.output / "metrics.jsonl").mkdir()
    path = config.output.with_suffix(".yaml")
    short = replace(config, optim=replace(config.optim, steps=2, batch_size=2))
    path.write_text(yaml.safe_dump(to_mapping(short)))
    (first, log), (second, _) = ranks(command, "train", str(path), folder=tmp_path)
    assert first == 2 and "metrics.jsonl: Is a directory" in log
    assert second not in (0, None)
