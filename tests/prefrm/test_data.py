"""Preference groups from a folder and from the Hub, through the real `huggingface_hub` and `datasets`."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import pytest
from typer.testing import CliRunner

from data_recipes.commands import app
from prefrm.data import load_groups, push_dataset
from prefrm.errors import DatasetError
from prefrm.records import (
    Comparison,
    DatasetInfo,
    PreferenceGroup,
    SplitCounts,
    fingerprint,
    read_groups,
    read_info,
    write_groups,
    write_info,
)
from tests.hub import Hub, files_in, running_hub

NAME = "some-org/preferences"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def folder(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """A dataset of two groups to train on and one to test on, built from a folder of this machine."""
    root = tmp_path / "dataset"
    splits = {"train": [0, 1], "test": [2]}
    for split, numbers in splits.items():
        groups = [
            PreferenceGroup(
                id=f"g{n}",
                prompt=f"prompt {n}",
                candidates=(png(n), png(n + 10), None),
                comparisons=(Comparison(i=0, j=1, p=0.75, weight=4),),
                tags={"n": n},
            )
            for n in numbers
        ]
        write_groups(groups, root, split)
    write_info(
        root,
        DatasetInfo(
            recipe="pairs",
            options={"source": "/home/somebody/secret/pairs.csv", "seed": 0},
            fingerprints={split: fingerprint(read_groups(root, split)) for split in splits},
            splits={
                split: SplitCounts(groups=len(n), candidates=2 * len(n), strict=len(n), ties=0)
                for split, n in splits.items()
            },
            licence="MIT",
            apart_from={f"/home/somebody/{n}/other": f"{n}" * 64 for n in (1, 2, 3)},
        ),
    )
    (root / ".prefrm").mkdir()
    (root / ".prefrm" / "table").write_bytes(b"of a training run")
    return root


def test_a_pushed_dataset_has_the_same_fingerprint(hub: Hub, folder: Path) -> None:
    result = CliRunner().invoke(app, ["push", str(folder), NAME, "--private"])
    assert result.exit_code == 0, result.exception
    assert result.stdout.startswith(f"hf://{NAME}@") and result.stdout.endswith(
        ": 2 train groups, 1 test groups\n"
    )
    assert hub.private == {f"datasets/{NAME}"}
    groups = load_groups(f"hf://{NAME}")
    recorded = read_info(folder).fingerprints
    assert (len(groups), groups.fingerprint()) == (2, recorded["train"])
    assert list(groups) == list(groups) == list(load_groups(folder)) == list(read_groups(folder, "train"))
    assert hub.pulled == ["dataset.json", "train.parquet"]
    assert load_groups(f"hf://{NAME}", "test", revision="main").fingerprint() == recorded["test"]
    assert read_info(groups.folder).fingerprints == recorded


def test_no_folder_of_this_machine_is_published(hub: Hub, folder: Path) -> None:
    push_dataset(folder, NAME)
    found = hub.find(f"datasets/{NAME}", "main")
    assert found is not None
    assert files_in(found[1]) == [
        ".gitattributes",
        "README.md",
        "dataset.json",
        "test.parquet",
        "train.parquet",
    ]
    published = json.loads((found[1] / "dataset.json").read_text())
    assert published["options"] == {"source": "pairs.csv", "seed": 0}
    assert published["apart_from"] == {"other": "1" * 64, "other (2)": "2" * 64, "other (3)": "3" * 64}
    card = (found[1] / "README.md").read_text()
    assert "license: mit\n" in card and f'load_groups("hf://{NAME}", "train")' in card


def test_datasets_reads_it_as_it_is(hub: Hub, folder: Path) -> None:
    push_dataset(folder, NAME)
    loaded = datasets.load_dataset(NAME, streaming=True)
    assert list(loaded) == ["train", "test"]
    assert [row["prompt"] for row in loaded["test"]] == ["prompt 2"]


def test_a_dataset_that_is_not_what_it_says_is_not_pushed(hub: Hub, folder: Path) -> None:
    shutil.copy(folder / "train.parquet", folder / "test.parquet")
    with pytest.raises(
        DatasetError, match=r"test\.parquet does not match its fingerprint in .*dataset\.json"
    ):
        push_dataset(folder, NAME)
    assert not hub.knows(f"datasets/{NAME}")


@pytest.mark.parametrize(
    ("name", "split", "reason"),
    [
        ("hf://some-org/absent", "train", "the Hub has no such dataset, or it is private"),
        (f"hf://{NAME}@v9", "train", "it has no branch, tag or commit v9"),
        (f"hf://{NAME}", "validation", "has no split 'validation'; it has train, test"),
        (
            "hf://some-org/rows",
            "train",
            "not a dataset of prefrm; build one from it: prefrm data build table",
        ),
        ("hf://rows", "train", "must be hf://org/name"),
    ],
)
def test_what_cannot_be_had_is_named(
    hub: Hub, folder: Path, tmp_path: Path, name: str, split: str, reason: str
) -> None:
    push_dataset(folder, NAME)
    shutil.copytree(folder, tmp_path / "rows", ignore=shutil.ignore_patterns("dataset.json"))
    hub.commit("datasets/some-org/rows", tmp_path / "rows")
    with pytest.raises(DatasetError, match=reason) as caught:
        load_groups(name, split)
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)


def test_a_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(DatasetError, match="is a folder, which has no revision 'main'"):
        load_groups(folder, revision="main")
    with pytest.raises(DatasetError, match=r"splits found in .*: test, train"):
        load_groups(folder, "validation")
