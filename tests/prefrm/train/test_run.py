import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefrm.bundle import read_manifest
from prefrm.config import from_mapping, load_config, to_mapping
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.judge import JudgeSpec
from prefrm.records import read_groups
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig, run

CONFIGS = Path(__file__).parents[3] / "configs" / "train"

# The loss of the first steps, measured on the CPU with torch 2.13.
PINNED = (0.6686, 0.7803, 0.7054, 0.7136, 0.6484)


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=brightness(train=12, validation=3, test=3)),
        adapter=AdapterConfig(rank=4, alpha=8),
        optim=OptimConfig(steps=30, batch_size=16, lr=1e-2),
        device="cpu",
    )


def test_a_judge_learns_and_its_bundle_says_so(config: TrainConfig) -> None:
    result = run(config)
    assert result.held_out.metrics.accuracy.value == 1.0
    manifest = read_manifest(result.bundle)
    assert manifest.calibration is not None
    assert manifest.calibration.split == "validation"
    assert manifest.calibration.n == 9
    assert manifest.metrics["metrics"]["accuracy"]["value"] == 1.0
    assert (config.output / "evaluation" / "report.md").is_file()
    groups = [group.group() for group in read_groups(config.data.path, "test")]
    for matrix, judged in zip(
        Engine.from_bundle(result.bundle, device="cpu").score(groups), result.held_out.judged, strict=True
    ):
        np.testing.assert_allclose(matrix.p, judged.matrix.p, atol=1e-5)


def losses(output: Path) -> list[float]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def test_the_trajectory_is_pinned(config: TrainConfig) -> None:
    short = replace(
        config, optim=replace(config.optim, steps=5, lr=1e-3), data=replace(config.data, test=None)
    )
    result = run(short)
    assert result.evaluation is None
    assert losses(config.output) == pytest.approx(PINNED, abs=2e-3)


def test_accumulation_is_one_larger_batch(config: TrainConfig, tmp_path: Path) -> None:
    whole = replace(config.optim, steps=3, batch_size=16)
    parts = replace(config.optim, steps=3, batch_size=4, accumulation=4)
    for name, optim in (("whole", whole), ("parts", parts)):
        run(replace(config, output=tmp_path / name, optim=optim, data=replace(config.data, test=None)))
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=1e-4)


def test_without_an_adapter_every_weight_learns(config: TrainConfig) -> None:
    full = replace(config, adapter=None, optim=replace(config.optim, steps=1, batch_size=2))
    result = run(replace(full, data=replace(config.data, validation=None, test=None)))
    adapted = run(replace(config, output=config.output / "lora", optim=full.optim))
    assert result.trainable > 5 * adapted.trainable
    assert result.calibration is None
    assert read_manifest(result.bundle).calibration is None
    with pytest.raises(ConfigError, match=r"data\.test is null"):
        _ = result.held_out


def test_a_finished_run_is_not_overwritten(config: TrainConfig) -> None:
    (config.output / "bundle").mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists already"):
        run(config)


def test_settings_survive_plain_data(config: TrainConfig) -> None:
    assert from_mapping(TrainConfig, to_mapping(config)) == config


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs_load_and_name_their_command(path: Path) -> None:
    load_config(TrainConfig, path)
    assert path.read_text().splitlines()[0] == f"# prefrm train configs/train/{path.name}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.steps=0", "steps must be positive"),
        ("optim.warmup=1", "warmup is a share"),
        ("adapter.rank=0", "rank must be at least 1"),
        ("data.test=train", "different splits"),
        ("judge.head=scaler", "head must be one of"),
        ("export=zip", "export must be one of merged, adapter"),
    ],
)
def test_bad_settings(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(TrainConfig, CONFIGS / "shapes.yaml", [override])
