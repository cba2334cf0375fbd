"""The gradient of a bundle's judge, whatever kind it is."""

from pathlib import Path

import torch

from prefrm.bundle.loading import load_dual_bundle
from prefrm.differentiable import DifferentiableScorer
from prefrm.judge import DifferentiableJudge
from prefrm.judge.dual import DifferentiableDual
from prefrm.manifest import DualSpec, bundle_folder, read_manifest

__all__ = ["open_differentiable"]


def open_differentiable(
    path: Path | str,
    *,
    device: torch.device | str = "auto",
    dtype: torch.dtype | str = "auto",
    batch: int = 4,
) -> DifferentiableScorer:
    """The judge of a bundle as a differentiable scorer, with the calibration that its manifest records.

    Args:
        path: a folder, or `hf://org/name[@revision]`; other arguments are as in `DifferentiableJudge` and
            `Judge.from_base`.

    Raises:
        BundleError, ConfigError: as `load_bundle`.
    """
    folder = bundle_folder(path)
    if not isinstance(read_manifest(folder).spec, DualSpec):
        return DifferentiableJudge.from_bundle(folder, device=device, dtype=dtype, batch=batch)
    bundle = load_dual_bundle(folder, device, dtype)
    recorded = bundle.manifest.calibration
    return DifferentiableDual(
        bundle.judge, calibration=None if recorded is None else recorded.map, batch=batch
    )
