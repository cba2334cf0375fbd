"""The log of groups: what is written comes back, in bounds, whatever several processes and a kill do."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prefrm.errors import ConfigError, DatasetError
from prefrm.group_log import GroupLog, GroupLogReader, LoggedGroup
from prefrm.winmatrix import FakeScorer, Group


def logged(step: int | None = 1, *, prompt: str = "a cat", size: int = 3, **fields) -> LoggedGroup:
    group = Group(prompt=prompt, candidates=tuple(str(n).encode() for n in range(size)))
    (matrix,) = FakeScorer(lambda prompt, image: float(image), first_bonus=0.5).score([group])
    known = {"group": group, "matrices": {"judge": matrix}, "rewards": {"judge": matrix.win_rate().tolist()}}
    return LoggedGroup(**{**known, "step": step, **fields})


def steps(folder: Path) -> list[int | None]:
    return [entry.step for entry in GroupLogReader(folder).entries()]


def test_a_group_comes_back(tmp_path):
    first = logged(7, advantages=[1.0, float("nan"), -1.0], evaluation=True)
    context = Group(prompt="b", candidates=(b"1", None), context=(b"source",), criterion="alignment")
    refused = FakeScorer(lambda prompt, image: float(image)).score([context])
    second = logged(7, group=context, matrices={"judge": refused[0]}, rewards={"judge": [0.5, None]})
    texts = replace(second, group=Group(prompt="c\udc80", candidates=("one", "two")), matrices={})
    GroupLog(tmp_path / "groups").add([first, second, texts])

    reader = GroupLogReader(tmp_path / "groups")
    one, two, three = reader.entries()
    assert (one.step, one.evaluation, one.prompt, one.kind, one.size) == (7, True, "a cat", "image", 3)
    assert one.matrices["judge"].equals(first.matrices["judge"])
    assert one.rewards == {"judge": tuple(first.rewards["judge"])}
    assert np.array_equal(one.advantages, [1.0, np.nan, -1.0], equal_nan=True)
    assert two.matrices["judge"].reason(0, 1) == refused[0].reason(0, 1) != ""
    assert (two.rewards, two.advantages, two.criterion) == ({"judge": (0.5, None)}, None, "alignment")
    assert [entry.context_images for entry in (one, two)] == [0, 1]
    assert [reader.group(entry.id) for entry in (one, two)] == [first.group, context]
    assert reader.group(three.id) == Group(prompt="c?", candidates=("one", "two"))


def test_groups_are_images_of_a_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    GroupLog(tmp_path).add([logged()])
    rows = datasets.Dataset.from_parquet(
        [str(path) for path in tmp_path.iterdir()], cache_dir=str(tmp_path / "cache")
    )
    assert rows["prompt"] == ["a cat"] and rows[0]["images"][2]["bytes"] == b"2"


def test_the_oldest_groups_go(tmp_path):
    log = GroupLog(tmp_path, most_groups=4)
    for step in range(1, 6):
        log.add([logged(step), logged(step)])
    assert steps(tmp_path) == [5, 5, 4, 4]
    size = sum(path.stat().st_size for path in tmp_path.iterdir()) // 2
    GroupLog(tmp_path, most_bytes=int(size * 1.5)).add([logged(6)])
    assert steps(tmp_path) == [6]


def test_of_a_step_beyond_the_bounds_the_first_groups_are_kept(tmp_path, caplog):
    log = GroupLog(tmp_path, most_groups=2)
    log.add([logged(prompt=prompt) for prompt in "abc"])
    log.add([logged(prompt=prompt) for prompt in "abc"])
    assert [entry.prompt for entry in GroupLogReader(tmp_path).entries()] == ["a", "b"]
    assert len(caplog.records) == 1 and "1 of 3 groups" in caplog.text
    large = logged(group=Group(prompt="large", candidates=(bytes(2000), bytes(2000))), matrices={})
    GroupLog(tmp_path / "small", most_bytes=1000).add([large])
    assert steps(tmp_path / "small") == []


def test_a_run_that_starts_again_removes_the_steps_that_it_repeats(tmp_path):
    before = GroupLog(tmp_path)
    for step in (1, 2, 3):
        before.add([logged(step, prompt="before")])
    # Two processes of the resumed run, which write the same steps.
    again = [GroupLog(tmp_path), GroupLog(tmp_path)]
    for log in again:
        log.add([logged(2, prompt="again")])
    found = [(entry.step, entry.prompt) for entry in GroupLogReader(tmp_path).entries()]
    assert found == [(2, "again"), (2, "again"), (1, "before")]


def test_a_kill_leaves_whole_files(tmp_path):
    log = GroupLog(tmp_path)
    log.add([logged(1)])
    (whole,) = tmp_path.iterdir()
    abandoned = tmp_path / f"{0:020d}-1-1-0123abcd.partial"
    abandoned.write_bytes(whole.read_bytes()[:100])
    assert steps(tmp_path) == [1]
    log.add([logged(2)])
    assert not abandoned.exists() and steps(tmp_path) == [2, 1]


def test_a_disk_that_takes_nothing_stops_no_training(tmp_path, caplog):
    log = GroupLog(tmp_path / "groups")
    (tmp_path / "groups").write_text("a file in the place of the folder")
    with caplog.at_level(logging.WARNING):
        log.add([logged(1)])
        log.add([logged(2)])
    assert len(caplog.records) == 1 and "groups are missing from the log" in caplog.text


def test_a_reader_follows_the_run(tmp_path):
    reader, log = GroupLogReader(tmp_path / "later"), GroupLog(tmp_path / "later", most_groups=1)
    assert reader.entries() == []
    log.add([logged(1)])
    (entry,) = reader.entries()
    log.add([logged(2)])
    assert [entry.step for entry in reader.entries()] == [2]
    for gone in (entry.id, f"{entry.id}9", "../../etc/passwd.0", "", f"{0:020d}-1-1-0123abcd.0"):
        with pytest.raises(DatasetError, match="has no group"):
            reader.group(gone)


def test_a_damaged_file_is_named(tmp_path):
    GroupLog(tmp_path).add([logged(1)])
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=path.name):
        GroupLogReader(tmp_path).entries()


def test_bounds_and_folders_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="most_groups must be at least 1"):
        GroupLog(tmp_path, most_groups=0)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="log_groups"):
        GroupLog(tmp_path / "file" / "groups")
    assert os.listdir(tmp_path) == ["file"]
