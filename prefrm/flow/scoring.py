"""Scoring in a thread while the next samples are drawn, and features of images.

Shapes: N samples; B images; H, W of a feature grid; D features.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from prefrm.errors import ConfigError, MediaError
from prefrm.pixels import encode_image
from prefrm.rewards.numbers import Doubles
from prefrm.rewards.samples import Reward

__all__ = ["Scoring", "encode_images", "features", "vision_features"]

# Cells along each side of the grid of mean colors.
GRID = 8


class Scoring:
    """Scores by several rewards, in one thread and in the order of the calls."""

    def __init__(self, rewards: Mapping[str, Reward]) -> None:
        self.names, self._rewards = tuple(rewards), rewards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def submit(
        self, prompts: Sequence[str], images: Tensor, keys: Sequence[Hashable]
    ) -> "Future[dict[str, Doubles]]":
        """Rewards [N] by name, later.

        Args:
            prompts: of each sample.
            images: [N, 3, H, W] in [0, 1]; one with a pixel that is NaN is missing.
            keys: equal for the samples of a group, all of which are here.
        """

        def score(images: Tensor) -> dict[str, Doubles]:
            encoded = encode_images(images)
            return {name: reward.rewards(prompts, encoded, keys) for name, reward in self._rewards.items()}

        return self._thread.submit(score, images.cpu())

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


def encode_images(images: Tensor) -> list[bytes | None]:
    """PNG of each of [N, 3, H, W]; None of one with a pixel that is not a number in [0, 1]."""
    encoded: list[bytes | None] = []
    for image in images.cpu():
        try:
            encoded.append(encode_image(image))
        except MediaError:
            encoded.append(None)
    return encoded


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
    mean, std = (
        torch.tensor(v, device=device)[:, None, None] for v in (settings.image_mean, settings.image_std)
    )
    patch = int(encoder.config.patch_size)
    cells = int(encoder.config.image_size) // patch

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        pixels = interpolate(images.float().to(device), (cells * patch,) * 2, mode="bicubic")
        hidden: Tensor = encoder(pixel_values=(pixels - mean) / std).last_hidden_state
        return hidden[:, -(cells**2) :].reshape(len(images), cells, cells, -1)

    return encode
