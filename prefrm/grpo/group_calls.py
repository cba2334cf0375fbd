"""Scorers under trainers that hand a reward its whole group: Flow-Factory and slime.

A call is one group, so nothing has to be brought together. Neither package is imported.
"""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import numpy as np

from prefrm.errors import ConfigError, DataError
from prefrm.grpo.conversations import last_user_text
from prefrm.grpo.groups import GroupRule, RewardOptions
from prefrm.grpo.scorer import AsyncScorer, score_group
from prefrm.pixels import split_images
from prefrm.winmatrix import Floats, Scorer, score_all

__all__ = ["FlowFactoryReward", "SlimeReward"]


class FlowFactoryReward:
    """The call of a Flow-Factory `GroupwiseRewardModel` (`flow_factory/rewards/abc.py`), made a class so:

        class WinRate(GroupwiseRewardModel):
            required_fields = ("prompt", "image")
            __call__ = FlowFactoryReward(connect("grpc://judge:8001/judge"))

    It sets `use_tensor_inputs` of the class: where Flow-Factory converts a group to Pillow images, one NaN
    makes all of them black, and nobody can tell.

    Args:
        scorer: what judges the groups.
        options: `RewardOptions`. With `on_missing="drop"` an image without a reward gets NaN, which
            Flow-Factory does not skip: whoever drops must mask them. `reference` is called with the prompt
            and None. Flow-Factory does not tell its rewards the step, for the log.
    """

    def __init__(
        self,
        scorer: Scorer,
        **options: Unpack[RewardOptions],
    ) -> None:
        self._scorer = scorer
        self._rule = GroupRule.of(alone="set group_size", **options)

    def __set_name__(self, owner: Any, name: str) -> None:
        if "use_tensor_inputs" not in vars(owner):
            owner.use_tensor_inputs = True

    # No **kwargs: Flow-Factory passes every field of its samples that this signature names.
    def __call__(self, prompt: Sequence[str], image: Any = None) -> Floats:
        """The rewards of one group, float32 [G].

        Args:
            prompt: the same, G times.
            image: G Pillow images, or tensors CHW of floats in [0, 1]; or these as one batch. Flow-Factory
                leaves it out where any sample of the group has none: then all of them are missing.

        Raises:
            ConfigError: the prompts differ, or an image is not in one of these forms.
            MediaError: an image cannot be encoded and `on_missing` is "raise".
            ScoringError: the scorer could not answer.
            IncompleteMatrixError: an image has no reward and `on_missing` is "raise".
        """
        images = [None] * len(prompt) if image is None else split_images(image)
        if len(images) != len(prompt):
            raise ConfigError(f"received {len(images)} images and {len(prompt)} prompts")
        rows = [self._rule.candidate(text, one) for text, one in zip(prompt, images, strict=True)]
        group = self._rule.completed(rows)
        groups = self._rule.to_score([group])
        (rewards,) = self._rule.settle([group], groups, score_all(self._scorer, groups))
        return np.array(self._rule.numbers(rewards), dtype=np.float32)


class SlimeReward:
    """slime's `async f(args, samples)` for `--group-rm` (`slime/rollout/rm_hub/__init__.py`).

        # my_rewards.py, for --group-rm --custom-rm-path my_rewards.win_rate
        win_rate = SlimeReward(connect_async("grpc://judge:8001/judge"), to_image=render)

    slime evaluates nothing with `--group-rm`. A single sample, as a custom evaluation passes it without that
    option, is a group of one, and needs `on_single="reference"`.

    Args:
        scorer: what judges the groups.
        to_image: gives the image that a `Sample` stands for, in a form that `prefrm.pixels.encode_image`
            takes, rendered from its `response` or taken from its `metadata`; None, or a `DataError` that it
            raises, if there is none.
        to_prompt: gives the text to judge by. By default, of `sample.prompt`, the text or its last user
            message; not with slime's `--apply-chat-template`, which makes a text with the model's control
            tokens of it.
        options: `RewardOptions`. With `on_missing="drop"` a sample without a reward gets NaN. slime
            normalises a group with a NaN to NaN, and its filter `check_reward_nonzero_std` drops the group:
            whoever drops needs that filter, or `--custom-reward-post-process-path`. `reference` is called
            with the prompt and the sample's metadata. slime does not tell its rewards the step, for the log.
    """

    def __init__(
        self,
        scorer: AsyncScorer,
        to_image: Callable[[Any], Any],
        *,
        to_prompt: Callable[[Any], str] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        self._scorer = scorer
        self._to_image = to_image
        self._to_prompt = to_prompt
        self._rule = GroupRule.of(alone="set --n-samples-per-prompt", **options)

    async def __call__(self, args: Any, samples: Any) -> list[float] | float:
        """One reward for each sample of the group, or for the single sample.

        Raises:
            ConfigError: a sample is alone and has no reference, the prompts differ or are of a chat template,
                or `to_image` gives no image.
            MediaError: an image cannot be encoded and `on_missing` is "raise".
            ScoringError: the scorer could not answer.
            IncompleteMatrixError: a sample has no reward and `on_missing` is "raise".
        """
        if not isinstance(samples, Sequence):
            if self._rule.on_single != "reference":
                raise ConfigError(
                    "slime passed a single sample, which has no other to be compared with: run slime with "
                    '--group-rm; an evaluation of single samples needs on_single="reference"'
                )
            return (await self._rewards(args, [samples], evaluation=True))[0]
        if any(isinstance(sample, Sequence) for sample in samples):
            raise ConfigError(
                "--custom-generate-function-path returned several samples in the place of one, and slime's "
                "--group-rm gives one reward to each place of a group: let it return one sample"
            )
        return await self._rewards(args, samples)

    async def _rewards(self, args: Any, samples: Sequence[Any], *, evaluation: bool = False) -> list[float]:
        rows = [self._rule.candidate(self._prompt(args, sample), self._image(sample)) for sample in samples]
        group = self._rule.completed(rows, samples[0].metadata)
        return await score_group(self._rule, self._scorer, group, evaluation=evaluation)

    def _prompt(self, args: Any, sample: Any) -> str:
        if self._to_prompt is not None:
            return self._to_prompt(sample)
        if getattr(args, "apply_chat_template", False) and isinstance(sample.prompt, str):
            raise ConfigError(
                f"--apply-chat-template made {sample.prompt[:40]!r}... of the prompt, which is not what the "
                "image is of: keep the text in the dataset's metadata too, and pass "
                'to_prompt=lambda sample: sample.metadata["prompt"]'
            )
        return last_user_text(sample.prompt)

    def _image(self, sample: Any) -> Any:
        try:
            return self._to_image(sample)
        except DataError:
            return None
