"""Over real wires: a server that falls silent, threads and connections that go, and Ctrl-C."""

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
from prefrm.errors import ScoringError, ServerUnavailableError
from prefrm.winmatrix import Group
from tests.prefrm.client.fakes import fake
from tests.prefrm.client.test_remote_scorers import WAYS


@pytest.mark.parametrize("way", WAYS)
def test_a_server_without_life_is_given_up_long_before_the_deadline(ask, way, monkeypatch, pair):
    monkeypatch.setattr("prefrm.client._core.LOOK_EVERY_S", 0.2)
    monkeypatch.setattr("prefrm.client._core.LOOK_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, fake(way.split()[0]) as good:
        url = f"{way.split()[0]}://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        assert ask(way, f"{url},{good.url.partition('://')[2]}", [pair] * 2)
        with pytest.raises(ServerUnavailableError, match=r"no sign of life|not available"):
            ask(way, f"{url}/judge", [pair], unavailable_timeout=0)
        assert time.monotonic() - started < 20


def test_the_threads_of_a_scorer_and_their_connections_go_with_it(png):
    def held():
        gc.collect()
        threads = sum(thread.name == "prefrm-client" for thread in threading.enumerate())
        return len(os.listdir("/proc/self/fd")), threads

    groups = [Group(prompt="p", candidates=(png(1, 4, 4), png(2, 4, 4)))] * 8
    with fake("http") as one, fake("http") as other:
        url = f"{one.url.removesuffix('/judge')},{other.url.partition('://')[2]}"
        before = None
        for _ in range(8):
            with connect(url) as judge, pytest.raises(ScoringError):
                judge.score([*groups, Group(prompt="too many", candidates=(b"x", b"y", b"z"))])
            with connect(url) as judge:
                judge.score(groups[:2])
            time.sleep(0.05)
            before = before or held()
        assert all(now <= then + 8 for now, then in zip(held(), before, strict=True))


INTERRUPTED = """
import sys
from prefrm.client import _core, connect
from prefrm.winmatrix import Group

_core.LOOK_EVERY_S = float(sys.argv[3])
judge = connect(sys.argv[1], deadline=60)
print("asking", flush=True)
try:
    judge.score([Group(prompt="p", candidates=(b"abc", b"def"))] * int(sys.argv[2]))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(("count", "look_every"), [(200, 10), (1, 0.1)])
def test_ctrl_c_ends_a_call_at_once_and_the_program_after_it(wire, count, look_every):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{wire}://127.0.0.1:{silent.getsockname()[1]}/judge"
        command = [sys.executable, "-c", INTERRUPTED, url, str(count), str(look_every)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline() == "asking\n"
            silent.settimeout(60)
            connection, _ = silent.accept()
            time.sleep(0.4)
            running.send_signal(signal.SIGINT)
            started = time.monotonic()
            try:
                out, err = running.communicate(timeout=20)
            finally:
                running.kill()
                connection.close()
    assert (out, err, running.returncode) == ("interrupted\n", "", 0)
    assert time.monotonic() - started < 5
