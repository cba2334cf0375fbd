import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from prefrm.records import Comparison, PreferenceGroup, count_row_groups, read_row_groups, write_groups
from prefrm.train import streaming
from prefrm.train.examples import load_examples
from prefrm.train.streaming import StreamedExamples

GROUPS, BUFFER, BYTES = 3000, 20, 2048


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve row groups of random bytes, 12 MB in all; some records compare nothing."""
    folder = tmp_path_factory.mktemp("stream")
    random = np.random.default_rng(0)

    def groups() -> Iterator[PreferenceGroup]:
        for n in range(GROUPS):
            comparisons = (Comparison(i=0, j=1, p=n / GROUPS, weight=1.0 + n),) if n % 10 else ()
            images = (random.bytes(BYTES), random.bytes(BYTES))
            yield PreferenceGroup(id=str(n), prompt=f"p{n}", images=images, comparisons=comparisons)

    write_groups(groups(), folder, "train")
    assert count_row_groups(folder, "train") == 12
    return folder


def stream(folder: Path, unit: Any = "pair") -> StreamedExamples:
    size = GROUPS * 9 // 10 * (2 if unit == "pair" else 1)
    return StreamedExamples(folder, "train", unit=unit, size=size, buffer=BUFFER)


def key(example: Any) -> tuple[Any, ...]:
    return (example["id"], example["images"][0][:8], *example["p"], *example["weight"])


@pytest.mark.parametrize("unit", ["pair", "group"])
def test_an_epoch_has_what_the_stored_examples_have(folder: Path, unit: Any, tmp_path: Path) -> None:
    stored = load_examples(folder, "train", unit=unit, cache=tmp_path)
    streamed = stream(folder, unit)
    epoch = list(streamed.order(0))
    assert len(epoch) == len(streamed) == len(stored)
    assert Counter(map(key, epoch)) == Counter(map(key, stored.fetch(range(len(stored)))))
    assert streamed.fetch(epoch[:2]) == epoch[:2]


def test_an_order_is_of_its_seed_and_can_be_entered_anywhere(folder: Path) -> None:
    epoch = [key(example) for example in stream(folder).order(1)]
    assert [key(example) for example in stream(folder).order(1, skip=700)] == epoch[700:]
    assert [key(example) for example in islice(stream(folder).order(2), 50)] != epoch[:50]
    # Neither row groups nor the records in them come one after the other.
    records = [int(record) for record, *_ in epoch]
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

    monkeypatch.setattr(streaming, "read_row_groups", counted)
    before, arrow, seen = pa.total_allocated_bytes(), 0, 0
    for _ in stream(folder).order(0):
        seen += 1
        arrow = max(arrow, pa.total_allocated_bytes() - before)
    assert seen == 5400
    # A record is two examples; it is alive while one of them waits, and so are the last few that were read.
    assert BUFFER // 2 < most <= BUFFER + 4
    assert alive <= 2
    # Of twelve row groups: one, as it is in the file, decoded, and in the making.
    assert 0 < arrow < 4 * 256 * 2 * BYTES


def test_row_groups_are_read_in_the_order_asked_for(folder: Path) -> None:
    ids = [group.id for group in read_row_groups(folder, "train", [11, 1])]
    assert ids == [str(n) for n in (*range(2816, 3000), *range(256, 512))]
