"""How a process ends: the second signal always ends it, and no busy thread delays or spoils its exit."""

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TypeVar

__all__ = [
    "exit_process",
    "in_daemon_thread",
    "interruptible",
    "on_first_signal",
    "open_closed_streams",
    "stop_at_end",
]

T = TypeVar("T")


@contextmanager
def on_first_signal(numbers: Iterable[signal.Signals], action: Callable[[], object]) -> Iterator[None]:
    """Call `action` at the first of these signals during the block; a second one ends the process at once.

    On Linux with glibc a second signal of the same number needs no Python: it ends the process even if a
    thread holds the interpreter's lock. For the main thread only.
    """
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: FrameType | None) -> None:
        for each in before:
            _end_at_next(each)
        action()

    for number in before:
        signal.signal(number, handle)
        _reset_on_delivery(number)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the first Ctrl-C of the block; a second one or SIGTERM ends it."""
    terminate = signal.getsignal(signal.SIGTERM)
    if terminate is signal.SIG_DFL:
        _end_at_next(signal.SIGTERM)
    interrupts = [signal.SIGINT] if signal.getsignal(signal.SIGINT) is signal.default_int_handler else []
    try:
        with on_first_signal(interrupts, _interrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, terminate)


def stop_at_end(descriptor: int) -> None:
    """Send this process SIGTERM at the end of an open file, such as a pipe whose writers have all exited.

    A file that cannot be read counts as ended.
    """

    def watch() -> None:
        try:
            # Not through `sys.stdin`, whose lock would be held when the interpreter shuts down.
            with suppress(OSError):
                while os.read(descriptor, 4096):
                    pass
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-of-input", daemon=True).start()


def exit_process(status: int) -> NoReturn:
    """Exit with `status`; without finalizing the interpreter if daemon threads are alive.

    A daemon thread that returns from C++ code, such as torch's, to an interpreter that is being finalized
    aborts the process. What `atexit` registered runs in either case, and output is flushed.
    """
    # What is left takes no interruption.
    _end_at_next(signal.SIGINT)
    if any(thread.daemon for thread in threading.enumerate()):
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        os._exit(status)
    sys.exit(status)


def in_daemon_thread(function: Callable[[], T]) -> Future[T]:
    """Call `function` in a thread of its own, which delays no exit, unlike an executor's."""
    future: Future[T] = Future()
    # From now on a loop that stops cannot cancel it, but leaves it.
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def open_closed_streams() -> None:
    """Open /dev/null as each standard stream that is closed; `sys.stdout` and the others stay None.

    Otherwise the next socket or file gets the descriptor to which libraries write their messages.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one


def _interrupt() -> None:
    raise KeyboardInterrupt


def _end_at_next(number: int) -> None:
    """Let the signal end the process; the system's own action does, except for PID 1 of a container."""
    signal.signal(number, _exit_now if os.getpid() == 1 else signal.SIG_DFL)


def _exit_now(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _reset_on_delivery(number: int) -> None:
    """Have the system restore its own action as it delivers the signal (SA_RESETHAND), if libc is glibc."""
    if sys.platform != "linux" or os.getpid() == 1:
        return
    install = getattr(ctypes.CDLL(None), "sysv_signal", None)
    if install is not None:
        install.argtypes, install.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
        # Returns the handler that Python installed, which is then installed again with the flag.
        install(number, install(number, None))
