"""A checkpoint is continued by the run that wrote it alone: everything that decides a result counts."""

import importlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrm.config import to_mapping
from prefrm.errors import ConfigError
from prefrm.judge import JudgeSpec
from prefrm.judge.backbones import find_base
from prefrm.records import read_groups, write_groups
from prefrm.train import AdapterConfig, DataConfig, MixConfig, OptimConfig, TrainConfig, run
from prefrm.train.datasets import survey_data
from prefrm.train.identity import identify_run
from tests.hub import Hub, running_hub

IDENTITY = importlib.import_module("prefrm.train.identity")
RUN = importlib.import_module("prefrm.train.run")


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    """Of every split that there can be; the base model is the test's own."""
    folder = brightness(train=2, validation=2, test=2)
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    mixed = shutil.copytree(folder, tmp_path / "mixed")
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(base)),
        data=DataConfig(path=folder, mix=(MixConfig(path=mixed),), stream=True),
        adapter=AdapterConfig(rank=2, alpha=4),
        optim=OptimConfig(steps=1, batch_size=2),
        device="cpu",
    )


def identity(config: TrainConfig) -> dict[str, Any]:
    surveys = survey_data(config.data, config.output / "cache")
    return identify_run(config, find_base(config.judge), surveys, torch.float32)


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def rewrite(folder: Path, split: str, keep: slice = slice(None)) -> None:
    groups = list(read_groups(folder, split))[keep]
    write_groups(groups, folder, split)


def nudge(weights: Path) -> None:
    tensors = load_file(weights)
    name = sorted(tensors)[0]
    save_file(tensors | {name: tensors[name] + 0.01}, weights, metadata={"format": "pt"})


def test_each_file_of_the_base_model_counts(config: TrainConfig) -> None:
    base, before = Path(config.judge.base_model), identity(config)
    assert changed(before, identity(config)) == []
    files = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "preprocessor_config.json")
    for name in (*files, "config.json"):
        text = (base / name).read_text()
        (base / name).write_text(text + "\n")
        assert changed(before, identity(config)) == [f"base file {name}"]
        (base / name).write_text(text)
    nudge(base / "model.safetensors")
    assert changed(before, identity(config)) == ["base weights"]


@pytest.mark.parametrize("split", ["data.train", "data.mix[0].train", "data.validation", "data.test"])
def test_each_split_that_is_read_counts(config: TrainConfig, split: str) -> None:
    before = identity(config)
    folder = config.data.mix[0].path if "mix" in split else config.data.path
    rewrite(folder, split.rpartition(".")[2], keep=slice(1))
    rows = [f"{split} row groups"] if "train" in split else []
    assert changed(before, identity(config)) == [f"{split} fingerprint", *rows]


def test_row_groups_count_where_the_data_are_streamed(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = replace(config, data=replace(config.data, stream=False))
    before = [identity(one) for one in (config, stored)]
    parquet = importlib.import_module("prefrm.records.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_GROUPS", 1)
        rewrite(config.data.path, "train")
    after = [identity(one) for one in (config, stored)]
    assert [*map(changed, before, after)] == [["data.train row groups"], []]


def test_the_wording_of_the_template_and_the_libraries_count(
    config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity(config)
    template = IDENTITY.get_template(config.judge.template)
    with monkeypatch.context() as patch:
        patch.setattr(IDENTITY, "get_template", lambda *_: replace(template, turn=template.turn + "!"))
        assert changed(before, identity(config)) == ["prompt template"]
    versions = {"torch": "9.9+cu1", "numpy": "9.9"}
    monkeypatch.setattr(IDENTITY, "version", lambda name: versions.get(name, "1"))
    assert {"version of torch", "version of numpy"} <= set(changed(before, identity(config)))
    again = identity(config)
    versions["torch"] = "9.9+cpu"
    assert changed(again, identity(config)) == []


def test_what_decodes_videos_counts_where_they_are_read(config: TrainConfig) -> None:
    of_videos = replace(config, judge=replace(config.judge, kind="video", template=""))
    assert ["version of av" in identity(one) for one in (config, of_videos)] == [False, True]


def test_where_a_run_is_and_how_fast_it_reads_do_not_count(config: TrainConfig) -> None:
    other = replace(
        config,
        output=config.output.with_name("elsewhere"),
        data=replace(config.data, num_workers=3),
        report_to=("tensorboard",),
    )
    assert changed(identity(config), identity(other)) == []


def test_what_does_not_count_is_a_setting(config: TrainConfig) -> None:
    for name in IDENTITY.OF_NO_MATTER:
        tree: Any = to_mapping(config)
        for key in name.split("."):
            assert key in tree, name
            tree = tree[key]


class Interrupted(Exception):
    pass


def interrupt_export(config: TrainConfig) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise Interrupted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RUN, "_export", interrupt)
        with pytest.raises(Interrupted):
            run(config)


def test_a_run_on_other_base_weights_is_not_resumed(config: TrainConfig) -> None:
    interrupt_export(config)
    nudge(Path(config.judge.base_model) / "model.safetensors")
    rewrite(config.data.path, "validation", keep=slice(1))
    with pytest.raises(ConfigError) as caught:
        run(config, resume=True)
    for part in (
        "step-00000001 is of another run: base weights was '",
        "; data.validation fingerprint was '",
    ):
        assert part in str(caught.value)
    assert str(caught.value).endswith("; resume with the same settings and files, or choose another output")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache") as hub:
        yield hub


def test_a_run_is_resumed_on_the_commit_it_began_with(config: TrainConfig, hub: Hub, tmp_path: Path) -> None:
    """The branch moves in between; the commit itself can be named, and is the same run."""
    base = Path(config.judge.base_model)
    old = hub.commit("some-org/tiny", base)
    named = replace(config, judge=JudgeSpec(base_model="some-org/tiny"))
    interrupt_export(named)
    assert "model.safetensors" in hub.pulled
    moved = shutil.copytree(base, tmp_path / "moved")
    (moved / "config.json").write_text((moved / "config.json").read_text() + "\n")
    new = hub.commit("some-org/tiny", moved)
    with pytest.raises(ConfigError) as caught:
        run(named, resume=True)
    assert f"base commit was '{old}' and is '{new}'" in str(caught.value)
    assert f"; set judge.revision={old}, or choose another output" in str(caught.value)
    result = run(replace(named, judge=replace(named.judge, revision=old)), resume=True)
    assert result.bundle.is_dir()
