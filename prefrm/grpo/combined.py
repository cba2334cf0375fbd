"""Several reward functions as one, without a missing reward becoming a number.

TRL sums the reward functions of a completion with `nansum`, so that a function's None counts as 0 there:
a completion whose image is missing would be told that it lost every comparison.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["CombinedReward"]

RewardCallable = Callable[..., Sequence[float | None]]


class CombinedReward:
    """The weighted sum of reward functions; None for a completion to which any of them gave None.

    Each function's mean, over the completions that it scored, is logged as `name/function name`.

    Args:
        functions: synchronous reward functions, called as the trainer calls this one.
        weights: one for each function.
        name: names the sum and its parts in the logs.

    Raises:
        ConfigError: the weights do not match, there is no function, or one is asynchronous.
    """

    def __init__(
        self, functions: Sequence[RewardCallable], weights: Sequence[float], *, name: str = "combined"
    ) -> None:
        if not functions or len(functions) != len(weights):
            raise ConfigError(
                f"each function needs a weight: received {len(functions)} functions, {len(weights)} weights"
            )
        for function in functions:
            if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
                raise ConfigError(f"{_name(function)} is asynchronous; CombinedReward takes synchronous ones")
        self.__name__ = name
        self._functions = tuple(functions)
        self._weights = tuple(weights)

    def __call__(self, **arguments: Any) -> list[float | None]:
        """One sum for each completion; `arguments` are the trainer's own."""
        rewards = [list(function(**arguments)) for function in self._functions]
        if log_metric := arguments.get("log_metric"):
            for function, values in zip(self._functions, rewards, strict=True):
                if scored := [value for value in values if value is not None]:
                    log_metric(f"{self.__name__}/{_name(function)}", sum(scored) / len(scored))
        return [self._sum(row) for row in zip(*rewards, strict=True)]

    def _sum(self, row: Sequence[float | None]) -> float | None:
        terms = [w * value for w, value in zip(self._weights, row, strict=True) if value is not None]
        return sum(terms) if len(terms) == len(row) else None


def _name(function: RewardCallable) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
