"""The judge of the quickstart: its settings, and what is said of its data."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_recipes.shapes.recipe import ShapesOptions
from prefrm.config import load_config
from prefrm.quickstart import judging
from prefrm.quickstart.settings import Settings
from prefrm.records import SPLITS, read_groups
from prefrm.train import TrainConfig

ROOT = Path(__file__).parents[3]


def test_the_shipped_config_trains_what_the_quickstart_trains(tmp_path: Path) -> None:
    shipped = load_config(TrainConfig, ROOT / "configs" / "train" / "shapes.yaml")
    told = judging.training_settings(tmp_path / "data", tmp_path, Settings().judge, seed=0)
    assert (ROOT / shipped.judge.base_model).resolve() == Path(told.judge.base_model).resolve()
    # Everything else but the folders is equal, whatever settings there will be.
    assert told == replace(
        shipped,
        output=told.output,
        data=replace(shipped.data, path=told.data.path),
        judge=replace(shipped.judge, base_model=told.judge.base_model),
    )


def test_the_data_is_read_once_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []

    def reading(folder, split):
        read.append(split)
        return read_groups(folder, split)

    monkeypatch.setattr(judging, "read_groups", reading)
    made = judging.make_data(tmp_path, ShapesOptions(train=12, validation=4, test=4), seed=0)
    assert read == list(SPLITS)
    groups = {split: list(read_groups(tmp_path, split)) for split in SPLITS}
    assert made.groups == {"train": 12, "validation": 4, "test": 4}
    assert made.prompts == {split: len({group.prompt for group in groups[split]}) for split in SPLITS}
    comparisons = [c for group in groups["train"] for c in group.comparisons]
    assert made.comparisons == len(comparisons)
    assert made.ties == sum(c.p == 0.5 for c in comparisons)
