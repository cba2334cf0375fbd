"""The gradient of a judge that an engine scores with as well."""

from collections.abc import Sequence
from threading import RLock

import torch

from prefrm.differentiable import DifferentiableScorer
from prefrm.engine.pass_sizes import is_out_of_memory
from prefrm.errors import OutOfMemoryError

__all__ = ["LockedGradient"]


class LockedGradient:
    """A differentiable scorer that shares its weights with engines: whoever has their lock works.

    Args:
        scorer: on this machine.
        lock: of the engines.
        batch: how many candidates the scorer reads at once, for the message when memory runs out.
    """

    def __init__(self, scorer: DifferentiableScorer, lock: RLock, batch: int) -> None:
        self._scorer = scorer
        self._lock = lock
        self._batch = batch

    def utilities(
        self, prompt: str, pixels: torch.Tensor, *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> torch.Tensor:
        """As of the scorer. Raises `OutOfMemoryError` as well."""
        try:
            with self._lock:
                return self._scorer.utilities(prompt, pixels, context=context, criterion=criterion)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the device ran out of memory with batch={self._batch}; lower it, or pass fewer candidates"
            ) from error
