"""What the processes of a training run tell each other, as bytes; one process needs no torch for it.

Nothing is pickled: bytes travel as uint8 tensors after their lengths. A process that failed tells the others
instead of leaving them to wait, so a failure anywhere is raised everywhere.
"""

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from prefrm.errors import ScoringError

__all__ = ["Ranks", "attempt"]

OK, FAILED = b"\0", b"\1"


T = TypeVar("T")


def attempt(work: Callable[[], T]) -> T | Exception:
    """What `work` returns, or the exception that it raises: what `Ranks.share` and `Ranks.deal` take."""
    try:
        return work()
    except Exception as error:
        return error


class Ranks:
    """The processes of the initialised default process group, or this process alone.

    Every instance talks over a gloo group of its own, so that two of them may be in use at once, on
    threads, without mistaking each other's messages, and so that no message passes through a GPU.
    A pickled copy starts afresh.
    """

    def __init__(self) -> None:
        self._world: Any = None
        self._group: list[Any] = []
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._turns = weakref.WeakKeyDictionary()
        # A gloo thread that is still alive when the interpreter goes aborts the process.
        weakref.finalize(self, _close, self._group)

    def __reduce__(self) -> tuple[type["Ranks"], tuple[()]]:
        return Ranks, ()

    @property
    def alone(self) -> bool:
        """Whether this process is the only one."""
        return _distributed() is None

    @property
    def count(self) -> int:
        """How many processes there are."""
        dist = _distributed()
        return 1 if dist is None else int(dist.get_world_size())

    def join(self) -> int:
        """This process's rank. All processes call it in the same order; the first call opens the group."""
        dist = _distributed()
        if dist is None:
            return 0
        if self._world is not dist.group.WORLD:
            _close(self._group)
            self._world = dist.group.WORLD
            self._group.append(dist.new_group(backend="gloo"))
        return int(dist.get_rank())

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One call at a time of those on an event loop, in the order in which they get here.

        The exchanges of two calls over one group would be mistaken for each other. Those of a process that is
        alone are none, and its calls run side by side.
        """
        if self.alone:
            yield
            return
        async with self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            yield

    def share(self, local: bytes | Exception) -> list[bytes]:
        """Give `local` to every process and return what all of them gave, by rank. Raises as `deal` does."""
        return self.deal(local if isinstance(local, Exception) else [local] * self.count)

    def deal(self, parts: Sequence[bytes] | Exception) -> list[bytes]:
        """Send `parts[r]` to the process of rank r, and return what each process sent here, by rank.

        Raises:
            Exception: `parts` itself, if it is one.
            ScoringError: another process gave an exception; names the rank and what went wrong there.
        """
        self.join()
        if isinstance(parts, Exception):
            messages = [FAILED + _describe(parts)] * self.count
        else:
            messages = [OK + part for part in parts]
        received = messages if self.alone else _all_to_all(messages, self._group[0])
        if isinstance(parts, Exception):
            raise parts
        for rank, message in enumerate(received):
            if message[:1] == FAILED:
                raise ScoringError(f"rank {rank} failed: {message[1:].decode()}")
        return [message[1:] for message in received]


def _distributed() -> Any | None:
    # A process group can exist only where torch.distributed has been imported already.
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    return dist


def _close(groups: list[Any]) -> None:
    while groups:
        # A group that went with the world it belonged to is no longer known.
        with contextlib.suppress(ValueError):
            sys.modules["torch.distributed"].destroy_process_group(groups.pop())


def _describe(error: Exception) -> bytes:
    return f"{type(error).__name__}: {error}".encode(errors="backslashreplace")


def _all_to_all(messages: Sequence[bytes], group: Any) -> list[bytes]:
    import torch
    import torch.distributed as dist

    lengths = [len(message) for message in messages]
    expected = torch.empty(len(messages), dtype=torch.int64)
    dist.all_to_all_single(expected, torch.tensor(lengths), group=group)
    received = torch.empty(int(expected.sum()), dtype=torch.uint8)
    dist.all_to_all_single(
        received,
        torch.frombuffer(bytearray(b"".join(messages)), dtype=torch.uint8),
        expected.tolist(),
        lengths,
        group=group,
    )
    return [part.numpy().tobytes() for part in received.split(expected.tolist())]
