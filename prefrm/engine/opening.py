"""The engine of a bundle, whatever kind of judge it holds."""

from pathlib import Path
from typing import Any, Literal

import torch

from prefrm.engine.cache import DEFAULT_CACHE_BYTES
from prefrm.engine.dual import DualEngine
from prefrm.engine.engine import Engine
from prefrm.manifest import DualSpec, bundle_folder, read_manifest
from prefrm.media import DEFAULT_LIMITS, ImageLimits

__all__ = ["open_engine"]


def open_engine(
    path: Path | str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    tokens: int | None = None,
    cache_bytes: int = DEFAULT_CACHE_BYTES,
    pairs: Literal["all"] | int = "all",
    compile: bool = False,
    deterministic: bool = False,
    limits: ImageLimits = DEFAULT_LIMITS,
    calibrated: bool = True,
) -> Engine | DualEngine:
    """The engine of a bundle, with the calibration that its manifest records, if any.

    Args:
        path: a folder, or `hf://org/name[@revision]`.
        tokens, pairs, compile: without effect on a dual encoder, which reads each image alone.

    Other arguments, and the errors, are those of `Engine.from_bundle`.
    """
    # One commit of the Hub, whatever its branch does meanwhile.
    folder = bundle_folder(path)
    shared: dict[str, Any] = {
        "device": device,
        "dtype": dtype,
        "cache_bytes": cache_bytes,
        "deterministic": deterministic,
        "limits": limits,
        "calibrated": calibrated,
    }
    if isinstance(read_manifest(folder).spec, DualSpec):
        return DualEngine.from_bundle(folder, **shared)
    return Engine.from_bundle(folder, tokens=tokens, pairs=pairs, compile=compile, **shared)
