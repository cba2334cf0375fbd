"""Groups whose candidates come in several calls, on threads, over several processes.

Calls are never matched with each other. Each candidate has a group key, made of its content, and a group is
whole as soon as `size` candidates with its key have come, whichever calls and processes brought them. So the
order in which calls arrive does not matter, nor over how many of them a group is spread.

Processes meet in rounds, with one call of each process a round. All of them learn all keys of the round, so
all agree on which groups are whole; an image goes only to the process that scores its group.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import thread as pools
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from prefrm.errors import ConfigError
from prefrm.grpo.layout import Candidate, pack, unpack
from prefrm.grpo.ranks import Ranks, attempt

__all__ = ["Collector", "Keyed", "Partial"]

POLL_S = 0.1
# A pool that has just been given a call has not started a thread for it yet.
STUCK_S = 1.0
# The queue of its pool for each worker thread. It is private to the standard library, which has no public way
# to ask for it. Without it, calls that wait in a pool that is too small fail after `group_timeout`.
POOL_QUEUES: Mapping[threading.Thread, Any] = getattr(pools, "_threads_queues", {})

T = TypeVar("T")
Judge = Callable[[list[list[Candidate]]], list[list[Any]]]


class Keyed(NamedTuple):
    """A candidate and the key of its group."""

    key: str
    candidate: Candidate


class Partial(Generic[T]):
    """Items by group key, each group until it is whole."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._items: dict[str, list[T]] = {}

    def add(self, key: str, item: T) -> list[T] | None:
        """The `size` items of the group that `item` completes, in the order in which they came; else None."""
        items = self._items.setdefault(key, [])
        items.append(item)
        return self._items.pop(key) if len(items) == self.size else None

    def count(self, key: str) -> int:
        """How many items of an incomplete group have come."""
        return len(self._items.get(key, ()))

    def clear(self) -> None:
        """Give up all groups."""
        self._items.clear()


class _Place(NamedTuple):
    """Where a candidate came from: the process, its number of the call, and the place in the call."""

    rank: int
    call: int
    n: int


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """A call, until each of its candidates has an outcome."""

    number: int
    keys: list[str]
    thread: threading.Thread
    outcomes: dict[int, Any] = field(default_factory=dict)
    failure: Exception | None = None

    @property
    def waits(self) -> bool:
        return self.failure is None and len(self.outcomes) < len(self.keys)


class Collector:
    """Collects candidates into groups of `size` over calls, threads and processes.

    All processes make equally many calls. What fails in one call fails on all processes and for every call
    that waits. Later calls fail too, unless they bring whole groups: what they would wait for may be what
    failed. A process that gives a group up between two rounds fails the next round, so that the others give
    it up as well. Candidates of one key beyond `size` make another group.

    Args:
        judge: called on one process for each whole group: takes groups of candidates, and gives for each
            group one JSON value for each candidate.
        size: the candidates of a group.
        group_timeout: seconds that calls wait for a further call of this process.
        advice: ends the message about a group that does not become whole: what to set in the trainer.
    """

    def __init__(self, judge: Judge, *, size: int, group_timeout: float, advice: str) -> None:
        self._judge = judge
        self._group_timeout = group_timeout
        self._advice = advice
        self._ranks = Ranks()
        self._changed = threading.Condition()
        self._count = 0
        self._calls: dict[int, _Call] = {}
        self._arrived = 0.0
        self._failure: Exception | None = None
        self._untold: Exception | None = None
        self._groups = 0
        self._owners: dict[str, int] = {}
        self._partial: Partial[_Place] = Partial(size)
        self._candidates: dict[_Place, Candidate] = {}

    def outcomes(self, make: Callable[[], Sequence[Keyed]]) -> list[Any]:
        """What the judge gives for each candidate of this call, once all of their groups are whole.

        Args:
            make: makes the candidates; an exception that it raises is raised on all processes.

        Raises:
            ConfigError: a group does not become whole.
            ScoringError: another process failed.
        """
        # Outside the lock: calls encode their images side by side.
        made = attempt(make)
        keys = [] if isinstance(made, Exception) else [item.key for item in made]
        with self._changed:
            self._count += 1
            call = _Call(number=self._count, keys=keys, thread=threading.current_thread())
            self._calls[call.number] = call
            self._advance(call, made)
            self._wait(call)
            del self._calls[call.number]
        if call.failure is not None:
            raise call.failure
        return [call.outcomes[n] for n in range(len(keys))]

    def _advance(self, call: _Call, made: Sequence[Keyed] | Exception) -> None:
        """Hold a round; then the call has its outcomes, has failed, or waits."""
        try:
            self._round(call.number, made)
        except Exception as error:
            call.failure = error
            self._give_up(error)
        if call.failure is None and not call.waits:
            self._failure = None
        self._arrived = time.monotonic()
        self._changed.notify_all()

    def _round(self, number: int, made: Sequence[Keyed] | Exception) -> None:
        """Exchange one call of each process, and score the groups that are whole now."""
        rank, world = self._ranks.join(), self._ranks.count
        if self._untold is not None:
            made, self._untold = self._untold, None
        header = attempt(lambda: json.dumps([number, [item.key for item in _checked(made)]]).encode())
        sent: list[list[Candidate]] = [[] for _ in range(world)]
        coming: list[list[_Place]] = [[] for _ in range(world)]
        whole: list[list[_Place]] = []
        for source, (call, keys) in enumerate(map(json.loads, self._ranks.share(header))):
            for n, key in enumerate(keys):
                owner = self._owner(key, world)
                if source == rank:
                    sent[owner].append(_checked(made)[n].candidate)
                place = _Place(source, call, n)
                if owner == rank:
                    coming[source].append(place)
                if group := self._partial.add(key, place):
                    del self._owners[key]
                    whole += [group] if owner == rank else []
        for places, packed in zip(coming, self._ranks.deal([pack(part) for part in sent]), strict=True):
            self._candidates.update(zip(places, unpack(packed), strict=True))
        answers = self._ranks.deal(attempt(lambda: self._judged(whole, world)))
        for call, n, outcome in (answer for data in answers for answer in json.loads(data)):
            self._calls[call].outcomes[n] = outcome

    def _owner(self, key: str, world: int) -> int:
        """The process that scores the next group of this key: each in turn, the same on all processes."""
        if key not in self._owners:
            self._owners[key] = self._groups % world
            self._groups += 1
        return self._owners[key]

    def _judged(self, whole: Sequence[Sequence[_Place]], world: int) -> list[bytes]:
        """For each process, the outcomes of its candidates among these groups, as JSON."""
        groups = [[self._candidates.pop(place) for place in places] for places in whole]
        parts: list[list[tuple[int, int, Any]]] = [[] for _ in range(world)]
        for places, outcomes in zip(whole, self._judge(groups) if groups else [], strict=True):
            for place, outcome in zip(places, outcomes, strict=True):
                parts[place.rank].append((place.call, place.n, outcome))
        return [json.dumps(part).encode() for part in parts]

    def _wait(self, call: _Call) -> None:
        free = time.monotonic()
        while call.waits:
            now = time.monotonic()
            free = free if self._exhausted(call) else now
            if call.thread is threading.main_thread():
                self._stop_waiting(self._incomplete(call, "no other call can come while this one waits"))
            elif self._failure is not None:
                self._stop_waiting(self._failure)
            elif now - free > STUCK_S:
                reason = "all workers of the trainer's thread pool wait, so that its next call cannot begin"
                self._stop_waiting(self._incomplete(call, reason))
            elif now - self._arrived > self._group_timeout:
                reason = f"no other call came within {self._group_timeout:g} s"
                self._stop_waiting(self._incomplete(call, reason))
            else:
                self._changed.wait(POLL_S)

    def _exhausted(self, call: _Call) -> bool:
        """Whether all threads of the call's pool wait here, while it has further calls to start."""
        queue = POOL_QUEUES.get(call.thread)
        if queue is None or queue.empty():
            return False
        waiting = {other.thread for other in self._calls.values() if other.waits}
        workers = {thread for thread in threading.enumerate() if POOL_QUEUES.get(thread) is queue}
        return workers <= waiting

    def _incomplete(self, call: _Call, reason: str) -> ConfigError:
        key = next(key for n, key in enumerate(call.keys) if n not in call.outcomes)
        return ConfigError(
            f"{self._partial.count(key)} images of {key[:60]!r} came, which are not a whole group of "
            f"{self._partial.size}, and {reason}; {self._advice}"
        )

    def _stop_waiting(self, error: Exception) -> None:
        """Give up between two rounds, which the other processes learn in the next."""
        self._give_up(error)
        if not self._ranks.alone:
            self._untold = error

    def _give_up(self, error: Exception) -> None:
        self._failure = error
        for call in self._calls.values():
            if call.waits:
                call.failure = error
        self._partial.clear()
        self._owners.clear()
        self._candidates.clear()
        self._changed.notify_all()


def _checked(made: Sequence[Keyed] | Exception) -> Sequence[Keyed]:
    if isinstance(made, Exception):
        raise made
    return made
