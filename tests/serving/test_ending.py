"""`prefrm serve` with standard streams that take nothing, and its end while threads are busy."""

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from prefrm.client import connect
from prefrm.winmatrix import Group
from serving.server import Addresses

ROOT = Path(__file__).parents[2]
# Less than the minute for which a judge is busy, and enough for a machine that is.
PATIENCE_S = 40.0


@contextlib.contextmanager
def serving(bundle, *options, **streams):
    """A light server's process, and its addresses as a function that waits for them."""
    bundle.mkdir()
    file = bundle.parent / "address.json"
    ports = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]
    command = [sys.executable, "-m", "tests.serving.light_serve", str(bundle), *ports]
    process = subprocess.Popen([*command, f"--address-file={file}", *options], cwd=ROOT, **streams)

    def addresses():
        end = time.monotonic() + PATIENCE_S
        while not file.exists():
            assert process.poll() is None and time.monotonic() < end, "it did not start"
            time.sleep(0.01)
        return Addresses(**json.loads(file.read_text()))

    with process:
        try:
            yield process, addresses
        finally:
            process.kill()


@contextlib.contextmanager
def asked(url, prompt, png):
    """While the block runs, a client waits for an answer, which it does not get."""

    def score():
        with contextlib.suppress(ConnectionError, TimeoutError), connect(url, unavailable_timeout=0) as judge:
            judge.score([Group(prompt=prompt, candidates=(png(1), png(2)))])

    asking = threading.Thread(target=score)
    asking.start()
    yield
    asking.join()


@pytest.fixture
def sink():
    """Descriptors that take nothing: a full pipe that nobody reads, one without a reader, or a full disk."""
    opened = []

    def make(kind):
        if kind == "full disk":
            opened.append(os.open("/dev/full", os.O_WRONLY))
            return opened[-1]
        reading, writing = os.pipe()
        opened.append(writing)
        if kind == "no reader":
            os.close(reading)
            return writing
        opened.append(reading)
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ)))
        os.set_blocking(writing, True)
        return writing

    yield make
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize("kind", ["full pipe", "no reader", "full disk"])
def test_it_serves_and_ends_though_no_stream_takes_anything(kind, sink, tmp_path, png):
    out, err = sink(kind), sink(kind)
    with serving(tmp_path / "judge", stdout=out, stderr=err) as (process, addresses):
        at = addresses()
        for url in (at.grpc_url, at.http_url):
            with connect(url) as judge:
                assert judge.score([Group(prompt="x", candidates=(png(1), png(2)))])[0].valid.all()
        assert "prefrm_log_dropped_total" in httpx.get(at.metrics_url).text
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0


def test_closed_streams_are_nothing_to_it(tmp_path, png):
    # Else its first socket would be the standard output of every library.
    def close():
        os.close(1)
        os.close(2)

    with serving(tmp_path / "judge", preexec_fn=close) as (process, addresses):
        with connect(addresses().grpc_url) as judge:
            assert judge.score([Group(prompt="x", candidates=(png(1), png(2)))])[0].valid.all()
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (1, 2)] == [os.devnull] * 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0


def test_it_says_that_standard_output_takes_nothing(sink, tmp_path):
    out = sink("full disk")
    with serving(tmp_path / "judge", stdout=out, stderr=subprocess.PIPE, text=True) as (process, addresses):
        at = addresses()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    (line,) = [line for line in log.splitlines() if "WARNING" in line]
    assert "standard output cannot be written: No space left on device" in line
    assert at.http in log and at.grpc in log


@pytest.mark.slow  # imports torch in the server, too
def test_torch_at_work_beyond_the_drain_spoils_no_end(tmp_path, png, until):
    # The interpreter must not be finalized then: torch's thread would abort the process.
    begun = tmp_path / "begun"
    with (
        serving(
            tmp_path / "judge", "--set=limits.drain_s=0.1", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as (process, addresses),
        asked(addresses().http_url, f"torch {begun}", png),
    ):
        until(begun.exists)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert log.splitlines()[-1].endswith(b"serving.server: stopped")


def test_a_second_signal_ends_it_though_a_thread_holds_the_interpreter(tmp_path, png, until):
    with serving(tmp_path / "judge", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as (
        process,
        addresses,
    ):
        at = addresses()
        with asked(at.http_url, "gil", png):
            until(lambda: not answers(at))
            process.send_signal(signal.SIGTERM)
            until(lambda: is_delivered(signal.SIGTERM, process))
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=PATIENCE_S) == -signal.SIGTERM


def answers(at):
    try:
        return httpx.get(f"http://{at.http}/v2/health/live", timeout=0.5).is_success
    except httpx.TimeoutException:
        return False


def is_delivered(number, process):
    """Until then, a second signal of that number would be lost: pending signals are a set."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (pending,) = re.findall(r"^ShdPnd:\s*(\w+)$", status, re.M)
    return not int(pending, 16) >> number - 1 & 1


def test_a_second_ctrl_c_ends_it_while_it_loads(tmp_path, until):
    with serving(tmp_path / "slow", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as (process, _):
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGINT)
        until(lambda: is_delivered(signal.SIGINT, process))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=PATIENCE_S) == -signal.SIGINT
