"""Which comparisons were read while training, and which were left out, with the reason."""

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["Coverage"]

logger = logging.getLogger(__name__)


class Coverage:
    """Counts what the batches of `ComparisonCollator` held, as each comes to be learned from.

    Not as it is collated, which workers do ahead of the step: a checkpoint must not know of later batches.

    Attributes:
        left_out: which images could not be read or compared, and why, by their record's id.
        read: how many comparisons were read.
    """

    def __init__(self) -> None:
        self.left_out: dict[str, str] = {}
        self.read = 0

    def add(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Take `left_out` out of the batch and log what is new of it; returns the rest."""
        rest = dict(batch)
        for record, reason in rest.pop("left_out"):
            before = self.left_out.get(record)
            if before is None or reason not in before:
                logger.warning("of record %r is left out what compares %s", record, reason)
                self.left_out[record] = reason if before is None else f"{before}; {reason}"
        self.read += len(rest["p_N"])
        return rest

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know of the batches so far, as JSON."""
        return {"left_out": self.left_out, "read": self.read}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.left_out, self.read = dict(state["left_out"]), int(state["read"])
