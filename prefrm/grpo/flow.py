"""A scorer as a reward function of flow_grpo and ddpo-pytorch: `fn(images, prompts, metadata)`.

Their trainers call it with each process's own batch, on threads, and their sampler
(`DistributedKRepeatSampler`) deals the images of a prompt out over the batches of all processes. So the
images are brought together first, and every process scores its share of the groups.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prefrm.errors import ConfigError
from prefrm.grpo.groups import GroupRule, Rewards
from prefrm.grpo.layout import Candidate, pack, unpack
from prefrm.grpo.ordering import CallOrder
from prefrm.grpo.ranks import Ranks, attempt
from prefrm.pixels import split_images
from prefrm.rewards import RewardFunction
from prefrm.winmatrix import Floats, OnMissing, Scorer, WinMatrix, score_all

__all__ = ["FlowGRPOReward"]

Shares = list[tuple[Rewards, list[float]]]


class FlowGRPOReward:
    """A reward function in the form of `flow_grpo/rewards.py` and `ddpo_pytorch/rewards.py`.

    The images of one prompt, over the batches of all processes of one call, are a group; with `group_key`,
    those whose metadata agree in that entry. Each process calls it once for each batch, in the same order:
    on one thread, or in an `OrderedExecutor`.

    Args:
        scorer: what judges the groups.
        group_size: the trainer's images of a prompt (`config.sample.num_image_per_prompt`). A prompt that
            was drawn twice makes one group twice as large, as in the trainer's own statistics.
        group_key: the entry of each image's metadata that names its group.
        reward: a name in `prefrm.rewards.REWARDS`, or such a function.
        on_missing: what to do about an image without a reward, such as one with a pixel that is NaN or out of
            range: "raise", or "drop", which gives it NaN. These trainers skip no NaN: whoever drops must mask
            them.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        group_size: int,
        group_key: str | None = None,
        reward: str | RewardFunction = "win_rate",
        on_missing: OnMissing = "raise",
    ) -> None:
        if group_size < 2:
            raise ConfigError(f"a group needs at least 2 images; received group_size={group_size}")
        self._scorer = scorer
        self._group_size = group_size
        self._group_key = group_key
        self._rule = GroupRule.of(reward, on_missing)
        self._ranks = Ranks()
        self._calls = CallOrder()

    def __call__(
        self, images: Any, prompts: Sequence[str], metadata: Any = None, **options: Any
    ) -> tuple[Floats, dict[str, Floats]]:
        """One reward for each image of this process, and their mean order gaps.

        Args:
            images: a tensor or an array, NCHW or NHWC, of floats in [0, 1] or of uint8; or a sequence of
                images.
            prompts: one for each image.
            metadata: one mapping for each image; looked at only for `group_key`.
            options: others that a trainer passes, such as flow_grpo's `only_strict`; without effect.

        Raises:
            ConfigError: the images are in another form, a group is not whole, or one of several processes
                makes its calls on several threads outside an `OrderedExecutor`.
            MediaError: an image cannot be encoded and `on_missing` is "raise".
            ScoringError: the scorer could not answer, here or on another process.
            IncompleteMatrixError: an image has no reward and `on_missing` is "raise".
        """
        with self._calls.turn():
            rank = self._ranks.join()
            local: list[tuple[str, Candidate]] = []

            def keyed() -> bytes:
                if not self._ranks.alone:
                    self._calls.check()
                local.extend(self._candidates(images, prompts, metadata))
                return json.dumps([key for key, _ in local]).encode()

            keys = [json.loads(part) for part in self._ranks.share(attempt(keyed))]
            packed = self._ranks.share(pack([candidate for _, candidate in local]))
            candidates = [candidate for part in packed for candidate in unpack(part)]
            places = _places([key for part in keys for key in part])
            shared = self._ranks.share(attempt(lambda: self._scored(candidates, places, rank, len(keys))))
            rewards, gaps = _assembled([json.loads(part) for part in shared], places)
        start = sum(len(part) for part in keys[:rank])
        own = slice(start, start + len(local))
        return (
            np.array(self._rule.numbers(rewards[own]), dtype=np.float32),
            {"order_gap": np.array(gaps[own], dtype=np.float32)},
        )

    def _candidates(
        self, images: Any, prompts: Sequence[str], metadata: Any
    ) -> Iterator[tuple[str, Candidate]]:
        single = split_images(images)
        if len(single) != len(prompts):
            raise ConfigError(f"received {len(single)} images and {len(prompts)} prompts")
        for n, (prompt, image) in enumerate(zip(prompts, single, strict=True)):
            yield self._key(prompt, metadata, n), self._rule.candidate(prompt, image)

    def _key(self, prompt: str, metadata: Any, n: int) -> str:
        if self._group_key is None:
            return prompt
        try:
            return json.dumps(metadata[n][self._group_key])
        except (TypeError, LookupError) as error:
            raise ConfigError(f"the metadata of image {n} has no plain {self._group_key!r}") from error

    def _scored(
        self, candidates: Sequence[Candidate], places: Mapping[str, list[int]], rank: int, world: int
    ) -> bytes:
        """The rewards and gaps of every `world`-th group, from number `rank` on, as JSON."""
        for key, members in places.items():
            if len(members) % self._group_size:
                raise ConfigError(
                    f"{len(members)} images of {key[:60]!r} are no whole groups of {self._group_size}: the "
                    "images of a prompt must be in one call, over all processes; for an evaluation with an "
                    "image a prompt, which has nothing to compare, pass the trainer another reward"
                )
        groups = [[candidates[n] for n in members] for members in list(places.values())[rank::world]]
        to_score = self._rule.to_score(groups)
        matrices = score_all(self._scorer, to_score)
        gaps: list[list[float]] = []
        rewards = self._rule.settle(
            groups, to_score, matrices, each=lambda matrix: gaps.append(_gaps(matrix))
        )
        return json.dumps(list(zip(rewards, gaps, strict=True))).encode()


def _places(keys: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for n, key in enumerate(keys):
        places.setdefault(key, []).append(n)
    return places


def _gaps(matrix: WinMatrix) -> list[float]:
    """Each candidate's order gap, the mean over its judged opponents; NaN where there is none."""
    known = np.isfinite(matrix.order_gap) & ~np.eye(matrix.size, dtype=bool)
    total = np.where(known, matrix.order_gap, 0).sum(axis=1, dtype=np.float64)
    count = known.sum(axis=1)
    return [float(gap) for gap in np.where(count > 0, total / np.maximum(count, 1), np.nan)]


def _assembled(shares: Sequence[Shares], places: Mapping[str, list[int]]) -> tuple[Rewards, list[float]]:
    count = sum(len(members) for members in places.values())
    rewards: Rewards = [None] * count
    gaps = [float("nan")] * count
    for number, members in enumerate(places.values()):
        own, own_gaps = shares[number % len(shares)][number // len(shares)]
        for n, reward, gap in zip(members, own, own_gaps, strict=True):
            rewards[n], gaps[n] = reward, gap
    return rewards, gaps
