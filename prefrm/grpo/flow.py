"""A scorer as a reward function of flow_grpo: `fn(images, prompts, metadata)`.

The trainer calls it on threads, with each process's own batches. Its samplers deal the images of a prompt out
over the processes, and newer ones over all batches of an epoch, so the groups are collected first.
"""

import json
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Unpack

import numpy as np

from prefrm.errors import ConfigError
from prefrm.grpo.collector import Collector, Keyed
from prefrm.grpo.groups import GroupRule, RewardOptions
from prefrm.grpo.layout import Candidate
from prefrm.pixels import split_images
from prefrm.winmatrix import Floats, Scorer, WinMatrix, score_all

__all__ = ["FlowGRPOReward"]

ADVICE = (
    "set group_size to the trainer's sample.num_image_per_prompt, and give its pool a thread for each batch "
    "of an epoch: futures.ThreadPoolExecutor(max_workers=train_sampler.num_batches_per_epoch)"
)

ALONE = "flow_grpo evaluates with one image of a prompt, every eval_freq epochs and before the first"

Outcome = tuple[float, float]
"""A candidate's reward and its mean order gap."""


class FlowGRPOReward:
    """A reward function in the form of `flow_grpo/rewards.py`.

    In training, `group_size` images with the same prompt and the same metadata are a group, from whichever
    calls and processes they come; a call returns once the groups of all its images are scored. In evaluation
    each image is a group of one, see `on_single`.

    flow_grpo passes its rewards no sign of an evaluation. But its `multi_score`, which calls them, has the
    argument `only_strict`, which every training script sets to True in training and to False in evaluation.
    It is read there, unless it is passed.

    Args:
        scorer: what judges the groups.
        group_size: the trainer's images of a prompt (`config.sample.num_image_per_prompt`). A prompt that
            was drawn twice makes two groups.
        group_key: the entry of each image's metadata that names its group, instead of prompt and metadata.
        group_timeout: seconds that an incomplete group waits for a further call.
        options: `RewardOptions`. With `on_missing="drop"` an image without a reward gets NaN, which the
            trainer does not skip: whoever drops must mask them. `reference` is called with the prompt and the
            image's metadata. flow_grpo does not tell its rewards the step, for the log.

    Raises:
        ConfigError: a setting is wrong.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        group_size: int,
        group_key: str | None = None,
        group_timeout: float = 600.0,
        **options: Unpack[RewardOptions],
    ) -> None:
        if group_size < 2:
            raise ConfigError(f"a group needs at least 2 images; received group_size={group_size}")
        self._scorer = scorer
        self._group_key = group_key
        self._rule = GroupRule.of(alone=ALONE, **options)
        self._groups = Collector(self._judged, size=group_size, group_timeout=group_timeout, advice=ADVICE)

    def __call__(
        self,
        images: Any,
        prompts: Sequence[str],
        metadata: Any = None,
        ref_images: Any = None,
        only_strict: bool | None = None,
        **options: Any,
    ) -> tuple[Floats, dict[str, Floats]]:
        """One reward for each image of this process, and their mean order gaps.

        Args:
            images: a tensor or an array, NCHW or NHWC, of floats in [0, 1] or of uint8; or a sequence of
                images.
            prompts: one for each image.
            metadata: one mapping for each image, or nothing.
            ref_images: the source images of an editing trainer; without effect, as their paths are metadata.
            only_strict: False in evaluation; None reads it of the calling `multi_score`.
            options: others that a variant of the trainer passes; without effect.

        Raises:
            ConfigError: the images are in another form, or a group does not become whole.
            MediaError: an image cannot be encoded and `on_missing` is "raise".
            ScoringError: the scorer could not answer, here or on another process.
            IncompleteMatrixError: an image has no reward and `on_missing` is "raise".
        """
        only_strict = _only_strict() if only_strict is None else only_strict
        outcomes: list[Outcome]
        if only_strict is False:
            groups = [
                self._rule.completed([item.candidate], metadata[n] if metadata else None)
                for n, item in enumerate(self._items(images, prompts, metadata))
            ]
            outcomes = [outcome for (outcome,) in self._judged(groups, evaluation=True)]
        else:
            outcomes = self._groups.outcomes(lambda: self._items(images, prompts, metadata))
        rewards, gaps = np.array(outcomes, dtype=np.float32).reshape(-1, 2).T
        return rewards, {"order_gap": gaps}

    def _items(self, images: Any, prompts: Sequence[str], metadata: Any) -> list[Keyed]:
        single = split_images(images)
        if len(single) != len(prompts):
            raise ConfigError(f"received {len(single)} images and {len(prompts)} prompts")
        return [
            Keyed(self._key(prompt, metadata, n), self._rule.candidate(prompt, image))
            for n, (prompt, image) in enumerate(zip(prompts, single, strict=True))
        ]

    def _key(self, prompt: str, metadata: Any, n: int) -> str:
        try:
            if self._group_key is not None:
                return json.dumps(metadata[n][self._group_key])
            about = metadata[n] if metadata else None
            return f"{prompt} {json.dumps(about, sort_keys=True)}" if about else prompt
        except (TypeError, ValueError, LookupError) as error:
            entry = "plain values" if self._group_key is None else f"plain {self._group_key!r}"
            raise ConfigError(
                f"the metadata of image {n} has no {entry} to tell its group by ({error}); pass group_key, "
                "the entry that has"
            ) from error

    def _judged(self, groups: list[list[Candidate]], evaluation: bool = False) -> list[list[Outcome]]:
        """The outcome of each candidate."""
        to_score = self._rule.to_score(groups)
        gaps: list[list[float]] = []
        rewards = self._rule.settle(
            groups,
            to_score,
            score_all(self._scorer, to_score),
            each=lambda matrix: gaps.append(_gaps(matrix)),
            evaluation=evaluation,
        )
        return [
            # A reference has a gap, but no reward.
            list(zip(self._rule.numbers(row), gap, strict=False))
            for row, gap in zip(rewards, gaps, strict=True)
        ]


def _only_strict() -> bool | None:
    """The variable of this name of the innermost caller that has it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if isinstance(value := frame.f_locals.get("only_strict"), bool):
            return value
        frame = frame.f_back
    return None


def _gaps(matrix: WinMatrix) -> list[float]:
    """Each candidate's order gap, the mean over its judged opponents; NaN where there is none."""
    known = np.isfinite(matrix.order_gap) & ~np.eye(matrix.size, dtype=bool)
    total = np.where(known, matrix.order_gap, 0).sum(axis=1, dtype=np.float64)
    count = known.sum(axis=1)
    return [float(gap) for gap in np.where(count > 0, total / np.maximum(count, 1), np.nan)]
