"""When to ask again, how long to wait before it, and when to stop. Sleeps nowhere and sends nothing.

Scoring has no side effects, so a request may always be repeated. It is worth repeating when nobody
answered or a server gave up before its time (for a while: `patience`), and when the server was full (until
the deadline); never after a refusal or a failed computation. Another replica that is well is asked at once,
without waiting.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

from prefrm.client._replicas import LONGEST_DELAY_S, Replicas, Turn, backoff
from prefrm.errors import ConfigError, DeadlineError, OverloadedError, ScoringError

__all__ = ["DEFAULT_DEADLINE_S", "DEFAULT_PATIENCE_S", "Attempts", "Call", "RetryPolicy"]

DEFAULT_DEADLINE_S = 300.0
DEFAULT_PATIENCE_S = 3.0

# An attempt with less time than this would end late, and hide why the ones before it failed.
SHORTEST_ATTEMPT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Seconds for a whole call (`deadline`) and for servers that are silent (`patience`)."""

    deadline: float = DEFAULT_DEADLINE_S
    patience: float = DEFAULT_PATIENCE_S

    def __post_init__(self) -> None:
        if not _is_number(self.deadline) or not 0 < self.deadline < float("inf"):
            raise ConfigError(f"deadline must be a positive number of seconds; received {self.deadline!r}")
        if not _is_number(self.patience) or not 0 <= self.patience < float("inf"):
            raise ConfigError(
                f"patience must be a number of seconds, 0 for a single attempt; received {self.patience!r}"
            )


class Call:
    """One call's account of the time it has left and of the silence it has borne; its requests share it."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._end = clock() + policy.deadline
        self._silent_since: float | None = None

    def remaining(self) -> float:
        """Seconds left, more than 0. Raises `DeadlineError` when there are none."""
        left = self._end - self._clock()
        if left <= 0:
            raise DeadlineError(
                f"not answered within the deadline of {self._policy.deadline:g} s; "
                "raise `deadline` or score fewer groups at a time"
            )
        return left

    def heard(self) -> None:
        """Somebody answered, be it to say that they are full."""
        self._silent_since = None

    def silent(self) -> None:
        """Somebody did not answer, or was not ready."""
        if self._silent_since is None:
            self._silent_since = self._clock()

    def may_wait(self, seconds: float, *, silence: bool) -> bool:
        """Whether an attempt after so many seconds still makes sense; `silence`: nobody was even full."""
        now = self._clock()
        give_up = self._end - SHORTEST_ATTEMPT_S
        if silence:
            since = now if self._silent_since is None else self._silent_since
            give_up = min(give_up, since + self._policy.patience)
        return now + seconds < give_up


class Attempts:
    """One request's way from replica to replica: `next` says what to do, and is told what came of it."""

    def __init__(self, call: Call, replicas: Replicas) -> None:
        self._call = call
        self._replicas = replicas
        self._failures = 0
        self._waits_until = float("-inf")

    def next(self) -> Turn | float:
        """A replica to ask now, or the seconds to wait before the next `next`.

        Raises:
            DeadlineError: the call's time is over, or all gave up.
            ServerUnavailableError, OverloadedError: there is nobody left to ask in the time that is left.
        """
        self._call.remaining()
        now = self._replicas.clock()
        turn = self._replicas.take()
        if turn is None and now >= self._waits_until:
            turn = self._replicas.take_resting()
        if turn is not None:
            return turn
        # Its own wait, unless somebody is well again before; nobody is asked who asked to be left alone.
        own = max(self._waits_until - now, self._replicas.bar_s())
        wait = min(own, self._replicas.rest_s())
        silence = not any(isinstance(error, OverloadedError) for error in self._replicas.errors())
        if not self._call.may_wait(wait, silence=silence):
            raise self._replicas.verdict()
        return wait

    def remaining(self) -> float:
        """Seconds that an attempt may take. Raises `DeadlineError` when there are none."""
        return self._call.remaining()

    def has_time(self) -> bool:
        """Whether another attempt could still be answered."""
        return self._call.may_wait(0.0, silence=False)

    def answered(self, turn: Turn) -> None:
        """The request is done."""
        self._replicas.answered(turn)
        self._call.heard()

    def set_back(self, turn: Turn, error: ScoringError, pause: float | None = None) -> None:
        """The replica did not answer, was not ready, gave up or was full, and asked for a pause of so many
        seconds."""
        self._replicas.set_back(turn, error, pause)
        if isinstance(error, OverloadedError):
            self._call.heard()
        else:
            self._call.silent()
        rounds, uniform = self._failures // len(self._replicas), self._replicas.uniform
        self._waits_until = self._replicas.clock() + backoff(rounds, LONGEST_DELAY_S, uniform)
        self._failures += 1

    def ran_out(self, turn: Turn, error: DeadlineError) -> DeadlineError:
        """The replica did not answer in time; returns the error to raise, with what others said before."""
        said = [str(other) for other in self._replicas.errors()]
        self._replicas.set_back(turn, error, None)
        return DeadlineError(f"{error}; before that: {'; '.join(said)}") if said else error

    def end(self, turn: Turn) -> None:
        """The request ended in an error that says nothing of the replica."""
        self._replicas.release(turn)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
