"""Silence for libraries whose messages a person who runs prefrm cannot act on.

Their deprecations and advice are for their callers, of which prefrm is one, and their bars of loading tell
nothing that its own progress does not. Errors stay.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["quiet"]

LIBRARIES = (
    "accelerate",
    "bitsandbytes",
    "datasets",
    "diffusers",
    "httpx",
    "huggingface_hub",
    "matplotlib",
    "peft",
    "transformers",
    "trl",
)
# A library that is imported later sets its logger's level, and whether it shows bars, by these.
VERBOSITY = {
    "datasets": "DATASETS_VERBOSITY",
    "diffusers": "DIFFUSERS_VERBOSITY",
    "huggingface_hub": "HF_HUB_VERBOSITY",
    "transformers": "TRANSFORMERS_VERBOSITY",
}
DATASETS_BARS = "HF_DATASETS_DISABLE_PROGRESS_BARS"
DEPRECATIONS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)
DEPRECATING = rf"({'|'.join(LIBRARIES)}|torch)(\.|$)"


@contextmanager
def quiet() -> Iterator[None]:
    """Let libraries log errors alone, and show no deprecation and no progress bar, while the block runs.

    A download keeps its bar on a terminal, since it may take long. Blocks may be nested. A library that is
    told to be verbose by a variable of the environment, such as TRANSFORMERS_VERBOSITY, is.
    """
    with ExitStack() as undo:
        undo.enter_context(warnings.catch_warnings())
        for category in DEPRECATIONS:
            warnings.filterwarnings("ignore", category=category, module=DEPRECATING)
        _set_variable(DATASETS_BARS, "1", undo)
        for name in LIBRARIES:
            if name in VERBOSITY and not _set_variable(VERBOSITY[name], "error", undo):
                continue
            logger = logging.getLogger(name)
            undo.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.ERROR)
        if "transformers" in sys.modules:
            undo.enter_context(_no_loading_bars())
        if "datasets" in sys.modules:
            from datasets import disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

            undo.enter_context(
                _no_bars(is_progress_bar_enabled(), disable_progress_bars, enable_progress_bars)
            )
        if "diffusers" in sys.modules:
            from diffusers.utils.logging import (
                disable_progress_bar,
                enable_progress_bar,
            )
            from diffusers.utils.logging import (
                is_progress_bar_enabled as is_bar_enabled,
            )

            undo.enter_context(_no_bars(is_bar_enabled(), disable_progress_bar, enable_progress_bar))
        yield


def _set_variable(name: str, value: str, undo: ExitStack) -> bool:
    """Set a variable of the environment that is not set; whether it was not."""
    if name in os.environ:
        return False
    os.environ[name] = value
    undo.callback(os.environ.pop, name, None)
    return True


@contextmanager
def _no_loading_bars() -> Iterator[None]:
    """Turn off the bars of the libraries that are imported already."""
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    # This turns off the bars of downloads, too.
    transformers_logging.disable_progress_bar()
    if sys.stderr.isatty():
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
        else:
            disable_progress_bars()


@contextmanager
def _no_bars(shown: bool, disable: Callable[[], None], enable: Callable[[], None]) -> Iterator[None]:
    """In the block, bars that are shown are not."""
    disable()
    try:
        yield
    finally:
        if shown:
            enable()
