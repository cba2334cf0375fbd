"""Rewards of samples in groups, from any scorer, and how good samples are beside others. Numpy only.

Shapes: N samples.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np

from prefrm.rewards.chain import members
from prefrm.rewards.utilities import REWARDS
from prefrm.winmatrix import Doubles, Group, Scorer, WinMatrix, score_all

__all__ = ["Pointwise", "Reward", "WinRates"]

Prompts = Sequence[str]
Images = Sequence[bytes | None]
"""Encoded; None is missing."""
Each = Callable[[Sequence[int], WinMatrix], None]
"""Is told the places of a group's samples, and its matrix."""


class Reward(Protocol):
    """Gives samples their rewards."""

    def rewards(
        self, prompts: Prompts, images: Images, keys: Sequence[Hashable], *, each: Each | None = None
    ) -> Doubles:
        """[N], NaN for a sample that has none; `keys` are equal for the samples of a group.

        `each` is called for each group that was compared.
        """
        ...

    def against(self, prompts: Prompts, images: Images, others: Images) -> float:
        """How good images are beside others for the same prompts, each [N]."""
        ...


class WinRates:
    """A function of the win matrix of each group: `reward` is a name in `prefrm.rewards.REWARDS`."""

    def __init__(self, scorer: Scorer, reward: str = "win_rate") -> None:
        self._scorer, self._reward = scorer, REWARDS[reward]

    def rewards(
        self, prompts: Prompts, images: Images, keys: Sequence[Hashable], *, each: Each | None = None
    ) -> Doubles:
        compared = [places for places in members(keys) if len(places) > 1]
        groups = [Group(prompt=prompts[row[0]], candidates=tuple(images[n] for n in row)) for row in compared]
        rewards = np.full(len(keys), np.nan)
        for places, matrix in zip(compared, score_all(self._scorer, groups), strict=True):
            rewards[places] = self._reward(matrix, on_missing="drop")
            if each is not None:
                each(places, matrix)
        return rewards

    def against(self, prompts: Prompts, images: Images, others: Images) -> float:
        """The mean probability that an image is preferred to one of the others of its prompt."""
        groups = [
            Group(prompt=prompts[row[0]], candidates=tuple(side[n] for side in (images, others) for n in row))
            for row in members(prompts)
        ]
        matrices = score_all(self._scorer, groups)
        corners = [matrix.p[: matrix.size // 2, matrix.size // 2 :].ravel() for matrix in matrices]
        return float(np.nanmean(np.concatenate(corners)))


class Pointwise:
    """A function of the prompt and one encoded image."""

    def __init__(self, function: Callable[[str, bytes], float]) -> None:
        self._function = function

    def rewards(
        self, prompts: Prompts, images: Images, keys: Sequence[Hashable], *, each: Each | None = None
    ) -> Doubles:
        pairs = zip(prompts, images, strict=True)
        return np.array(
            [np.nan if image is None else self._function(prompt, image) for prompt, image in pairs]
        )

    def against(self, prompts: Prompts, images: Images, others: Images) -> float:
        """The mean of the images; the others do not count."""
        return float(np.nanmean(self.rewards(prompts, images, prompts)))
