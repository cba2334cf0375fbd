"""The thread behind the blocking scorers: shared, interrupted, and forked while it works."""

import asyncio
import signal
import subprocess
import sys
import threading

import pytest

from prefrm.client import _portal, connect
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

FORKED = """
import os, sys, threading, time
from prefrm.client import connect
from prefrm.winmatrix import Group

slow, quick = (connect(url, deadline=20) for url in sys.argv[1:])

def score(judge, prompt):
    return judge.score([Group(prompt=prompt, candidates=(b"abc", b"def"))])[0].errors

own = score(quick, "p")
held = threading.Thread(target=score, args=(slow, "p"))
held.start()
time.sleep(0.3)
child = os.fork()
if child == 0:
    # As a program ends, and not as a worker does: whatever was inherited is finalized.
    sys.exit(0 if score(quick, "p") == own else 1)
assert os.waitpid(child, 0)[1] == 0, "the forked child"
# The child closed none of the sockets that its parent uses.
assert all(score(quick, "p") == own for _ in range(20)), "the parent afterwards"
print("opened", flush=True)
held.join()
"""


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_fork_in_the_middle_of_a_request_harms_neither_process(wire, served, slow):
    with background(JudgeServer(slow, ModelInfo(name="judge"))) as other:
        urls = [getattr(addresses, f"{wire}_url") for addresses in (other, served)]
        command = [sys.executable, "-c", FORKED, *urls]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
            said = program.stdout.readline()
            slow.gate.set()
            out, err = program.communicate(timeout=30)
    assert (said, out, program.returncode) == ("opened\n", "", 0)
    # gRPC says that it could not prepare for the fork while it waits for an answer.
    assert all("fork_posix" in line for line in err.splitlines()), err


def test_an_interruption_cancels_the_coroutine():
    begun, cancelled = threading.Event(), threading.Event()

    async def work():
        begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def interrupt():
        begun.wait(10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            _portal.run(work)
    finally:
        signal.signal(signal.SIGINT, handler)
    assert cancelled.wait(5)


def test_all_blocking_scorers_share_one_thread(served, pair):
    with connect(served.http_url) as one, connect(served.grpc_url) as other:
        one.score([pair])
        other.score([pair])
    assert sum(thread.name == "prefrm-client" for thread in threading.enumerate()) == 1
