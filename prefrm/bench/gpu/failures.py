"""Failures of single rows of a table: reasons on the page, so that the other rows are measured too."""

import gc
import traceback
from collections.abc import Iterable

import torch

from prefrm.display import shortened
from prefrm.engine import is_out_of_memory
from prefrm.errors import ScoringError

__all__ = ["OUT_OF_MEMORY", "raise_for", "reason_for", "release_memory"]

OUT_OF_MEMORY = "out of memory"
LENGTH = 80


def reason_for(error: Exception) -> str:
    """Why a row has no numbers. The traceback goes to the log, unless it is the memory."""
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    traceback.print_exception(error)
    first = str(error).strip().partition("\n")[0]
    return shortened(f"{type(error).__name__}: {first}", LENGTH)


def release_memory() -> None:
    """Give back what a failed row held; after the block that handles its error, which holds it too."""
    gc.collect()
    torch.cuda.empty_cache()


def raise_for(reasons: Iterable[str]) -> None:
    """Fail if a row failed for any reason but the memory, so that a later run measures the part again.

    Raises:
        ScoringError: it names the reasons.
    """
    wrong = dict.fromkeys(reason for reason in reasons if reason not in ("", OUT_OF_MEMORY))
    if wrong:
        raise ScoringError(f"rows failed: {'; '.join(wrong)}")
