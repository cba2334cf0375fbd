"""Facts about this machine, from the standard library alone."""

import os
import platform
from contextlib import suppress
from pathlib import Path

__all__ = ["GIBIBYTE", "memory_bytes", "processor_name"]

GIBIBYTE = 2**30


def memory_bytes() -> int | None:
    """Size of the physical memory; None on Windows, where the standard library has no call for it."""
    if not hasattr(os, "sysconf"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def processor_name() -> str:
    """The processor's model, or its architecture where the system does not name the model."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine() or "CPU"
