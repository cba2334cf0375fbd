"""The engine of a bundle, whatever kind of judge it holds."""

from pathlib import Path
from typing import Unpack, cast

import torch

from prefrm.engine.dual import DualEngine
from prefrm.engine.engine import Engine
from prefrm.engine.options import DualOptions, JudgeOptions
from prefrm.manifest import DualSpec, bundle_folder, read_manifest

__all__ = ["open_engine"]


def open_engine(
    path: Path | str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    calibrated: bool = True,
    **options: Unpack[JudgeOptions],
) -> Engine | DualEngine:
    """The engine of a bundle, with the calibration that its manifest records, if any.

    Args:
        path: a folder, or `hf://org/name[@revision]`.
        device, dtype, calibrated: as of `Engine.from_bundle`, and its errors.
        options: of `Engine`; of these, `tokens`, `pairs` and `compile` are without effect on a dual encoder,
            which reads each image alone.
    """
    # One commit of the Hub, whatever its branch does meanwhile.
    folder = bundle_folder(path)
    if not isinstance(read_manifest(folder).spec, DualSpec):
        return Engine.from_bundle(folder, device=device, dtype=dtype, calibrated=calibrated, **options)
    known = DualOptions.__annotations__
    fitting = cast(DualOptions, {name: value for name, value in options.items() if name in known})
    return DualEngine.from_bundle(folder, device=device, dtype=dtype, calibrated=calibrated, **fitting)
