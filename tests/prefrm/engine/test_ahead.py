"""Results that threads compute ahead."""

import threading
from contextlib import closing

import pytest

from prefrm.engine.ahead import map_ahead


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order(threads: int):
    assert list(map_ahead(lambda n: n * n, range(50), threads)) == [n * n for n in range(50)]
    assert list(map_ahead(str, [], threads)) == []


def test_results_are_computed_by_threads_while_others_are_taken():
    """The first result is not taken before the second item is begun, which needs another thread."""
    begun = threading.Event()

    def compute(n: int) -> str:
        if n == 0:
            assert begun.wait(timeout=5)
        if n == 1:
            begun.set()
        return threading.current_thread().name

    names = list(map_ahead(compute, range(4), threads=2))
    assert threading.current_thread().name not in names
    assert set(map_ahead(compute, range(1, 4), threads=0)) == {threading.current_thread().name}


def test_few_results_are_ahead():
    drawn: list[int] = []
    results = map_ahead(lambda n: n, (drawn.append(n) or n for n in range(100)), threads=2)
    with closing(results):
        for taken in range(10):
            assert next(results) == taken
            assert len(drawn) == taken + 5


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_comes_in_the_place_of_its_result(threads: int):
    def compute(n: int) -> int:
        if n == 3:
            raise ValueError("no third")
        return n

    results = map_ahead(compute, range(100), threads)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="no third"):
        next(results)


def test_who_stops_early_leaves_no_thread():
    results = map_ahead(lambda n: n, range(100), threads=2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefrm-ahead")]
