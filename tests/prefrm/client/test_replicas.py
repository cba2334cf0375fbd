"""Several replicas: calls spread over them, failover, one judge behind all; threads and interruptions."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from prefrm.client import connect
from prefrm.errors import (
    ConfigError,
    DeadlineError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.winmatrix import FakeScorer, Group
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.client.conftest import size_and_prompt
from tests.prefrm.client.fakes import both, fake
from tests.prefrm.client.test_remote_scorers import WAYS, agree, free_port, url_of

FULL, AWAY, GAVE_UP = "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"


class Counting(FakeScorer):
    """Counts groups, and is never done before its gate opens."""

    def __init__(self):
        super().__init__(size_and_prompt, first_bonus=0.25)
        self.groups, self.gate = 0, threading.Event()
        self.gate.set()

    def score(self, groups):
        self.groups += len(groups)
        assert self.gate.wait(30)
        return super().score(groups)


@pytest.fixture
def two():
    """Two real servers of the same judge: their scorers, and the URL of both for a way of asking."""
    scorers = [Counting(), Counting()]
    with contextlib.ExitStack() as stack:
        served = [stack.enter_context(background(JudgeServer(s, ModelInfo(name="judge")))) for s in scorers]

        def url(way):
            wire = way.split()[0]
            return f"{wire}://{','.join(getattr(one, wire) for one in served)}/judge"

        yield scorers, url
        for scorer in scorers:
            scorer.gate.set()


@pytest.mark.parametrize("way", WAYS)
class TestTwoReplicas:
    def test_one_call_is_spread_over_both_and_put_together_again(self, ask, way, two, scorer, mixed):
        scorers, url = two
        groups = mixed * 30
        assert agree(ask(way, url(way), groups), scorer.score(groups))
        assert sum(one.groups for one in scorers) == len(groups)
        assert min(one.groups for one in scorers) > len(groups) / 5

    def test_parts_are_under_way_on_both_at_once(self, ask, way, two, pair, until):
        scorers, url = two
        for one in scorers:
            one.gate.clear()

        def open_when_both_are_asked():
            until(lambda: all(one.groups for one in scorers))
            for one in scorers:
                one.gate.set()

        opener = threading.Thread(target=open_when_both_are_asked)
        opener.start()
        # Were one part sent after the other, the first would never be answered.
        assert len(ask(way, url(way), [pair] * 8, deadline=20)) == 8
        opener.join()

    def test_a_dead_one_costs_nothing_but_its_share(self, ask, way, scorer, pair):
        with background(JudgeServer(scorer, ModelInfo(name="judge"))) as served:
            wire = way.split()[0]
            url = f"{wire}://127.0.0.1:{free_port()},{getattr(served, wire)}/judge"
            # Without patience, whoever had to wait would fail.
            assert agree(ask(way, url, [pair] * 3, patience=0), scorer.score([pair] * 3))

    @pytest.mark.parametrize("code", [FULL, AWAY, GAVE_UP])
    def test_one_that_is_full_or_not_ready_is_passed_over(self, ask, way, pair, code):
        with fake(way.split()[0], always=(code, {})) as bad, fake(way.split()[0]) as good:
            assert len(ask(way, both(bad, good), [pair], patience=0, deadline=10)) == 1
            assert len(good.inferences) == 1

    def test_a_refusal_is_no_reason_to_ask_the_other(self, ask, way, pair):
        for code, error in (("UNAUTHENTICATED", RequestError), ("INTERNAL", ScoringError)):
            with (
                fake(way.split()[0], always=(code, {})) as one,
                fake(way.split()[0], always=(code, {})) as other,
            ):
                with pytest.raises(error, match=f"said {code}"):
                    ask(way, both(one, other), [pair])
                assert len(one.inferences + other.inferences) == 1

    def test_both_gone_is_one_error_that_names_both(self, ask, way, pair):
        ports = free_port(), free_port()
        url = f"{way.split()[0]}://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/judge"
        with pytest.raises(ServerUnavailableError, match="none of 2 replicas") as caught:
            ask(way, url, [pair], patience=0.2)
        assert all(f"127.0.0.1:{port}/judge is not available" in str(caught.value) for port in ports)

    def test_different_judges_are_a_mistake(self, ask, way, pair):
        with fake(way.split()[0], bundle="x") as one, fake(way.split()[0], bundle="y") as other:
            with pytest.raises(ConfigError, match="serve different judges") as caught:
                ask(way, both(one, other), [pair] * 2)
            assert one.url in str(caught.value) and other.url in str(caught.value)

    def test_each_says_once_who_it_is(self, way, ask, pair):
        with fake(way.split()[0]) as one, fake(way.split()[0]) as other:
            ask(way, both(one, other), [pair] * 1)
            assert len(one.seen) + len(other.seen) == 2


@pytest.fixture
def impatient(monkeypatch):
    """A client that looks after its servers many times a second."""
    for module in ("_scorer", "_async_scorer"):
        monkeypatch.setattr(f"prefrm.client.{module}.LOOK_EVERY_S", 0.2)
        monkeypatch.setattr(f"prefrm.client.{module}.LOOK_S", 0.5)


@pytest.mark.parametrize("way", WAYS)
class TestSilence:
    def test_a_server_without_life_is_given_up_long_before_the_deadline(self, ask, way, impatient, pair):
        with socket.create_server(("127.0.0.1", 0)) as silent, fake(way.split()[0]) as good:
            url = f"{way.split()[0]}://127.0.0.1:{silent.getsockname()[1]}/judge"
            started = time.monotonic()
            assert ask(way, f"{url.removesuffix('/judge')},{good.url.partition('://')[2]}", [pair] * 2)
            with pytest.raises(ServerUnavailableError, match=r"no sign of life|not available"):
                ask(way, url, [pair], patience=0)
            assert time.monotonic() - started < 20

    def test_a_server_that_lives_may_take_its_time(self, ask, way, impatient, slow, pair):
        opener = threading.Timer(1.5, slow.gate.set)
        with background(JudgeServer(slow, ModelInfo(name="judge"))) as served:
            opener.start()
            assert ask(way, url_of(way, served), [pair], patience=0)
            assert slow.calls == 1
            opener.join()

    def test_the_deadline_holds_while_it_looks(self, ask, way, impatient, monkeypatch, pair):
        for module in ("_scorer", "_async_scorer"):
            monkeypatch.setattr(f"prefrm.client.{module}.LOOK_S", 30.0)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            started = time.monotonic()
            with pytest.raises((DeadlineError, ServerUnavailableError)):
                ask(
                    way,
                    f"{way.split()[0]}://127.0.0.1:{silent.getsockname()[1]}/judge",
                    [pair],
                    deadline=0.6,
                    patience=0,
                )
            assert time.monotonic() - started < 3


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_who_never_answers_is_avoided_by_the_next_call(wire, pair):
    with socket.create_server(("127.0.0.1", 0)) as silent, fake(wire) as good:
        url = f"{wire}://127.0.0.1:{silent.getsockname()[1]},{good.url.partition('://')[2]}"
        with connect(url, deadline=1.0) as judge:
            with contextlib.suppress(DeadlineError):
                judge.score([pair])
            started = time.monotonic()
            assert all(judge.score([pair]) for _ in range(3))
    assert time.monotonic() - started < 1.0


def test_the_threads_of_a_scorer_and_their_connections_go_with_it(png):
    def held():
        gc.collect()
        threads = sum(thread.name == "prefrm-client" for thread in threading.enumerate())
        return len(os.listdir("/proc/self/fd")), threads

    groups = [Group(prompt="p", images=(png(1, 4, 4), png(2, 4, 4)))] * 8
    with fake("http") as one, fake("http") as other:
        before = None
        for _ in range(8):
            with connect(both(one, other)) as judge, pytest.raises(ScoringError):
                judge.score([*groups, Group(prompt="too many", images=(b"x", b"y", b"z"))])
            with connect(both(one, other)) as judge:
                judge.score(groups[:2])
            time.sleep(0.05)
            before = before or held()
        assert all(now <= then + 8 for now, then in zip(held(), before, strict=True))


INTERRUPTED = """
import sys
from prefrm.client import _scorer, connect
from prefrm.winmatrix import Group

_scorer.LOOK_EVERY_S = float(sys.argv[3])
judge = connect(sys.argv[1], deadline=60)
print("asking", flush=True)
try:
    judge.score([Group(prompt="p", images=(b"abc", b"def"))] * int(sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(("count", "look_every"), [(1, 10), (200, 10), (1, 0.1)])
def test_ctrl_c_ends_a_call_at_once_and_the_program_after_it(wire, count, look_every):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{wire}://127.0.0.1:{silent.getsockname()[1]}/judge"
        command = [sys.executable, "-c", INTERRUPTED, url, str(count), str(look_every)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline() == "asking\n"
            time.sleep(1.0)
            running.send_signal(signal.SIGINT)
            started = time.monotonic()
            try:
                out, err = running.communicate(timeout=20)
            finally:
                running.kill()
    assert (out, err, running.returncode) == ("interrupted\n", "", 0)
    assert time.monotonic() - started < 5
