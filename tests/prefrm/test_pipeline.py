"""Streams of batches: order, overlap, bounded memory, failures and early ends."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest

from prefrm.errors import OutOfMemoryError, ProtocolError, ScoringError
from prefrm.pipeline import batched, prefetch, score_batches
from prefrm.winmatrix import FakeScorer, Group


def group(n):
    return Group(prompt=str(n), candidates=(b"a", b"b" * (n + 2)))


def batches(count, drawn=None):
    for n in range(count):
        if drawn is not None:
            drawn.append(n)
        yield [group(2 * n), group(2 * n + 1)]


class Local:
    """Judges by an image's length; notes the thread of each call."""

    def __init__(self):
        self.threads = []

    def score(self, groups):
        self.threads.append(threading.current_thread())
        return FakeScorer(lambda prompt, image: len(image) / 9).score(groups)


class Remote(Local):
    """A scorer for several calls at once, each of which takes a random time."""

    concurrency = 4

    def score(self, groups):
        time.sleep(np.random.default_rng(int(groups[0].prompt)).uniform(0, 0.01))
        return super().score(groups)


def run(scorer, items):
    return list(score_batches(scorer, items, list))


@pytest.mark.parametrize("kind", [Local, Remote])
def test_every_batch_has_its_own_matrices_in_order(kind):
    answers = run(kind(), batches(30))
    assert [[one.prompt for one in batch] for batch, _ in answers] == [
        [str(2 * n), str(2 * n + 1)] for n in range(30)
    ]
    for batch, matrices in answers:
        assert all(m.equals(own) for m, own in zip(matrices, Local().score(batch), strict=True))


class Costed(Local):
    """A scorer whose cost is what a group's images have, in bytes."""

    call_cost = 100

    def cost(self, group):
        return sum(map(len, group.encoded))


@pytest.mark.parametrize(
    ("scorer", "batch", "sizes"),
    [
        (Costed(), None, [16, 16, 9, 1, 1, 1]),
        (Costed(), 20, [20, 20, 4]),
        (Local(), None, [16, 16, 12]),
        (Remote(), None, [8, 8, 8, 8, 8, 4]),
    ],
    ids=["costed", "given", "local", "remote"],
)
def test_a_call_has_as_many_groups_as_are_worth_one(scorer, batch, sizes):
    """Of 41 small groups, of which at most 16 go together, and three that are large."""
    items = [Group(prompt="p", candidates=(b"a", b"b" * n)) for n in (*[2] * 41, *[99] * 3)]
    found = list(batched(scorer, iter(items), list, batch))
    assert [len(some) for some in found] == sizes
    assert [one for some in found for one in some] == items


def test_several_groups_of_an_item_cost_together():
    group = Group(prompt="p", candidates=(b"a" * 10, b"b" * 10))
    found = batched(Costed(), [1, 2, 3, 1], lambda some: [group] * sum(some))
    assert list(found) == [[1, 2], [3, 1]]


def test_a_local_scorer_is_called_in_the_callers_thread():
    scorer = Local()
    run(scorer, batches(3))
    assert set(scorer.threads) == {threading.current_thread()}


def test_the_next_batch_is_read_while_a_local_scorer_works():
    second_is_drawn = threading.Event()

    class Waiting(Local):
        def score(self, groups):
            assert second_is_drawn.wait(30)
            return super().score(groups)

    def source():
        yield [group(0)]
        second_is_drawn.set()
        yield [group(1)]

    assert len(run(Waiting(), source())) == 2


def test_a_remote_scorer_has_as_many_calls_under_way_as_it_wants():
    together = threading.Barrier(4)

    class Meeting(Remote):
        def score(self, groups):
            together.wait(30)
            return super().score(groups)

    assert len(run(Meeting(), batches(8))) == 8


@pytest.mark.parametrize(("kind", "most"), [(Local, 2), (Remote, 2 * 4 + 2)])
def test_what_is_drawn_is_bounded_by_what_is_done(kind, most):
    drawn, done = [], 0
    with closing(score_batches(kind(), batches(40, drawn), list)) as scored:
        for _ in scored:
            time.sleep(0.002)
            assert len(drawn) - done <= most
            done += 1
    assert done == 40


@pytest.mark.parametrize("kind", [Local, Remote])
def test_a_failure_comes_in_its_place_and_ends_the_work(kind):
    class Failing(kind):
        def score(self, groups):
            if groups[0].prompt == "6":
                raise ScoringError("no answer")
            return super().score(groups)

    scorer, done = Failing(), []
    with pytest.raises(ScoringError, match="no answer"):
        for batch, _ in score_batches(scorer, batches(100), list):
            done.append(batch[0].prompt)
    assert done == ["0", "2", "4"]
    calls = len(scorer.threads)
    time.sleep(0.05)
    assert len(scorer.threads) - calls <= 4 and calls < 20


@pytest.mark.parametrize("kind", [Local, Remote])
def test_what_the_source_raises_is_raised(kind):
    def source():
        yield from batches(2)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        run(kind(), source())


@pytest.mark.parametrize("kind", [Local, Remote])
def test_an_early_end_leaves_no_thread_at_work(kind):
    before = set(threading.enumerate())
    with closing(score_batches(kind(), batches(1000), list)) as scored:
        next(scored)
    end = time.monotonic() + 30
    while set(threading.enumerate()) - before:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_source_that_hangs_does_not_hold_up_an_end(monkeypatch):
    monkeypatch.setattr("prefrm.pipeline.JOIN_S", 0.05)
    hold = threading.Event()

    def source():
        yield 1
        hold.wait(30)

    started = time.monotonic()
    with closing(prefetch(source(), 2)) as items:
        assert next(items) == 1
    assert time.monotonic() - started < 10
    hold.set()


def test_a_scorer_that_forgets_a_group_is_found_out():
    class Short(Local):
        def score(self, groups):
            return super().score(groups)[:-1]

    with pytest.raises(ProtocolError, match="answered with matrices of"):
        run(Short(), batches(1))


@pytest.mark.parametrize("kind", [Local, Remote])
def test_a_group_beyond_the_memory_is_not_judged_and_the_others_are(kind):
    class Small(kind):
        def score(self, groups):
            if sum(one.size for one in groups) > 4:
                raise OutOfMemoryError("the device is full")
            return super().score(groups)

    large = Group(prompt="9", candidates=(b"x",) * 5)
    ((_, matrices),) = run(Small(), [[group(0), large, group(1), group(2)]])
    assert [bool(matrix.known.all()) for matrix in matrices] == [True, False, True, True]
    assert matrices[1].errors == ("the group cannot be scored: the device is full",) * 5
