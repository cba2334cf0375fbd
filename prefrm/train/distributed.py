"""The processes of one run, as accelerate or torchrun started them: devices, ranks and collectives.

Messages between processes are numbers and JSON, no pickle. With one process, no collective is called.
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

# Timeout of collectives: the other processes wait for the first one, which alone evaluates and exports.
TIMEOUT = timedelta(hours=24)


def join(device: str) -> str:
    """Initialise the process group, if several processes were started; returns the device of this one.

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
    return str(PartialState(cpu=on_cpu, timeout=TIMEOUT).device)


def sharding() -> bool:
    """Whether the processes were started to shard one judge's weights (FSDP)."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def processes() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """The rank of this process."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and measures."""
    return rank() == 0


def wait() -> None:
    """Barrier: return when every process is here."""
    if processes() > 1:
        distributed.barrier()


def leave() -> None:
    """Wait for every process and destroy the process group."""
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
    """The JSON value of each process, by rank."""
    if processes() == 1:
        return [value]
    device = PartialState().device
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(device)
    size = torch.tensor([len(text)], device=device)
    sizes = [torch.empty_like(size) for _ in range(processes())]
    distributed.all_gather(sizes, size)
    longest = max(int(one) for one in sizes)
    padded = torch.nn.functional.pad(text, (0, longest - len(text)))
    texts = [torch.empty_like(padded) for _ in sizes]
    distributed.all_gather(texts, padded)
    return [json.loads(bytes(one[: int(length)].tolist())) for one, length in zip(texts, sizes, strict=True)]
