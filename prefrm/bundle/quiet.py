"""What `transformers` and `peft` would write to standard error while they load and save a model."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

__all__ = ["plain_stderr"]


@contextmanager
def plain_stderr() -> Iterator[None]:
    """No progress bars while the block runs, unless on a terminal, and no warning that is peft's to mend."""
    hidden = is_progress_bar_enabled() and not sys.stderr.isatty()
    if hidden:
        disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 by a name that it deprecates.
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
            yield
    finally:
        if hidden:
            enable_progress_bar()
