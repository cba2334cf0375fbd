"""A run that is killed and resumed ends where the uninterrupted run ends."""

import hashlib
import importlib
import json
import shutil
import signal
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import yaml

from prefrm.checkpoints import Checkpoints
from prefrm.config import to_mapping
from prefrm.errors import ConfigError
from prefrm.judge import JudgeSpec
from prefrm.train import AdapterConfig, CheckpointConfig, DataConfig, OptimConfig, TrainConfig, run
from prefrm.train.trainer import read_state
from tests.forked import start
from tests.prefrm.train import killed
from tests.prefrm.train.conftest import write_brightness

STEPS = 11
# The package has a function of that name.
RUN = importlib.import_module("prefrm.train.run")


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path) -> TrainConfig:
    return settings(tiny_checkpoint, tmp_path)


def settings(checkpoint: Path, folder: Path) -> TrainConfig:
    """Three steps are an epoch; each draws comparisons, and random numbers for dropout."""
    return TrainConfig(
        output=folder / "whole",
        judge=JudgeSpec(base_model=str(checkpoint)),
        data=DataConfig(path=write_brightness(folder / "data", train=12, validation=3), test=None),
        adapter=AdapterConfig(rank=4, alpha=8, dropout=0.2),
        optim=OptimConfig(
            steps=STEPS, batch_size=2, accumulation=2, pairs_per_group=2, lr=1e-2, weight_decay=0.1
        ),
        checkpoint=CheckpointConfig(save_every=3),
        device="cpu",
    )


def start_and_kill(
    config: TrainConfig, name: str, place: str, number: int
) -> tuple[TrainConfig, BaseProcess]:
    mine = replace(config, output=config.output.with_name(name))
    path = mine.output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(to_mapping(mine)))
    return mine, start(killed.train, path, place, number, log=path.with_suffix(".log"))


def assert_killed(process: BaseProcess) -> None:
    process.join()
    assert process.exitcode == -signal.SIGKILL


def hashes(config: TrainConfig) -> dict[str, str]:
    bundle = config.output / "bundle"
    return {
        str(path.relative_to(bundle)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in bundle.rglob("*.safetensors")
    }


def metrics(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_killed_run_ends_where_the_uninterrupted_one_ends(config: TrainConfig) -> None:
    # After step 8, the newest checkpoint is of step 6. A checkpoint has five files and its folder, then the
    # folder around it: the fourth file of the third checkpoint is number 18.
    started = [
        start_and_kill(config, "at a step", "step", 8),
        start_and_kill(config, "at a file", "file", 18),
    ]
    run(config)
    assert [line["step"] for line in metrics(config)] == list(range(1, STEPS + 1))
    for (left_over, process), known in zip(started, (8, 9), strict=True):
        assert_killed(process)
        left = Checkpoints(left_over.output / "checkpoints", keep=2)
        assert [path.name for path in left.found()] == ["step-00000006", "step-00000003"]
        assert len(metrics(left_over)) in (known - 1, known)
        run(left_over, resume=True)
        assert hashes(left_over) == hashes(config)
        assert metrics(left_over) == metrics(config)
        assert not left.folder.exists()


@pytest.mark.slow
def test_a_run_that_is_killed_in_its_export_exports_the_same_weights(config: TrainConfig) -> None:
    short = replace(config, optim=replace(config.optim, steps=2))
    left_over, process = start_and_kill(short, "in the export", "export", 1)
    run(short)
    assert_killed(process)
    assert not (left_over.output / "bundle").exists()
    run(left_over, resume=True)
    assert hashes(left_over) == hashes(short)
    assert sorted(path.name for path in left_over.output.iterdir()) == ["bundle", "metrics.jsonl"]


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of four steps that was trained and not exported."""
    config = settings(tiny_checkpoint, tmp_path_factory.mktemp("trained"))
    short = replace(config, optim=replace(config.optim, steps=4))
    interrupt_export(short)
    return short


@pytest.fixture(scope="module")
def exported(trained: TrainConfig) -> dict[str, str]:
    """The hashes of the same run without an interruption."""
    whole = replace(trained, output=trained.output.with_name("uninterrupted"))
    run(whole)
    return hashes(whole)


@pytest.fixture
def unfinished(config: TrainConfig, trained: TrainConfig) -> TrainConfig:
    """A run that was trained and not exported, for the test's own use."""
    shutil.copytree(trained.output, config.output)
    return replace(config, optim=trained.optim)


def interrupt_export(config: TrainConfig) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RUN, "_export", interrupt)
        with pytest.raises(Interrupted):
            run(config)


def test_a_trained_judge_is_not_trained_again(
    unfinished: TrainConfig, exported: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = metrics(unfinished)
    with monkeypatch.context() as patch:
        patch.setattr("prefrm.train.trainer.JudgeTrainer.compute_loss", None)
        run(unfinished, resume=True)
    assert hashes(unfinished) == exported
    assert metrics(unfinished) == before


def test_a_broken_checkpoint_costs_only_its_own_steps(
    unfinished: TrainConfig, exported: dict[str, str]
) -> None:
    newest, older = sorted((unfinished.output / "checkpoints").iterdir(), reverse=True)
    (newest / "weights.safetensors").write_bytes(b"")
    assert older.name == "step-00000003"
    run(unfinished, resume=True)
    assert [line["step"] for line in metrics(unfinished)] == [1, 2, 3, 4]
    assert hashes(unfinished) == exported


def test_where_no_checkpoint_is_whole_nothing_starts_over(unfinished: TrainConfig) -> None:
    folder = unfinished.output / "checkpoints"
    for checkpoint in folder.iterdir():
        (checkpoint / "weights.safetensors").write_bytes(b"")
    before = metrics(unfinished)
    with pytest.raises(ConfigError, match="checkpoints holds checkpoints and none is whole") as caught:
        run(unfinished, resume=True)
    assert str(folder) in str(caught.value)
    assert metrics(unfinished) == before


def test_a_resumed_run_took_the_seconds_before_it_too(unfinished: TrainConfig) -> None:
    newest, older = sorted((unfinished.output / "checkpoints").iterdir(), reverse=True)
    took = [read_state(checkpoint)["seconds"] for checkpoint in (older, newest)]
    assert 0 < took[0] < took[1]
    # As if the training up to the older one had taken an hour more.
    rewrite(older, seconds=took[0] + 3600)
    (newest / "weights.safetensors").write_bytes(b"")
    assert 3600 + took[0] < run(unfinished, resume=True).seconds < 3600 + took[0] + 120


def rewrite(checkpoint: Path, **changes: object) -> None:
    """Change the state of a checkpoint, which stays whole."""
    path, manifest = checkpoint / "state.json", checkpoint / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    files = json.loads(manifest.read_text())["files"]
    manifest.write_text(
        json.dumps({"files": files | {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}})
    )


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_memory_can_be_saved_from_a_checkpoint_on(config: TrainConfig, dropout: float) -> None:
    """Other forward passes over the same groups: without dropout only rounding differs."""
    adapter = AdapterConfig(rank=4, alpha=8, dropout=dropout)
    plain = replace(config, adapter=adapter, optim=replace(config.optim, steps=4))
    less = replace(plain.optim, batch_size=1, accumulation=4, gradient_checkpointing=True)
    run(plain)
    saved = replace(plain, output=config.output.with_name("saved"))
    interrupt_export(saved)
    (saved.output / "checkpoints" / "step-00000004" / "weights.safetensors").write_bytes(b"")
    run(replace(saved, optim=less), resume=True)
    losses, expected = ([line["loss"] for line in metrics(one)] for one in (saved, plain))
    assert losses[:3] == expected[:3]
    assert (losses[3] == pytest.approx(expected[3], abs=1e-5)) == (dropout == 0.0)


def test_a_larger_step_is_another_run(unfinished: TrainConfig) -> None:
    larger = replace(unfinished, optim=replace(unfinished.optim, batch_size=4))
    with pytest.raises(ConfigError, match=r"optim\.batch_size x optim\.accumulation was 4 and is 8"):
        run(larger, resume=True)


def test_an_unfinished_run_is_not_overwritten(unfinished: TrainConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"unfinished run, such as step-00000004; continue it with --resume"
    ):
        run(unfinished)


def test_other_settings_are_named(unfinished: TrainConfig) -> None:
    other = replace(unfinished, seed=1, optim=replace(unfinished.optim, lr=0.5))
    with pytest.raises(ConfigError, match=r"optim\.lr was 0\.01 and is 0\.5; seed was 0 and is 1; resume"):
        run(other, resume=True)
    data = unfinished.data.path
    (data / "train.parquet").write_bytes((data / "validation.parquet").read_bytes())
    with pytest.raises(ConfigError, match=r"data\.train fingerprint was '\w+' and is '\w+'; resume"):
        run(unfinished, resume=True)


def test_what_does_not_matter_may_change(unfinished: TrainConfig) -> None:
    run(replace(unfinished, export="adapter", checkpoint=CheckpointConfig(keep=1)), resume=True)
    assert (unfinished.output / "bundle" / "adapter").is_dir()


def test_there_may_be_nothing_to_resume(config: TrainConfig) -> None:
    short = replace(config, optim=replace(config.optim, steps=1))
    run(short, resume=True)
    with pytest.raises(ConfigError, match="exists already"):
        run(short, resume=True)


def test_a_run_whose_measurement_failed_can_be_resumed(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise Interrupted

    short = replace(config, optim=replace(config.optim, steps=1))
    with monkeypatch.context() as patch:
        patch.setattr(RUN, "measure", interrupt)
        with pytest.raises(Interrupted):
            run(short)
    assert (short.output / "bundle").is_dir()
    assert run(short, resume=True).calibration is not None


def test_no_checkpoint_holds_a_pickle(unfinished: TrainConfig) -> None:
    suffixes = {path.suffix for path in (unfinished.output / "checkpoints").rglob("*") if path.is_file()}
    assert suffixes == {".json", ".safetensors"}


def test_another_device_may_not_change_the_type_of_the_weights(
    unfinished: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dtype=auto is bfloat16 on an accelerator; named, it is the same everywhere."""
    assert unfinished.dtype == "auto"
    with monkeypatch.context() as patch:
        patch.setattr(RUN, "resolve_dtype", lambda dtype, device: torch.bfloat16)
        with pytest.raises(ConfigError, match="dtype was 'float32' and is 'bfloat16'; resume"):
            run(unfinished, resume=True)
    run(replace(unfinished, dtype="float32"), resume=True)
