"""Runs that learn from several datasets, or from a stream."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prefrm.bundle import read_manifest
from prefrm.data import push_dataset
from prefrm.errors import ConfigError, DatasetError
from prefrm.judge import JudgeSpec
from prefrm.records import (
    DatasetInfo,
    PreferenceGroup,
    comparisons_from_ranking,
    fingerprint,
    read_groups,
    write_groups,
    write_info,
)
from prefrm.train import (
    AdapterConfig,
    CheckpointConfig,
    DataConfig,
    MixConfig,
    OptimConfig,
    TrainConfig,
    run,
)
from prefrm.train.collate import GroupCollator
from prefrm.train.datasets import data_fingerprint, local_data, survey_data, training_inputs
from prefrm.train.trainer import JudgeTrainer
from prefrm.winmatrix import TrainingInputs
from tests.hub import running_hub


@pytest.fixture
def pairs(tmp_path: Path, brightness: Callable[..., Path]) -> Path:
    """The same world as pairs: of each group, two candidates and one comparison."""
    groups = [
        PreferenceGroup(
            id=f"pair-{n}",
            prompt=group.prompt,
            candidates=group.candidates[:2],
            comparisons=group.comparisons[:1],
        )
        for n, group in enumerate(read_groups(brightness(train=9), "train"))
    ]
    write_groups(groups, tmp_path / "pairs", "learn")
    return tmp_path / "pairs"


@pytest.fixture
def config(
    tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path], pairs: Path
) -> TrainConfig:
    """Rankings of three, with a tie in each, and pairs, twice as often."""
    folder = brightness(train=8, validation=3, test=3)
    ranked = [
        replace(group, comparisons=comparisons_from_ranking([1, 2, 2]))
        for group in read_groups(folder, "train")
    ]
    write_groups(ranked, folder, "train")
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=folder, test=None, mix=(MixConfig(path=pairs, weight=2.0, train="learn"),)),
        adapter=AdapterConfig(rank=4, alpha=8, dropout=0.1),
        optim=OptimConfig(steps=6, batch_size=12, pairs_per_group=1, lr=1e-3),
        checkpoint=CheckpointConfig(save_every=2),
        device="cpu",
    )


def losses(config: TrainConfig) -> list[float]:
    return [json.loads(line)["loss"] for line in (config.output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True], ids=["stored", "streamed"])
def test_pairs_and_rankings_are_learned_together_and_resumed(
    config: TrainConfig, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(config, data=replace(config.data, stream=stream, shuffle_buffer=5))
    seen: list[str] = []
    collate = GroupCollator.__call__

    def noted(self: GroupCollator, groups: Any) -> Any:
        seen.extend(group.id.split("-")[0] for group in groups)
        return collate(self, groups)

    with monkeypatch.context() as patch:
        patch.setattr(GroupCollator, "__call__", noted)
        result = run(whole)
    assert len(seen) == 6 * 12
    assert seen.count("pair") / len(seen) == pytest.approx(2 / 3, abs=0.15)
    assert set(seen) == {"pair", "train"}
    assert result.calibration is not None
    assert result.calibration.pairs == 9
    expected = data_fingerprint(whole.data, survey_data(whole.data, whole.output))
    assert read_manifest(result.bundle).data_fingerprint == expected
    killed = replace(whole, output=whole.output.with_name("killed"))
    step = JudgeTrainer.training_step
    calls = 0

    def interrupted(self: JudgeTrainer, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(JudgeTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(killed)
    run(killed, resume=True)
    assert losses(killed) == losses(whole)


def test_the_fingerprint_covers_every_dataset(config: TrainConfig, pairs: Path) -> None:
    found = set()

    def fingerprint_of(data: DataConfig) -> str:
        found.add(digest := data_fingerprint(data, survey_data(data, config.output)))
        return digest

    data = replace(config.data, validation=None)
    alone = fingerprint_of(replace(data, mix=()))
    assert alone == fingerprint(read_groups(data.path, "train"))
    fingerprint_of(data)
    (mix,) = data.mix
    fingerprint_of(replace(data, mix=(replace(mix, weight=1.0),)))
    groups = list(read_groups(pairs, "learn"))
    write_groups(groups[:-1], pairs, "learn")
    fingerprint_of(data)
    assert len(found) == 4


def test_what_training_groups_have_is_that_of_every_dataset_to_learn_from(
    config: TrainConfig, pairs: Path
) -> None:
    groups = list(read_groups(pairs, "learn"))
    edits = [
        replace(groups[0], criterion="hue", context=(b"x",)),
        replace(groups[1], criterion="size", context=(b"x", b"x")),
        replace(groups[2], criterion="left out", comparisons=()),
    ]
    write_groups(edits, pairs, "learn")
    surveys = survey_data(config.data, config.output)
    assert surveys["data.mix[0].train"].inputs == TrainingInputs(
        least_context=1, most_context=2, criteria=("hue", "size"), no_criterion=False
    )
    assert training_inputs(config.data, surveys) == TrainingInputs(
        least_context=0, most_context=2, criteria=("hue", "size"), no_criterion=True
    )


def test_a_mistake_in_the_mix_is_found_before_anything_is_loaded(config: TrainConfig, pairs: Path) -> None:
    (pairs / "learn.parquet").unlink()
    with pytest.raises(DatasetError, match=r"data\.mix\[0\]\.train: .*learn\.parquet does not exist"):
        run(replace(config, judge=JudgeSpec(base_model="no/model")))


def test_data_that_the_judge_does_not_read_is_an_error_before_anything_is_loaded(
    config: TrainConfig, pairs: Path
) -> None:
    """Of the dataset that is mixed in: texts, then images with a criterion, then with a context."""
    absent = replace(config, judge=JudgeSpec(base_model="absent"))
    split = config.data.mix[0].train
    group = next(iter(read_groups(pairs, split)))
    wrong = [
        (
            replace(group, candidates=("yes", "no")),
            r"has texts .* the judge compares images; set judge.kind=text",
        ),
        (replace(group, criterion="hue"), r"with a criterion, for which .*'match-late-v1' has no place"),
        (replace(group, context=(b"x",)), r"judge.template to one with \{context\}, such as fit-late-v1"),
    ]
    for one, message in wrong:
        write_groups([group, replace(one, id="other")], pairs, split)
        with pytest.raises(ConfigError, match=rf"data\.mix\[0\]\.train .*{message}"):
            run(absent)


def test_another_mix_is_another_run(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("prefrm.train.run"), "_export", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    (mix,) = config.data.mix
    with pytest.raises(ConfigError, match=r"data\.mix was .*'weight': 2\.0.* and is .*'weight': 1\.0"):
        run(replace(config, data=replace(config.data, mix=(replace(mix, weight=1.0),))), resume=True)


def test_datasets_of_the_hub_are_those_that_were_pushed(
    config: TrainConfig, pairs: Path, tmp_path: Path
) -> None:
    """Their surveys are kept in the run's folder, and not in the Hub's cache."""
    names = {}
    for name, folder in (("ranked", config.data.path), ("pairs", pairs)):
        prints = {path.stem: fingerprint(read_groups(folder, path.stem)) for path in folder.glob("*.parquet")}
        write_info(folder, DatasetInfo(recipe="pairs", options={}, fingerprints=prints))
        names[name] = Path(f"hf://some-org/{name}")  # as a configuration has it
    mix = tuple(replace(one, path=names["pairs"]) for one in config.data.mix)
    with running_hub(tmp_path / "cache") as hub:
        push_dataset(config.data.path, "some-org/ranked")
        push_dataset(pairs, "some-org/pairs")
        hub.pulled.clear()
        data = local_data(replace(config.data, path=names["ranked"], mix=mix))
    assert sorted(hub.pulled) == [
        *["dataset.json"] * 2,
        "learn.parquet",
        "train.parquet",
        "validation.parquet",
    ]
    surveys = survey_data(data, tmp_path / "run" / "data")
    assert surveys == survey_data(config.data, tmp_path / "other")
    assert not list((tmp_path / "cache").rglob(".prefrm"))
    with running_hub(tmp_path / "empty"), pytest.raises(DatasetError, match="the Hub has no such dataset"):
        local_data(replace(config.data, path=names["ranked"]))
