"""Which replica is asked when, how long to wait before it, and when to stop. Sends nothing and never sleeps.

Scoring has no side effects, so a request may be repeated: for `unavailable_timeout` when no server is
reachable or ready, until the deadline when the servers are full, never after a refusal or a failure.

A replica that failed or was full rests, longer after each failure in a row and for a random time, so that
many clients do not come back at once. Another one is asked without waiting. When all rest, a resting one is
asked all the same, but a pause that a server asked for is kept.
"""

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

from prefrm.errors import ConfigError, DeadlineError, OverloadedError, ScoringError, ServerUnavailableError

__all__ = [
    "DEFAULT_DEADLINE_S",
    "DEFAULT_UNAVAILABLE_TIMEOUT_S",
    "Attempts",
    "Call",
    "Replicas",
    "RetryPolicy",
    "Turn",
]

DEFAULT_DEADLINE_S = 300.0
DEFAULT_UNAVAILABLE_TIMEOUT_S = 3.0
# An attempt with less time than this would end late, and hide why the ones before it failed.
SHORTEST_ATTEMPT_S = 0.05
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
LONGEST_REST_S = 30.0
# A server that asks for more than this is asked again all the same.
LONGEST_PAUSE_S = 3600.0
# How much longer than a server asked for its clients stay away, at most: so that they come back one by one.
PAUSE_SPREAD = 0.5
# For how long a replica is known to serve its judge: one that is replaced between two calls breaks none.
IDENTITY_S = 10.0
NEVER = float("-inf")

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Seconds for a whole call, and for retries while no replica is reachable or ready.

    `otherwise` is what to do about a call that took longer, instead of raising the deadline.
    """

    deadline: float = DEFAULT_DEADLINE_S
    unavailable_timeout: float = DEFAULT_UNAVAILABLE_TIMEOUT_S
    otherwise: str = "score fewer groups at a time"

    def __post_init__(self) -> None:
        if not _is_seconds(self.deadline) or not self.deadline:
            raise ConfigError(f"deadline must be a positive number of seconds; received {self.deadline!r}")
        if not _is_seconds(timeout := self.unavailable_timeout):
            raise ConfigError(
                f"unavailable_timeout must be a number of seconds, 0 not to wait; received {timeout!r}"
            )

    @property
    def exceeded(self) -> str:
        """What went wrong where a call is not answered in time."""
        return f"the call took longer than its timeout of {self.deadline:g} s"

    def advised(self, error: object) -> DeadlineError:
        """The error of a call that was not answered in time, with what to do."""
        return DeadlineError(
            f"{error}; raise it with deadline (on the command line, --deadline), or {self.otherwise}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Leave to ask a replica, by its index, once; first which judge it serves, if that is unknown."""

    replica: int
    since: float
    unknown: bool


@dataclass(slots=True, kw_only=True)
class _State:
    """What was seen of one replica; times are those of the clock."""

    busy: int = 0
    failures: int = 0
    failed_at: float = NEVER
    rests_until: float = NEVER
    barred_until: float = NEVER
    known_until: float = NEVER
    error: ScoringError | None = None


class Replicas:
    """The state of all replicas. Each `Turn` is handed back once: to `answered`, `set_back` or `release`."""

    def __init__(
        self,
        urls: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        uniform: Uniform = random.uniform,
    ) -> None:
        self.urls, self.clock, self.uniform = urls, clock, uniform
        self._states = [_State() for _ in urls]
        self._next = 0
        self._judge: tuple[str, str | None] | None = None

    def __len__(self) -> int:
        return len(self._states)

    def awake(self) -> list[int]:
        """Those that do not rest, in rotation."""
        now, count = self.clock(), len(self)
        order = [(self._next + n) % count for n in range(count)]
        return [n for n in order if self._states[n].rests_until <= now]

    def take(self, *, resting: bool = False) -> Turn | None:
        """A turn with the least busy replica that does not rest, in rotation; None if there is none.

        With `resting`, the one that rests the shortest will do, unless it asked to be left alone.
        """
        now = self.clock()
        free = [n for n, one in enumerate(self._states) if resting and one.barred_until <= now]
        if not (free := self.awake() or free):
            return None
        chosen = min(free, key=lambda n: (max(now, self._states[n].rests_until), self._states[n].busy))
        self._next = (chosen + 1) % len(self)
        one = self._states[chosen]
        one.busy += 1
        return Turn(replica=chosen, since=now, unknown=one.known_until <= now)

    def wait_s(self, own: float) -> float:
        """Seconds until one no longer rests; or until `own` seconds are over and one may be asked at all."""
        barred = min(one.barred_until for one in self._states) - self.clock()
        rests = min(one.rests_until for one in self._states) - self.clock()
        return max(0.0, min(max(own, barred), rests))

    def answered(self, turn: Turn) -> None:
        """It answered: it is well, unless it failed after this turn was given."""
        one = self._states[turn.replica]
        one.busy -= 1
        if turn.since >= one.failed_at:
            one.failures, one.rests_until = 0, one.barred_until
            if one.barred_until <= self.clock():
                one.error = None

    def set_back(self, turn: Turn, error: ScoringError, pause: float | None) -> None:
        """It was unreachable, not ready, full or late, and may have asked for a pause of so many seconds."""
        one, now = self._states[turn.replica], self.clock()
        one.busy -= 1
        # Without its traceback, which would keep the request's images and its connection.
        one.error = type(error)(str(error))
        # Requests that were under way together fail together: that is one failure.
        if turn.since >= one.failed_at:
            rest = _backoff(one.failures, LONGEST_REST_S, self.uniform)
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
        """The turn ended in a way that says nothing of the replica."""
        self._states[turn.replica].busy -= 1

    def identify(self, turn: Turn, judge: str | None) -> None:
        """Note which judge a replica serves, None if it names none. Raises `ConfigError` if they differ."""
        url = self.urls[turn.replica]
        where, known = self._judge = self._judge or (url, judge)
        if judge != known:
            first, other = (name or "a judge without a name" for name in (known, judge))
            if url == where:
                raise ConfigError(
                    f"{url} now serves {other}, but served {first} before; serve the same bundle there, "
                    "or connect anew if the change is meant"
                )
            raise ConfigError(
                f"the replicas serve different judges: {where} serves {first}, {url} serves {other}; "
                "serve the same bundle everywhere"
            )
        self._states[turn.replica].known_until = self.clock() + IDENTITY_S

    def errors(self) -> list[ScoringError]:
        """The last error of each replica that is not well."""
        return [one.error for one in self._states if one.error is not None]

    def verdict(self) -> ScoringError:
        """The error to raise when there is nobody left to ask; at least one replica is not well."""
        errors = self.errors()
        kinds = {type(error) for error in errors}
        mixed = OverloadedError if OverloadedError in kinds else ServerUnavailableError
        kind = kinds.pop() if len(kinds) == 1 else mixed
        said = "; ".join(str(error) for error in errors)
        return kind(said if len(self) == 1 else f"none of {len(self)} replicas could answer: {said}")


class Call:
    """The time that one call has left, and the silence that it has borne; its requests share both."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self._clock = clock
        self._end = clock() + policy.deadline
        self._silent_since: float | None = None

    def left(self) -> float:
        """Seconds until the deadline, negative after it."""
        return self._end - self._clock()

    def note(self, error: ScoringError | None) -> None:
        """An answer, or an error: whoever is full is not silent."""
        if error is None or isinstance(error, OverloadedError):
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = self._clock()

    def may_wait(self, seconds: float, *, silence: bool) -> bool:
        """Whether an attempt after so many seconds makes sense; `silence`: no server was even full."""
        now = self._clock()
        give_up = self._end - SHORTEST_ATTEMPT_S
        if silence:
            since = now if self._silent_since is None else self._silent_since
            give_up = min(give_up, since + self.policy.unavailable_timeout)
        return now + seconds < give_up


class Attempts:
    """The attempts of one request: `next` says what to do, `answered` and `failed` say what came of it."""

    def __init__(self, call: Call, replicas: Replicas) -> None:
        self._call = call
        self._replicas = replicas
        self._failures = 0
        self._waits_until = NEVER

    def next(self) -> Turn | float:
        """A replica to ask now, or the seconds to wait before the next `next`.

        Raises `DeadlineError` when the call's time is over, and the replicas' errors when none can be asked
        in the time that is left.
        """
        if self._call.left() <= 0:
            raise self._call.policy.advised(f"timed out: {self._call.policy.exceeded}")
        own = self._waits_until - self._replicas.clock()
        if (turn := self._replicas.take(resting=own <= 0)) is not None:
            return turn
        wait = self._replicas.wait_s(own)
        silence = not any(isinstance(error, OverloadedError) for error in self._replicas.errors())
        if not self._call.may_wait(wait, silence=silence):
            # In a frame of its own: this one's would keep the error in a cycle with its traceback.
            raise self._verdict()
        return wait

    def _verdict(self) -> ScoringError:
        verdict, policy = self._replicas.verdict(), self._call.policy
        late = isinstance(verdict, DeadlineError) and policy.exceeded in str(verdict)
        return policy.advised(verdict) if late else verdict

    def answered(self, turn: Turn) -> None:
        """The request is done."""
        self._replicas.answered(turn)
        self._call.note(None)

    def failed(self, turn: Turn, error: ScoringError, pause: float | None = None) -> ScoringError | None:
        """The error to raise if no other attempt can help, else None; `pause` is that of `Failure`."""
        repeatable = isinstance(error, (ServerUnavailableError, OverloadedError, DeadlineError))
        if not repeatable or (pause is not None and pause < 0):
            self._replicas.release(turn)
            return error
        said = [str(other) for other in self._replicas.errors()]
        self._replicas.set_back(turn, error, pause)
        if isinstance(error, DeadlineError) and not self._call.may_wait(0.0, silence=False):
            before = f" (before that: {'; '.join(said)})" if said else ""
            return self._call.policy.advised(f"{error}{before}")
        self._call.note(error)
        rounds, uniform = self._failures // len(self._replicas), self._replicas.uniform
        self._waits_until = self._replicas.clock() + _backoff(rounds, LONGEST_DELAY_S, uniform)
        self._failures += 1
        return None


def _backoff(failures: int, longest: float, uniform: Uniform) -> float:
    """Seconds to wait after so many earlier failures in a row: doubling, shortened by half at most."""
    return uniform(0.5, 1.0) * min(longest, FIRST_DELAY_S * 2.0 ** min(failures, 30))


def _is_seconds(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < math.inf
