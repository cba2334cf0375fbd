"""What the processes of a training run tell each other, as bytes; one process needs no torch for it.

Nothing is pickled: bytes travel as padded uint8 tensors after their lengths. A process that failed tells
the others instead of leaving them to wait, so a failure anywhere is raised everywhere.
"""

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any

from prefrm.errors import ScoringError

__all__ = ["Ranks", "attempt"]

OK, FAILED = b"\0", b"\1"


def attempt(work: Callable[[], bytes]) -> bytes | Exception:
    """What `work` returns, or the exception that it raises: what `Ranks.share` wants."""
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
        """Give `local` to every process and return what all of them gave, by rank.

        Raises:
            Exception: `local` itself, if it is one.
            ScoringError: another process gave an exception; names the rank and what went wrong there.
        """
        self.join()
        message = FAILED + _describe(local) if isinstance(local, Exception) else OK + local
        messages = _all_gather(message, self._group[0]) if _distributed() else [message]
        if isinstance(local, Exception):
            raise local
        for rank, received in enumerate(messages):
            if received[:1] == FAILED:
                raise ScoringError(f"rank {rank} failed: {received[1:].decode()}")
        return [received[1:] for received in messages]


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


def _all_gather(message: bytes, group: Any) -> list[bytes]:
    import torch
    import torch.distributed as dist

    size = dist.get_world_size(group)
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(size)]
    dist.all_gather(lengths, torch.tensor([len(message)]), group=group)
    longest = max(int(length) for length in lengths)
    padded = torch.frombuffer(bytearray(message.ljust(longest, b"\0")), dtype=torch.uint8)
    received = [torch.zeros(longest, dtype=torch.uint8) for _ in range(size)]
    dist.all_gather(received, padded, group=group)
    return [data[: int(length)].numpy().tobytes() for data, length in zip(received, lengths, strict=True)]
