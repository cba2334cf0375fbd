"""Which of a judge's replicas is asked next: what the client has seen of each. Sends nothing, sleeps nowhere.

A replica that failed or was full rests for a pause that grows with each failure in a row and is drawn at
random, so that many clients do not come back at once. Rest is advice: with nobody else to ask, a resting
replica is asked all the same. A pause that a server asked for is kept.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from prefrm.errors import ConfigError, DeadlineError, OverloadedError, ScoringError, ServerUnavailableError

__all__ = ["Replicas", "Turn", "backoff"]

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
LONGEST_REST_S = 30.0
# A server that asks for more than this is asked again all the same.
LONGEST_PAUSE_S = 3600.0
# How much longer than a server asked for its clients stay away, at most: so that they come back one by one.
PAUSE_SPREAD = 0.5

# How old the knowledge of a replica's judge may be: one that is replaced between two calls breaks none.
IDENTITY_S = 10.0

Uniform = Callable[[float, float], float]
NEVER = float("-inf")


def backoff(failures: int, longest: float, uniform: Uniform) -> float:
    """Seconds to wait after so many earlier failures in a row: doubling, shortened by half at most."""
    return uniform(0.5, 1.0) * min(longest, FIRST_DELAY_S * 2.0 ** min(failures, 30))


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Leave to ask one replica once.

    Attributes:
        replica: its index.
        since: when it was given.
        unknown: whether it must first say which judge it serves.
    """

    replica: int
    since: float
    unknown: bool


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What was seen of one replica; times are those of the clock."""

    busy: int = 0
    failures: int = 0
    failed_at: float = NEVER
    rests_until: float = NEVER
    barred_until: float = NEVER
    error: ScoringError | None = None
    known_until: float = NEVER


@dataclass(slots=True)
class Replicas:
    """What one process has seen of all replicas; its threads share it.

    Each `Turn` that `take` or `take_resting` gives must be handed back once: to `answered`, `set_back` or
    `release`.
    """

    urls: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    uniform: Uniform = random.uniform
    _seen: list[_Seen] = field(init=False)
    _next: int = field(default=0, init=False)
    _judge: tuple[str, str | None] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self._seen = [_Seen() for _ in self.urls]

    def __len__(self) -> int:
        return len(self._seen)

    def awake(self) -> int:
        """How many do not rest."""
        now = self.clock()
        return sum(one.rests_until <= now for one in self._seen)

    def take(self) -> Turn | None:
        """A turn with the least busy replica that does not rest, in rotation; None if all rest."""
        with self._lock:
            now, count = self.clock(), len(self._seen)
            order = [(self._next + n) % count for n in range(count)]
            awake = [n for n in order if self._seen[n].rests_until <= now]
            if not awake:
                return None
            chosen = min(awake, key=lambda n: self._seen[n].busy)
            self._next = (chosen + 1) % count
            return self._turn(chosen, now)

    def take_resting(self) -> Turn | None:
        """A turn with the replica that rests the shortest; None if each has asked to be left alone."""
        with self._lock:
            now = self.clock()
            free = [n for n, one in enumerate(self._seen) if one.barred_until <= now]
            if not free:
                return None
            return self._turn(min(free, key=lambda n: self._seen[n].rests_until), now)

    def rest_s(self) -> float:
        """Seconds until one no longer rests; 0 if one does not."""
        return max(0.0, min(one.rests_until for one in self._seen) - self.clock())

    def bar_s(self) -> float:
        """Seconds until one may be asked at all; 0 if one may."""
        return max(0.0, min(one.barred_until for one in self._seen) - self.clock())

    def answered(self, turn: Turn) -> None:
        """It answered as it should: it is well, unless it failed after this turn was given."""
        with self._lock:
            one = self._seen[turn.replica]
            one.busy -= 1
            if turn.since >= one.failed_at:
                one.failures, one.rests_until = 0, one.barred_until
                if one.barred_until <= self.clock():
                    one.error = None

    def set_back(self, turn: Turn, error: ScoringError, pause: float | None) -> None:
        """It did not answer, was not ready or was full, and may have asked for a pause of so many seconds."""
        with self._lock:
            one, now = self._seen[turn.replica], self.clock()
            one.busy -= 1
            # Without its traceback, which would keep the request's images and its connection.
            one.error = type(error)(str(error))
            # Requests that were under way together fail together: that is one failure.
            if turn.since >= one.failed_at:
                rest = backoff(one.failures, LONGEST_REST_S, self.uniform)
                if isinstance(error, DeadlineError):
                    # Asking it again might cost as much time again.
                    rest = max(rest, min(LONGEST_REST_S, now - turn.since))
                one.rests_until = now + rest
                one.failures += 1
                one.failed_at = now
            if pause is not None:
                longer = min(pause, LONGEST_PAUSE_S) * self.uniform(1.0, 1.0 + PAUSE_SPREAD)
                one.barred_until = max(one.barred_until, now + longer)
                one.rests_until = max(one.rests_until, one.barred_until)
            if isinstance(error, ServerUnavailableError):
                # Whoever comes back may be another.
                one.known_until = NEVER

    def release(self, turn: Turn) -> None:
        """The turn came to nothing that says how the replica is."""
        with self._lock:
            self._seen[turn.replica].busy -= 1

    def identify(self, turn: Turn, judge: str | None) -> None:
        """It says which judge it serves; None if it does not know.

        Raises:
            ConfigError: that is another judge than the first that was asked, or than it served before.
        """
        with self._lock:
            url = self.urls[turn.replica]
            if self._judge is None:
                self._judge = (url, judge)
            elif judge != self._judge[1]:
                raise _other_judge(self._judge, (url, judge))
            self._seen[turn.replica].known_until = self.clock() + IDENTITY_S

    def errors(self) -> list[ScoringError]:
        """What each replica that is not well said last."""
        return [one.error for one in self._seen if one.error is not None]

    def verdict(self) -> ScoringError:
        """The error to raise when there is nobody left to ask; at least one replica is not well."""
        errors = self.errors()
        if len(self._seen) == 1:
            return errors[0]
        kinds = {type(error) for error in errors}
        mixed = OverloadedError if OverloadedError in kinds else ServerUnavailableError
        kind = kinds.pop() if len(kinds) == 1 else mixed
        said = "; ".join(str(error) for error in errors)
        return kind(f"none of {len(self._seen)} replicas could answer: {said}")

    def _turn(self, replica: int, now: float) -> Turn:
        one = self._seen[replica]
        one.busy += 1
        return Turn(replica=replica, since=now, unknown=one.known_until <= now)


def _other_judge(first: tuple[str, str | None], second: tuple[str, str | None]) -> ConfigError:
    (where, judge), (there, other) = first, second
    names = [name or "a judge without a name" for name in (judge, other)]
    if where == there:
        return ConfigError(
            f"{there} now serves {names[1]}, but served {names[0]} before; serve the same bundle there, "
            "or connect anew if the change is meant"
        )
    return ConfigError(
        f"the replicas serve different judges: {where} serves {names[0]}, {there} serves {names[1]}; "
        "serve the same bundle everywhere"
    )
