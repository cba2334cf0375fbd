"""What a call costs: its seconds, the most memory it holds; and what a matrix product attains on a device."""

import ctypes
import gc
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TypeVar

import torch
from torch import nn

from prefrm.machine import processor_name
from prefrm.resources import MEBIBYTE, resident_bytes

__all__ = ["SIDES", "PeakMemory", "describe_device", "matrix_product_rate", "seconds_in", "timed", "wait_for"]

T = TypeVar("T")

SECONDS_BETWEEN_SAMPLES = 0.005
# Squares large enough for a product to reach what the device has, and small enough to cost little.
SIDES = {"cpu": 1024, "cuda": 8192}
PRODUCTS = 3


class PeakMemory:
    """The most memory that a block held above what there was when it began.

    On a CPU the process's resident memory, sampled; on a GPU what torch has allocated there.

    Attributes:
        peak_mb: in MiB, after the block.
        total_mb: the same with what there was before: model, optimizer and all else.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak_mb = self.total_mb = 0.0
        self._device = device
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._before = self._most = 0

    def __enter__(self) -> "PeakMemory":
        _return_free_memory()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            self._before = self._most = resident_bytes()
            self._sampler.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self._most = torch.cuda.max_memory_allocated(self._device)
        else:
            self._done.set()
            self._sampler.join()
        self.peak_mb = (self._most - self._before) / MEBIBYTE
        self.total_mb = self._most / MEBIBYTE

    def _sample(self) -> None:
        ended = False
        while not ended:
            ended = self._done.wait(SECONDS_BETWEEN_SAMPLES)
            self._most = max(self._most, resident_bytes())


def timed(call: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What a call returns, and its wall-clock seconds until the device has done everything it asked for."""
    wait_for(device)
    started = time.perf_counter()
    value = call()
    wait_for(device)
    return value, time.perf_counter() - started


def seconds_in(module: nn.Module, call: Callable[[], object], device: torch.device) -> float:
    """Seconds that the forward passes of a module take during a call; 0 if there are none."""
    started, seconds = 0.0, 0.0

    def begin(*_: object) -> None:
        nonlocal started
        wait_for(device)
        started = time.perf_counter()

    def end(*_: object) -> None:
        nonlocal seconds
        wait_for(device)
        seconds += time.perf_counter() - started

    hooks = [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        call()
    finally:
        for hook in hooks:
            hook.remove()
    return seconds


def wait_for(device: torch.device) -> None:
    """Until everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a product of square matrices, the best of a few in a row."""
    side = SIDES[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = a @ b
    seconds = [timed(lambda: torch.mm(a, b, out=out), device)[1] for _ in range(PRODUCTS)]
    return 2.0 * side**3 / min(seconds)


def describe_device(device: torch.device) -> str:
    """For people: the GPU's name, or the processor's with the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor_name()}, {threads} {'thread' if threads == 1 else 'threads'}"


def _return_free_memory() -> None:
    """So that what an earlier call freed is not there for this one, and is counted when it is taken again."""
    gc.collect()
    # glibc alone has it.
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
