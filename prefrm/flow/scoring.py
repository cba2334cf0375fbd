"""Rewards of samples: several scorers over groups, in a thread while the next samples are drawn.

Shapes: N samples; B images; H, W of a feature grid; D features.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from prefrm.errors import ConfigError, MediaError
from prefrm.pixels import encode_image
from prefrm.rewards import REWARDS
from prefrm.rewards.numbers import Doubles
from prefrm.winmatrix import Group, Scorer, score_all

__all__ = ["Pointwise", "Reward", "Scoring", "WinRates", "encode_images", "features", "vision_features"]

# Cells along each side of the grid of mean colors.
GRID = 8

Prompts = Sequence[str]
Images = Sequence[bytes | None]
"""Encoded; None is missing."""


class Reward(Protocol):
    """Gives samples their rewards."""

    def rewards(self, prompts: Prompts, images: Images, keys: Sequence[Hashable]) -> Doubles:
        """[N], NaN for a sample that has none; `keys` are equal for the samples of a group."""
        ...

    def against(self, prompts: Prompts, images: Images, others: Images) -> float:
        """How good images are beside others for the same prompts, each [N]."""
        ...


class WinRates:
    """A function of the win matrix of each group: `reward` is a name in `prefrm.rewards.REWARDS`."""

    def __init__(self, scorer: Scorer, reward: str = "win_rate") -> None:
        self._scorer, self._reward = scorer, REWARDS[reward]

    def rewards(self, prompts: Prompts, images: Images, keys: Sequence[Hashable]) -> Doubles:
        compared = [places for places in _members(keys) if len(places) > 1]
        groups = [Group(prompt=prompts[row[0]], images=tuple(images[n] for n in row)) for row in compared]
        rewards = np.full(len(keys), np.nan)
        for places, matrix in zip(compared, score_all(self._scorer, groups), strict=True):
            rewards[places] = self._reward(matrix, on_missing="drop")
        return rewards

    def against(self, prompts: Prompts, images: Images, others: Images) -> float:
        """The mean probability that an image is preferred to one of the others of its prompt."""
        groups = [
            Group(prompt=prompts[row[0]], images=tuple(side[n] for side in (images, others) for n in row))
            for row in _members(prompts)
        ]
        matrices = score_all(self._scorer, groups)
        corners = [matrix.p[: matrix.size // 2, matrix.size // 2 :].ravel() for matrix in matrices]
        return float(np.nanmean(np.concatenate(corners)))


class Pointwise:
    """A function of the prompt and one encoded image."""

    def __init__(self, function: Callable[[str, bytes], float]) -> None:
        self._function = function

    def rewards(self, prompts: Prompts, images: Images, keys: Sequence[Hashable]) -> Doubles:
        pairs = zip(prompts, images, strict=True)
        return np.array(
            [np.nan if image is None else self._function(prompt, image) for prompt, image in pairs]
        )

    def against(self, prompts: Prompts, images: Images, others: Images) -> float:
        """The mean of the images; the others do not count."""
        return float(np.nanmean(self.rewards(prompts, images, prompts)))


class Scoring:
    """Scores by several rewards, in one thread and in the order of the calls."""

    def __init__(self, rewards: Mapping[str, Reward]) -> None:
        self.names, self._rewards = tuple(rewards), rewards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def submit(
        self, prompts: Prompts, images: Tensor, keys: Sequence[Hashable]
    ) -> "Future[dict[str, Doubles]]":
        """Rewards [N] by name, later.

        Args:
            prompts: of each sample.
            images: [N, 3, H, W] in [0, 1]; one with a pixel that is NaN is missing.
            keys: equal for the samples of a group, all of which are here.
        """
        return self._thread.submit(self._scored, list(prompts), images.cpu(), list(keys))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _scored(self, prompts: Prompts, images: Tensor, keys: Sequence[Hashable]) -> dict[str, Doubles]:
        encoded = encode_images(images)
        return {name: reward.rewards(prompts, encoded, keys) for name, reward in self._rewards.items()}


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
    means: Tensor = torch.nn.functional.adaptive_avg_pool2d(images.float() - 0.5, GRID)
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
    cells = int(encoder.config.image_size) // int(encoder.config.patch_size)

    @torch.no_grad()
    def encode(images: Tensor) -> Tensor:
        side = cells * int(encoder.config.patch_size)
        pixels = torch.nn.functional.interpolate(images.float().to(device), (side, side), mode="bicubic")
        hidden: Tensor = encoder(pixel_values=(pixels - mean) / std).last_hidden_state
        return hidden[:, -(cells**2) :].reshape(len(images), cells, cells, -1)

    return encode


def _members(keys: Sequence[Hashable]) -> list[list[int]]:
    """Places of each key, in order of first appearance."""
    members: dict[Hashable, list[int]] = {}
    for n, key in enumerate(keys):
        members.setdefault(key, []).append(n)
    return [*members.values()]
