import copy
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from prefrm.records import (
    Comparison,
    PreferenceGroup,
    count_row_groups,
    read_groups,
    read_row_groups,
    write_groups,
)
from prefrm.train import groups
from prefrm.train.groups import StoredGroups, StreamedGroups, storing

GROUPS, BUFFER, BYTES = 3000, 20, 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve row groups of random bytes, 12 MB in all; some records compare nothing."""
    folder = tmp_path_factory.mktemp("stream")
    random = np.random.default_rng(0)

    def written() -> Iterator[PreferenceGroup]:
        for n in range(GROUPS):
            comparisons = (Comparison(i=0, j=1, p=n / GROUPS, weight=1.0 + n),) if n % 10 else ()
            images = (random.bytes(BYTES), random.bytes(BYTES))
            yield PreferenceGroup(id=str(n), prompt=f"p{n}", candidates=images, comparisons=comparisons)

    write_groups(written(), folder, "train")
    assert count_row_groups(folder, "train") == 12
    return folder


def compared(folder: Path) -> list[PreferenceGroup]:
    return [group for group in read_groups(folder, "train") if group.comparisons]


def stream(folder: Path) -> StreamedGroups:
    return StreamedGroups(folder, "train", size=GROUPS * 9 // 10, buffer=BUFFER)


@pytest.fixture(scope="module")
def stored(folder: Path) -> StoredGroups:
    path = folder / "groups.arrow"
    assert sum(1 for _ in storing(read_groups(folder, "train"), path)) == GROUPS
    return StoredGroups(path)


def test_a_file_gives_any_group_with_comparisons_by_itself(folder: Path, stored: StoredGroups) -> None:
    expected = compared(folder)
    assert len(stored) == len(expected) == 2700
    for mapped in (stored, copy.copy(stored)):
        assert [mapped.fetch(n) for n in (2699, 0, 64)] == [expected[n] for n in (2699, 0, 64)]


def test_a_stored_group_is_as_it_was_written(tmp_path: Path) -> None:
    whole = PreferenceGroup(
        id="a",
        prompt="p",
        candidates=(b"x", None, b"y"),
        comparisons=(Comparison(i=2, j=0, p=0.8, weight=2.0),),
        quality=(1.0, 2.0, 3.0),
        tags={"skill": "size"},
        completions=("t", None, "u"),
    )
    assert list(storing([whole], tmp_path / "groups.arrow")) == [whole]
    assert StoredGroups(tmp_path / "groups.arrow").fetch(0) == whole


def test_a_streamed_epoch_has_every_group_with_comparisons(folder: Path) -> None:
    streamed = stream(folder)
    epoch = list(streamed.order(0))
    assert len(epoch) == len(streamed)
    assert sorted(epoch, key=lambda group: int(group.id)) == compared(folder)
    assert streamed.fetch(epoch[2]) is epoch[2]


def test_an_order_is_of_its_seed_and_can_be_entered_anywhere(folder: Path, stored: StoredGroups) -> None:
    order = list(stored.order(5))
    assert sorted(order) == list(range(2700))
    assert order != list(stored.order(6))
    assert list(stored.order(5, skip=7)) == order[7:]
    epoch = [group.id for group in stream(folder).order(1)]
    assert [group.id for group in stream(folder).order(1, skip=700)] == epoch[700:]
    assert [group.id for group in islice(stream(folder).order(2), 50)] != epoch[:50]
    # Neither row groups nor the records in them come one after the other.
    records = [*map(int, epoch)]
    assert {record // 256 for record in records[:600]} != {0, 1}
    assert records[:40] != sorted(records[:40])


def test_what_is_held_is_a_buffer_and_a_row_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Id(str):
        pass

    alive, most = 0, 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def counted(folder: Path, split: str, numbers: Iterable[int]) -> Iterator[PreferenceGroup]:
        nonlocal alive, most
        for group in read_row_groups(folder, split, numbers):
            id = Id(group.id)
            weakref.finalize(id, gone)
            alive += 1
            most = max(most, alive)
            yield replace(group, id=id)
            del group, id

    monkeypatch.setattr(groups, "read_row_groups", counted)
    before, arrow, seen = pa.total_allocated_bytes(), 0, 0
    for _ in stream(folder).order(0):
        seen += 1
        arrow = max(arrow, pa.total_allocated_bytes() - before)
    assert seen == 2700
    # The last few that were read are alive, too.
    assert BUFFER < most <= BUFFER + 4
    assert alive <= 2
    # Of twelve row groups: one, as it is in the file, decoded, and in the making.
    assert 0 < arrow < 4 * 256 * 2 * BYTES


def test_row_groups_are_read_in_the_order_asked_for(folder: Path) -> None:
    ids = [group.id for group in read_row_groups(folder, "train", [11, 1])]
    assert ids == [str(n) for n in (*range(2816, 3000), *range(256, 512))]
