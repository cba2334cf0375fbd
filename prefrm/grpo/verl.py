"""A scorer as `run_single` of a verl reward manager, for images as verl-omni generates them.

verl asks for one sample at a time, all samples of a group at once. Each call waits here until its group is
whole; the group is scored once, and every call gets its part.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from prefrm.errors import ConfigError
from prefrm.grpo.conversations import last_user_text
from prefrm.grpo.groups import GroupRule
from prefrm.grpo.layout import Candidate
from prefrm.grpo.scorer import AsyncScorer
from prefrm.rewards import RewardFunction
from prefrm.winmatrix import OnMissing

__all__ = ["VerlReward"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    came: int = 0
    rows: list[Candidate] = field(default_factory=list)
    rewards: asyncio.Future[list[float]]
    patience: asyncio.TimerHandle
    scoring: asyncio.Task[None] | None = None

    def fail(self, error: Exception) -> None:
        """Raise it for every sample of the group, those that come later included."""
        if not self.rewards.done():
            self.rewards.set_exception(error)
            # Asked for here, so that asyncio says nothing of it if all samples were cancelled.
            self.rewards.exception()


class VerlReward:
    """`async run_single(data)` of a verl `RewardManagerBase`, whose subclass it makes a group-wise one:

        class WinRate(VisualRewardManager):
            run_single = VerlReward(connect_async("grpc://judge:8001/judge"), group_size=16)

    The subclass is named in `reward.reward_manager` (source `importlib`). `reward.num_workers` must be 1, as
    verl gives a sample to any worker, and validation needs as many samples a prompt
    (`rollout.val_kwargs.n`) or another manager. The contracts are
    `verl/experimental/reward_loop/reward_manager/base.py` and, for images,
    `verl_omni/reward_loop/reward_manager/visual.py`: `data` has one item with `batch["responses"]`,
    [3, H, W], uint8 or floats in [0, 1], and `non_tensor_batch["uid"]`, which names its group.

    Args:
        scorer: what judges the groups.
        group_size: the samples of a prompt, `rollout.n`.
        patience: seconds for a group to become whole, from its first sample on.
        to_prompt: gives the text to judge by; by default, of `raw_prompt`, the text or its last user message.
        reward: a name in `prefrm.rewards.REWARDS`, or such a function.
        on_missing: what to do about a sample without a reward: "raise", or "drop", which gives it NaN. A
            sample whose image cannot be encoded (a pixel is NaN or out of range) is one of them.
    """

    def __init__(
        self,
        scorer: AsyncScorer,
        *,
        group_size: int,
        patience: float = 3600.0,
        to_prompt: Callable[[Any], str] = lambda item: last_user_text(item.non_tensor_batch["raw_prompt"]),
        reward: str | RewardFunction = "win_rate",
        on_missing: OnMissing = "raise",
    ) -> None:
        if group_size < 2:
            raise ConfigError(f"a group needs at least 2 samples; received group_size={group_size}")
        self._scorer = scorer
        self._group_size = group_size
        self._patience = patience
        self._to_prompt = to_prompt
        self._rule = GroupRule.of(reward, on_missing)
        self._waiting: dict[str, _Waiting] = {}

    async def __call__(self, data: Any) -> dict[str, Any]:
        """`{"reward_score": its reward, "reward_extra_info": {}}`, once its group is whole.

        What is wrong with one sample is raised for each of its group, at once.

        Raises:
            ConfigError: the group did not become whole in time, its prompts differ, or a sample's image or
                prompt is of another form.
            MediaError: a sample's image cannot be encoded and `on_missing` is "raise".
            ScoringError: the scorer could not answer.
            IncompleteMatrixError: a sample has no reward and `on_missing` is "raise".
        """
        item = data[0]
        uid = str(item.non_tensor_batch["uid"])
        group = self._group(uid)
        place = group.came
        group.came += 1
        try:
            group.rows.append(self._candidate(item))
        except Exception as error:
            group.fail(error)
        if group.came == self._group_size:
            group.patience.cancel()
            del self._waiting[uid]
            # In a task of its own: whichever sample is cancelled, the others are scored.
            group.scoring = asyncio.create_task(self._score(group))
        rewards = await asyncio.shield(group.rewards)
        return {"reward_score": rewards[place], "reward_extra_info": {}}

    def _group(self, uid: str) -> _Waiting:
        if uid not in self._waiting:
            loop = asyncio.get_running_loop()
            patience = loop.call_later(self._patience, self._give_up, uid)
            self._waiting[uid] = _Waiting(rewards=loop.create_future(), patience=patience)
        return self._waiting[uid]

    def _candidate(self, item: Any) -> Candidate:
        return self._rule.candidate(self._to_prompt(item), item.batch["responses"])

    def _give_up(self, uid: str) -> None:
        group = self._waiting.pop(uid)
        group.fail(
            ConfigError(
                f"{group.came} of {self._group_size} samples of the group {uid} came within "
                f"{self._patience:g} s; run verl with reward.num_workers=1, and group_size as rollout.n"
            )
        )

    async def _score(self, group: _Waiting) -> None:
        if group.rewards.done():
            return
        try:
            groups = self._rule.to_score([group.rows])
            matrices = await self._scorer.score(groups) if groups else []
            (rewards,) = self._rule.settle([group.rows], groups, matrices)
            group.rewards.set_result(self._rule.numbers(rewards))
        # Whatever went wrong concerns every sample of the group.
        except Exception as error:
            group.fail(error)
        finally:
            group.rewards.cancel()
