"""When to ask again, how long to wait before it, and when to stop. Sleeps nowhere and sends nothing.

Scoring has no side effects, so a request may always be repeated. It is worth repeating when nobody
answered (for a while: `patience`) and when the server was full (until the deadline); never after a
refusal or a failed computation.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from prefrm.errors import ConfigError, DeadlineError, OverloadedError, ServerUnavailableError

__all__ = ["DEFAULT_DEADLINE_S", "DEFAULT_PATIENCE_S", "Attempts", "RetryPolicy"]

DEFAULT_DEADLINE_S = 300.0
DEFAULT_PATIENCE_S = 3.0

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 5.0
# An attempt with less time than this would end late, and hide why the ones before it failed.
SHORTEST_ATTEMPT_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Seconds for a whole call (`deadline`) and for a silent server (`patience`)."""

    deadline: float
    patience: float

    def __post_init__(self) -> None:
        if not 0 < self.deadline < float("inf"):
            raise ConfigError(f"deadline must be a positive number of seconds; received {self.deadline}")
        if not 0 <= self.patience < float("inf"):
            raise ConfigError(
                f"patience must be a number of seconds, 0 for a single attempt; received {self.patience}"
            )


class Attempts:
    """One call's account of the time it has left and of the failures it has seen."""

    def __init__(
        self,
        policy: RetryPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._uniform = uniform
        self._end = clock() + policy.deadline
        self.answered()

    def answered(self) -> None:
        """The server answered: failures are counted from anew."""
        self._failures = 0
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

    def delay_after(self, error: ServerUnavailableError | OverloadedError) -> float:
        """Seconds to wait before the next attempt; raises `error` when there should be none."""
        now = self._clock()
        delay = self._uniform(0.5, 1.0) * min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**self._failures)
        self._failures += 1
        give_up = self._end - SHORTEST_ATTEMPT_S
        if isinstance(error, ServerUnavailableError):
            self._silent_since = now if self._silent_since is None else self._silent_since
            give_up = min(give_up, self._silent_since + self._policy.patience)
        else:
            self._silent_since = None
        if now + delay >= give_up:
            raise error
        return delay
