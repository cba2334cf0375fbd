"""Parts of the benchmark of a GPU that are over at once, as modules have them: `measure` by its mode."""

import sys
import time
from collections.abc import Iterator
from typing import Any

from prefrm.errors import missing_extra


def measure(device: str, *, mode: str) -> Iterator[dict[str, Any]]:
    """Yield once, and then end as the mode says."""
    yield {"mode": mode, "device": device}
    if mode == "missing":
        raise missing_extra("bitsandbytes", "train")
    if mode == "absent":
        raise ModuleNotFoundError("No module named 'nothing'")
    if mode == "fails":
        raise RuntimeError("the card is on fire")
    if mode == "hangs":
        print("it waits", flush=True)
        time.sleep(60)
    if mode == "dies":
        sys.exit(9)
    yield {"mode": mode, "done": True}
