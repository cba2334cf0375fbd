"""A real server of a small judge, in a process of its own: `python served.py FOLDER NAME PORTS [HANG_AT]`.

It judges a picture by its bytes. At its HANG_AT-th call it writes FOLDER/NAME.hangs and answers no more, so
that it can be killed in the middle of a request; FOLDER/NAME.ready says that it listens.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from prefrm.winmatrix import FakeScorer


def utility(prompt, image):
    return sum(image) % 1009 / 300 - len(prompt) / 7


class HangingScorer(FakeScorer):
    def __init__(self, hang_at, sign):
        super().__init__(utility, first_bonus=0.25)
        self._left, self._sign = hang_at, sign

    def score(self, groups):
        self._left -= 1
        if self._left == 0:
            self._sign.touch()
            threading.Event().wait()
        return super().score(groups)


class Served:
    """Such a process, its addresses, and what can be done to it."""

    def __init__(self, folder, name):
        self._folder, self._name = folder, name
        self._ports = [free_port(), free_port()]
        self.process = None

    def url(self, wire):
        return f"{wire}://127.0.0.1:{self._ports[wire == 'http']}/judge"

    def start(self, hang_at=0):
        ready = self._folder / f"{self._name}.ready"
        ready.unlink(missing_ok=True)
        command = [
            sys.executable,
            __file__,
            str(self._folder),
            self._name,
            *map(str, self._ports),
            str(hang_at),
        ]
        self.process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        wait_for(lambda: ready.exists() or self.process.poll() is not None)
        assert ready.exists(), "the server did not start"

    def kill_when_it_hangs(self):
        wait_for((self._folder / f"{self._name}.hangs").exists)
        self.kill()

    def freeze_when_it_hangs(self):
        wait_for((self._folder / f"{self._name}.hangs").exists)
        self.process.send_signal(signal.SIGSTOP)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        assert self.process.wait(20) == -signal.SIGKILL


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.01)


@contextlib.contextmanager
def servers(folder, *names):
    """Not yet started; whatever still runs at the end is killed."""
    made = [Served(folder, name) for name in names]
    try:
        yield made
    finally:
        for one in made:
            if one.process is not None and one.process.poll() is None:
                one.kill()


def main(folder, name, grpc_port, http_port, hang_at):
    from serving.models import ModelInfo
    from serving.running import run
    from serving.server import JudgeServer

    scorer = HangingScorer(int(hang_at), Path(folder) / f"{name}.hangs")
    server = JudgeServer(scorer, ModelInfo(name="judge"), grpc_port=int(grpc_port), http_port=int(http_port))
    run(server, on_ready=lambda addresses: (Path(folder) / f"{name}.ready").touch())


if __name__ == "__main__":
    main(*sys.argv[1:])
