"""A value from files is read again in a thread: a read that hangs delays its users once, and shortly."""

import threading
import time

import pytest

from prefrm.access import reloading
from prefrm.access.reloading import Reloading


@pytest.fixture(autouse=True)
def read_at_once(monkeypatch):
    monkeypatch.setattr(reloading, "RECHECK_S", 0.0)


def test_a_read_that_hangs_leaves_the_last_value_in_use(until, caplog):
    gate, reads = threading.Event(), []

    def read(previous: int | None) -> int:
        reads.append(previous)
        if previous is not None:
            gate.wait(30)
        return len(reads)

    value = Reloading(read, what="the file", kept="the old value stays in use")
    started = time.monotonic()
    assert [value.latest() for _ in range(1000)] == [1] * 1000
    assert time.monotonic() - started < 10 * reloading.WAIT_S
    assert reads == [None, 1]
    assert caplog.messages == ["reading the file takes longer than 0.1 s; the old value stays in use"]
    gate.set()
    until(lambda: value.latest() > 1)
