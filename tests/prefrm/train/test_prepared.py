"""One pass over a split, whose result is kept beside it for as long as the file is the same."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from prefrm.errors import DatasetError
from prefrm.judge import JudgeSpec
from prefrm.records import PreferenceGroup, fingerprint, read_groups, write_groups
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig, prepared, run
from prefrm.train.groups import StoredGroups
from prefrm.train.prepared import Prepared, prepare_split


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that were read from their files, in order."""
    seen: list[str] = []

    def counted(folder: Path, split: str) -> Iterator[PreferenceGroup]:
        seen.append(split)
        return read_groups(folder, split)

    monkeypatch.setattr(prepared, "read_groups", counted)
    return seen


@pytest.fixture
def data(brightness: Callable[..., Path]) -> Path:
    return brightness(train=70, validation=2)


@pytest.fixture
def prepare(data: Path, tmp_path: Path) -> Callable[..., Prepared]:
    def prepare(split: str = "train", table: bool = True) -> Prepared:
        return prepare_split(data, split, table=table, spare=tmp_path / "spare")

    return prepare


def test_a_split_is_read_once_for_its_survey_and_its_table(
    data: Path, passes: list[str], prepare: Callable[..., Prepared]
) -> None:
    first = prepare()
    assert first.survey.fingerprint == fingerprint(read_groups(data, "train"))
    assert first.survey.groups == len(StoredGroups(first.table)) == 70
    assert first.table == data / ".prefrm" / "train.arrow"
    assert prepare() == first
    assert prepare(table=False) == replace(first, table=None)
    assert passes == ["train"]


def test_a_file_that_was_written_again_is_read_again(
    data: Path, passes: list[str], prepare: Callable[..., Prepared]
) -> None:
    prepare()
    groups = [replace(group, prompt="another") for group in read_groups(data, "train")]
    write_groups(groups, data, "train")
    after = prepare()
    assert after.survey.fingerprint == fingerprint(groups)
    assert StoredGroups(after.table).fetch(0).prompt == "another"
    assert passes == ["train", "train"]


def test_a_file_of_the_same_size_and_time_of_writing_is_told_apart(
    data: Path, prepare: Callable[..., Prepared]
) -> None:
    """As a copy that keeps times has them."""
    prepare()
    path = data / "train.parquet"
    old, content = path.stat(), bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (old.st_size, old.st_mtime_ns)
    with pytest.raises(DatasetError, match="damaged"):
        prepare()


@pytest.mark.parametrize("damage", ["{", "[]", '{"format_version": 0}', None])
def test_a_damaged_result_counts_as_none(
    data: Path, passes: list[str], prepare: Callable[..., Prepared], damage: str | None
) -> None:
    first = prepare()
    if damage is None:
        os.truncate(first.table, 100)
    else:
        (data / ".prefrm" / "train.json").write_text(damage)
    assert prepare() == first
    assert StoredGroups(prepare().table).fetch(0).id == "train-0"
    assert passes == ["train", "train"]


def test_a_split_that_was_only_counted_is_read_again_for_its_table(
    passes: list[str], prepare: Callable[..., Prepared]
) -> None:
    counted = prepare(table=False)
    assert counted.table is None
    assert prepare().survey == counted.survey
    assert passes == ["train", "train"]


def test_where_nothing_can_be_written_beside_the_data_the_spare_folder_is_used(
    data: Path, passes: list[str], prepare: Callable[..., Prepared], tmp_path: Path
) -> None:
    (data / ".prefrm").write_text("")
    assert prepare().table == tmp_path / "spare" / "train.arrow"
    prepare()
    assert passes == ["train"]


def test_a_split_that_breaks_off_leaves_nothing_behind(data: Path, prepare: Callable[..., Prepared]) -> None:
    path = data / "train.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DatasetError, match="damaged or not a parquet file"):
        prepare()
    assert [file.name for file in (data / ".prefrm").iterdir()] == [".train.lock"]
    path.unlink()
    with pytest.raises(DatasetError, match=r"splits found in .*: validation"):
        prepare()


def test_a_full_disk_is_one_line(
    data: Path, prepare: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(groups: object, path: Path) -> Iterator[PreferenceGroup]:
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")
        yield

    monkeypatch.setattr(prepared, "storing", full)
    with pytest.raises(DatasetError, match=r"cannot be written \(No space left .* data\.stream=true"):
        prepare()
    assert not list((data / ".prefrm").glob("train*"))


def test_a_second_run_reads_no_split(
    tiny_checkpoint: Path, tmp_path: Path, data: Path, passes: list[str]
) -> None:
    config = TrainConfig(
        output=tmp_path / "first",
        judge=JudgeSpec(base_model=str(tiny_checkpoint)),
        data=DataConfig(path=data, test=None),
        adapter=AdapterConfig(rank=2, alpha=4),
        optim=OptimConfig(steps=1, batch_size=2),
        device="cpu",
    )
    run(config)
    assert passes == ["train", "validation"]
    run(replace(config, output=tmp_path / "second"))
    assert passes == ["train", "validation"]
    bundles = [(tmp_path / name / "bundle" / "head.safetensors").read_bytes() for name in ("first", "second")]
    assert bundles[0] == bundles[1]
    assert json.loads((data / ".prefrm" / "validation.json").read_text())["table"] is None
    shutil.rmtree(data / ".prefrm")
