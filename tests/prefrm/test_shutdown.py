"""How a process ends: by signals, at its end, and with standard streams that are closed."""

import signal
import subprocess
import sys

import pytest

SIGNALLED = """
import signal, sys, time
from prefrm.shutdown import on_first_signal
with on_first_signal((signal.SIGINT, signal.SIGTERM), lambda: print("first", flush=True)):
    print("ready", flush=True)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        time.sleep(0.01)
"""
# As of a container's first process, to which the system's own actions of signals do not apply.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"]


def test_a_second_signal_of_the_other_kind_ends_the_process():
    with subprocess.Popen([sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"first\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


@pytest.mark.skipif(
    sys.platform != "linux" or subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0,
    reason="needs namespaces of processes",
)
def test_a_second_signal_ends_the_first_process_of_a_container():
    with subprocess.Popen([*NAMESPACE, sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE) as outside:
        assert outside.stdout.readline() == b"ready\n"
        with open(f"/proc/{outside.pid}/task/{outside.pid}/children") as children:
            (process,) = map(int, children.read().split())
        for line in (b"first\n", b""):
            subprocess.run(["kill", "-TERM", str(process)], check=True)
            assert outside.stdout.readline() == line
        assert outside.wait(10) == 128 + signal.SIGTERM


def test_what_is_registered_for_the_end_runs_beside_a_daemon_thread():
    program = """
import atexit, threading, time
from prefrm.shutdown import exit_process
atexit.register(print, "registered")
threading.Thread(target=time.sleep, args=(20,), daemon=True).start()
print("printed")
exit_process(3)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "printed\nregistered\n", "")
