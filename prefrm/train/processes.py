"""The processes of one run, as accelerate or torchrun started them: whose device is which, what all know.

What goes from process to process is numbers and JSON. Alone, each function does the obvious.
"""

import json
import os
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState
from torch import distributed

from prefrm.errors import ConfigError

__all__ = ["gather", "is_first", "join", "leave", "processes", "rank", "sharding", "total", "wait"]

# How long processes wait for the first one, which alone evaluates and exports.
PATIENCE = timedelta(hours=24)


def join(device: str) -> str:
    """The device of this process, of those that `device` allows; the processes know each other afterwards.

    Raises:
        ConfigError: several processes were started, and `device` is a single accelerator.
    """
    if (started := int(os.environ.get("WORLD_SIZE", "1"))) == 1:
        return device
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"{started} processes were started and device is {device!r}, which is one for all of them; set "
            "device=auto, and each has its own"
        )
    on_cpu = device == "cpu" or not torch.accelerator.is_available()
    return str(PartialState(cpu=on_cpu, timeout=PATIENCE).device)


def sharding() -> bool:
    """Whether the processes were started to share one judge's weights (FSDP), as accelerate says it."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def processes() -> int:
    """How many there are."""
    return distributed.get_world_size() if _joined() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _joined() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and measures."""
    return rank() == 0


def wait() -> None:
    """Return when every process is here."""
    if processes() > 1:
        distributed.barrier()


def leave() -> None:
    """Wait for every process, and part."""
    wait()
    if processes() > 1:
        distributed.destroy_process_group()


def total(number: torch.Tensor) -> torch.Tensor:
    """The sum of a scalar over all processes."""
    if processes() > 1:
        number = number.clone()
        distributed.all_reduce(number)
    return number


def gather(value: Any) -> list[Any]:
    """The JSON value that each process has, in the order of their numbers."""
    if processes() == 1:
        return [value]
    device = torch.device("cuda", torch.cuda.current_device()) if _on_accelerator() else torch.device("cpu")
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    size = torch.tensor([len(text)], device=device)
    sizes = [torch.empty_like(size) for _ in range(processes())]
    distributed.all_gather(sizes, size)
    longest = max(int(one) for one in sizes)
    padded = torch.nn.functional.pad(text, (0, longest - len(text)))
    texts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(texts, padded)
    return [json.loads(bytes(one[: int(length)].tolist())) for one, length in zip(texts, sizes, strict=True)]


def _joined() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _on_accelerator() -> bool:
    return "nccl" in str(distributed.get_backend())
