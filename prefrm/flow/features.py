"""Features of images, and ViPO's maps over pixels from them (arXiv 2511.18719): where an advantage counts.

Shapes: B images; H, W of the feature grid; h, w of the latents; D features.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, pad

from prefrm.errors import ConfigError
from prefrm.flow.kernels import precise

__all__ = ["features", "pixel_map", "vision_features"]

# Cells along each side of the grid of mean colors.
GRID = 8
# Of a map: principal components, the Gaussian filter, and the least range that is scaled to [0, 1].
COMPONENTS, SIGMA, RADIUS = 3, 1.0, 3
MIN_RANGE = 1e-6


def features(images: Tensor) -> Tensor:
    """Mean colors in a grid, [B, 8, 8, 3]: features that need no model, for small and simple images."""
    means: Tensor = adaptive_avg_pool2d(images.float() - 0.5, GRID)
    return means.permute(0, 2, 3, 1)


def vision_features(model: str, device: Any) -> Callable[[Tensor], Tensor]:
    """Encodes square images as the patch features [B, H, W, D] of a vision transformer, such as DINOv2's.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    from transformers import AutoImageProcessor, AutoModel

    try:
        encoder = AutoModel.from_pretrained(model).to(device).eval()
        settings = AutoImageProcessor.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise ConfigError(f"features {model!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    shape = (settings.image_mean, settings.image_std)
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in shape)
    patch = int(encoder.config.patch_size)
    cells = int(encoder.config.image_size) // patch

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        pixels = interpolate(images.float().to(device), (cells * patch,) * 2, mode="bicubic")
        hidden: Tensor = encoder(pixel_values=(pixels - mean) / std).last_hidden_state
        return hidden[:, -(cells**2) :].reshape(len(images), cells, cells, -1)

    return encode


@torch.no_grad()
def pixel_map(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """Weights [B, h, w] in [0, 1] from a grid of features [B, H, W, D]; ones where all are alike.

    The three first principal components within an image, each oriented so that its longer tail is high, are
    added with weights of their variances, smoothed, scaled to [0, 1] and interpolated to `size` = (h, w).
    """
    with torch.autocast(grid.device.type, enabled=False):
        f_BND = precise(grid).flatten(1, 2)
        u, singular, _ = torch.linalg.svd(f_BND - f_BND.mean(1, keepdim=True), full_matrices=False)
        scores = (u * singular[:, None])[..., :COMPONENTS]
        scores = scores * torch.where((scores**3).sum(1, keepdim=True) < 0, -1.0, 1.0)
        variance = singular[:, None, :COMPONENTS] ** 2
        total = (scores * variance).sum(-1) / variance.sum(-1).clamp(min=MIN_RANGE**2)
        smooth = _smoothed(total.reshape(grid.shape[:3]))
        low, high = smooth.amin((1, 2), keepdim=True), smooth.amax((1, 2), keepdim=True)
        flat = high - low < MIN_RANGE
        scaled = torch.where(flat, 1.0, (smooth - low) / (high - low).clamp(min=MIN_RANGE))
        return interpolate(scaled[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _smoothed(map_BHW: Tensor) -> Tensor:
    """A Gaussian filter whose border repeats the edge."""
    offsets = torch.arange(-RADIUS, RADIUS + 1, dtype=map_BHW.dtype, device=map_BHW.device)
    kernel = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    window = kernel[:, None] * kernel[None, :] / kernel.sum() ** 2
    padded = pad(map_BHW[:, None], [RADIUS] * 4, mode="replicate")
    return conv2d(padded, window[None, None])[:, 0]
