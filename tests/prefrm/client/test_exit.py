"""Programs that end without closing a scorer print nothing about it, on any wire, whatever is under way."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator

import pytest

from prefrm.winmatrix import FakeScorer
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer

HEAD = """
import asyncio, atexit, io, os, sys, threading, time
from PIL import Image
from prefrm.client import connect, connect_async
from prefrm.winmatrix import Group

def image(value):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value,) * 3).save(file, "PNG")
    return file.getvalue()

def groups(prompt):
    return [Group(prompt=prompt, candidates=(image(3), image(9)))] * 3

async def score_with(judges, prompt="a"):
    return await asyncio.gather(*(judge.score(groups(prompt)) for judge in judges))

urls = sys.argv[1:]
judges, async_judges = [connect(url) for url in urls], [connect_async(url) for url in urls]
for judge in judges:
    judge.score(groups("a"))
# Whatever a module holds that was imported early outlives the modules that were imported late.
os.kept = judges, async_judges
"""
# As TRL has it: a loop on a daemon thread, stopped at the end and never closed.
LOOP_ON_A_THREAD = """
loop = asyncio.new_event_loop()
thread = threading.Thread(target=loop.run_forever, daemon=True)
thread.start()

def stop():
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=5)

atexit.register(stop)
asyncio.run_coroutine_threadsafe(score_with(async_judges), loop).result()
"""
ENDINGS = {
    "idle": "asyncio.run(score_with(async_judges))",
    "idle in a loop that is never closed": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(score_with(async_judges))
    """,
    "idle in a loop on a thread": LOOP_ON_A_THREAD,
    "closed by a finalizer": """
        class Holder:
            def __del__(self):
                for judge in judges:
                    judge.close()

        holder = Holder()
    """,
    "requests on threads": """
        for judge in judges:
            threading.Thread(target=judge.score, args=(groups("slow"),), daemon=True).start()
        time.sleep(0.3)
    """,
    "requests in a loop on a thread": LOOP_ON_A_THREAD
    + """
asyncio.run_coroutine_threadsafe(score_with(async_judges, "slow"), loop)
time.sleep(0.3)
""",
}


class Slow(FakeScorer):
    """Does not answer "slow" before it is let go."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, image: float(len(image)))
        self.go = threading.Event()

    def score(self, groups):
        if any(group.prompt == "slow" for group in groups):
            self.go.wait()
        return super().score(groups)


@pytest.fixture
def served() -> Iterator[Addresses]:
    scorer = Slow()
    with background(JudgeServer(scorer, ModelInfo(name="judge"))) as addresses:
        yield addresses
        scorer.go.set()


def start(served: Addresses, ending: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HEAD + textwrap.dedent(ending), served.grpc_url, served.http_url],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_closes_no_scorer_ends_silently(served: Addresses, ending: str):
    with start(served, ENDINGS[ending]) as program:
        _, errors = program.communicate(timeout=60)
    assert (program.returncode, errors) == (0, "")


INTERRUPTED = """
import signal
# A suite in the background ignores it, and its programs would.
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "judges[0].score(groups('slow'))",
        "judges[1].score(groups('slow'))",
        "asyncio.run(score_with(async_judges, 'slow'))",
    ],
)
def test_an_interrupted_program_reports_the_interruption_alone(served: Addresses, call: str):
    with start(served, INTERRUPTED + call) as program:
        assert program.stdout.readline() == "ready\n"
        time.sleep(0.3)
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    assert program.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert errors.count("Traceback") == 1 + errors.count("During handling of the above"), errors
