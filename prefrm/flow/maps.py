"""ViPO's maps over pixels (arXiv 2511.18719): where in an image its advantage counts.

Shapes: B images; H, W of the feature grid; h, w of the latents; D features.
"""

import torch
from torch import Tensor
from torch.nn import functional

from prefrm.flow.kernels import precise

__all__ = ["pixel_map"]

COMPONENTS, SIGMA, RADIUS = 3, 1.0, 3
MIN_RANGE = 1e-6


def pixel_map(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights [B, h, w] in [0, 1] from features [B, H, W, D] of any vision encoder; ones where all are alike.

    The three first principal components within an image, each oriented so that its longer tail is high, are
    added with weights of their variances, smoothed, scaled to [0, 1] and interpolated to `size` = (h, w).
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        f_BND = precise(features).flatten(1, 2)
        u, singular, _ = torch.linalg.svd(f_BND - f_BND.mean(1, keepdim=True), full_matrices=False)
        scores = (u * singular[:, None])[..., :COMPONENTS]
        scores = scores * torch.where((scores**3).sum(1, keepdim=True) < 0, -1.0, 1.0)
        variance = singular[:, None, :COMPONENTS] ** 2
        total = (scores * variance).sum(-1) / variance.sum(-1).clamp(min=MIN_RANGE**2)
        smooth = _smoothed(total.reshape(features.shape[:3]))
        low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
        flat = high - low < MIN_RANGE
        scaled = torch.where(flat, 1.0, (smooth - low) / (high - low).clamp(min=MIN_RANGE))
        return functional.interpolate(scaled[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _smoothed(map_BHW: Tensor) -> Tensor:
    """A Gaussian filter whose border repeats the edge."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=map_BHW.dtype, device=map_BHW.device)
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = kernel[:, None] * kernel[None, :] / kernel.sum() ** 2
    padded = functional.pad(map_BHW[:, None], [RADIUS] * 4, mode="replicate")
    return functional.conv2d(padded, window[None, None])[:, 0]
