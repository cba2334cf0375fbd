"""Groups that come in several calls, in one process. `replays` has several processes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from prefrm.errors import ConfigError
from prefrm.grpo.collector import Collector, Keyed
from prefrm.grpo.layout import Candidate


def judge(groups):
    """Each candidate's outcome: the images of its group, in their order."""
    return [[[row.content.decode() for row in rows]] * len(rows) for rows in groups]


def collector(judge=judge, size=4, group_timeout=30.0):
    return Collector(judge, size=size, group_timeout=group_timeout, advice="set this")


def items(text):
    """Candidates "a0 b1": the key of a group, and an image."""
    return [
        Keyed(key=word[0], candidate=Candidate(prompt="", content=word.encode())) for word in text.split()
    ]


def submit(executor, groups, text):
    return executor.submit(groups.outcomes, lambda: items(text))


def test_a_group_over_several_calls_whatever_their_order():
    groups = collector()
    with ThreadPoolExecutor(max_workers=3) as executor:
        calls = [submit(executor, groups, text) for text in ("a0 b1 a2", "b3 a4 b5", "b6 a7")]
        first, second, third = (call.result(timeout=10) for call in calls)
    assert sorted(first[0]) == ["a0", "a2", "a4", "a7"] and sorted(first[1]) == ["b1", "b3", "b5", "b6"]
    assert [first[0], first[1]] == [third[1], third[0]] == [second[1], second[0]]


def test_a_group_is_judged_once_and_as_soon_as_it_is_whole():
    asked = []

    def recording(groups):
        asked.append(len(groups))
        return judge(groups)

    groups = collector(recording, size=2)
    with ThreadPoolExecutor(max_workers=2) as executor:
        early = submit(executor, groups, "a0 b1")
        whole = submit(executor, groups, "c2 c3").result(timeout=10)
        assert whole == [["c2", "c3"]] * 2 and not early.done()
        submit(executor, groups, "b4 a5").result(timeout=10)
        assert early.result(timeout=10) == [["a0", "a5"], ["b1", "b4"]]
    assert asked == [1, 2]


def test_a_pool_with_too_few_threads_is_told_apart_from_a_slow_trainer():
    groups, started = collector(), time.monotonic()
    with ThreadPoolExecutor(max_workers=2) as executor:
        calls = [submit(executor, groups, f"a{n}") for n in range(4)]
        for call in calls[:2]:
            with pytest.raises(
                ConfigError, match=r"2 images of 'a' came.*all workers.*pool wait.*; set this$"
            ):
                call.result(timeout=10)
    # Those that began then fail as well: nothing keeps a failed run from exiting.
    assert [type(call.exception(timeout=10)) for call in calls[2:]] == [ConfigError] * 2
    assert time.monotonic() - started < 5


def test_group_timeout_ends_with_what_is_missing():
    def patient():
        collector(group_timeout=0.2).outcomes(lambda: items("a0 a1 a2"))

    with (
        ThreadPoolExecutor(max_workers=1) as executor,
        pytest.raises(
            ConfigError, match=r"3 images of 'a' came, .*group of 4, and no other call came within"
        ),
    ):
        executor.submit(patient).result(timeout=10)


def test_what_fails_in_one_call_fails_for_those_that_wait():
    """Nothing is left behind: the next group is whole without what came before."""

    def broken(groups):
        raise RuntimeError("the judge broke")

    groups, held = collector(broken, size=2), threading.Event()
    with ThreadPoolExecutor(max_workers=2) as executor:
        waiting = submit(executor, groups, "a0 b1")
        while not groups._calls:
            held.wait(0.01)
        failed = submit(executor, groups, "b2")
        for call in (waiting, failed):
            with pytest.raises(RuntimeError, match="the judge broke"):
                call.result(timeout=10)
        # What this one would wait for has failed.
        with pytest.raises(RuntimeError, match="the judge broke"):
            submit(executor, groups, "a3").result(timeout=10)
        groups._judge = judge
        assert groups.outcomes(lambda: items("a4 a5")) == [["a4", "a5"]] * 2
        calls = [submit(executor, groups, text) for text in ("a6", "a7")]
        assert [call.result(timeout=10) for call in calls] == [[["a6", "a7"]]] * 2


def test_no_candidates_at_all():
    assert collector().outcomes(list) == []
