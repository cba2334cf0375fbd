"""What holds for every test: one thread for torch, default signals in children, and a budget of seconds."""

import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Before anything imports torch, and for every process that a test starts: workers of pytest-xdist share the
# cores, and how many threads share a sum decides its last bit.
os.environ["OMP_NUM_THREADS"] = "1"

# By the clock on the wall, a deadline fails a test whenever the machine is busy.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

SLOW_S = 5.0
_STALLS = Path("/proc/pressure/cpu")
_seconds = pytest.StashKey[float]()


def _now() -> float:
    """A clock, in seconds, that stands still while a process waits for a core (where Linux measures that).

    So a busy machine does not make a test slow. Sleeps and waiting for a socket count.
    """
    stalled = 0.0
    # A kernel that was started without this measurement may have the file and refuse to read it.
    with suppress(OSError):
        stalled = int(_STALLS.read_text().partition("total=")[2].split()[0]) / 1e6
    return time.monotonic() - stalled


@pytest.fixture(scope="session", autouse=True)
def signals_of_children() -> None:
    """Give children the default actions of SIGINT and SIGHUP where this process was told to ignore them.

    `nohup` and a shell's `&` ignore signals, and programs inherit that. A handler, too, makes nothing of the
    signal here, but the system resets it in a program that is started.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """Logging is as it was once a test has run the command, which sets it up for its process."""
    loggers = [logging.getLogger(name) for name in (None, "serving", "prefrm")]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers[:]
    yield
    # A thread writes the log of a server's command.
    for handler in loggers[0].handlers:
        handler.flush()
    logging.captureWarnings(False)
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition that another thread or process brings about."""

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "it never came about"
            time.sleep(0.01)

    return wait


@pytest.fixture
def default_signals() -> Iterator[None]:
    """Python's own actions of SIGINT and SIGHUP in this process, for a test that sends them to it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    yield from _counted(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    yield from _counted(item)


def _counted(item: pytest.Item) -> Iterator[Any]:
    started = _now()
    try:
        return (yield)
    finally:
        item.stash[_seconds] = item.stash.get(_seconds, 0.0) + _now() - started


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A fixture that several tests share is the cost of none of them."""
    started = _now()
    result = yield
    if fixturedef.scope != "function":
        item = request._pyfuncitem
        item.stash[_seconds] = item.stash.get(_seconds, 0.0) - (_now() - started)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """A test above the budget fails unless it is marked `slow`."""
    report = yield
    seconds = item.stash.get(_seconds, 0.0)
    if report.when == "call" and report.passed and seconds > SLOW_S and not item.get_closest_marker("slow"):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} took {seconds:.1f} s, more than {SLOW_S:g}: make it quicker, share what it "
            "sets up through a fixture, or mark it `slow`"
        )
    return report


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collection; a full one otherwise takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Iterator[Any]:
    """What a test printed may hold lone surrogates, which pytest-xdist cannot send."""
    return _printable((yield))


def _printable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode("utf-8")
        case dict():
            return {key: _printable(one) for key, one in value.items()}
        case list() | tuple():
            return [_printable(one) for one in value]
    return value
