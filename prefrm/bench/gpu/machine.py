"""The machine: what the card is, and what a matrix product and a copy attain on it."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from prefrm.bench.gpu.cards import peak_tflops
from prefrm.bench.meters import SIDES, describe_device, matrix_product_rate
from prefrm.bench.provenance import versions
from prefrm.errors import ConfigError
from prefrm.judge.model import resolve_device

__all__ = ["measure"]

PACKAGES = ("prefrm", "torch", "transformers", "peft", "accelerate", "bitsandbytes")


def measure(device: str) -> Iterator[dict[str, Any]]:
    """Describe the machine.

    Raises:
        ConfigError: there is no such device, or it is not one of CUDA and no CPU.
    """
    found = resolve_device(device)
    if found.type not in SIDES:
        raise ConfigError(f"a {found.type} device has no benchmark; give --device cpu")
    is_gpu = found.type != "cpu"
    name = describe_device(found)
    yield {
        "device": name,
        "accelerator": is_gpu,
        "memory_gib": torch.cuda.get_device_properties(found).total_memory / 2**30 if is_gpu else None,
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
        "peak_tflops": peak_tflops(name) if is_gpu else None,
        "product_tflops": matrix_product_rate(found, torch.bfloat16 if is_gpu else torch.float32) / 1e12,
        "versions": versions(*PACKAGES),
        "commit": _first_line("git", "rev-parse", "--short", "HEAD"),
    }


def _first_line(*command: str) -> str | None:
    """What a program prints first; None if it is not there or fails."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip().partition("\n")[0] or None
    return None
