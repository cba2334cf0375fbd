"""The machine that a benchmark of a GPU finds, without looking at it."""

from collections.abc import Iterator
from typing import Any

H100 = {
    "device": "NVIDIA H100 80GB HBM3",
    "accelerator": True,
    "memory_gib": 79.2,
    "driver": "580.1",
    "cuda": "13.0",
    "peak_tflops": 989.4,
    "product_tflops": 700.0,
    "versions": {"prefrm": "0.1.0", "torch": "2.13.0"},
    "commit": "abcdef0",
}


def measure(device: str, *, accelerator: bool) -> Iterator[dict[str, Any]]:
    """An H100, or no accelerator."""
    yield H100 if accelerator else H100 | {"accelerator": False, "peak_tflops": None}
