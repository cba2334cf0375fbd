"""A scorer as `run_single` of a verl reward manager, for images as verl-omni generates them.

verl asks for one sample at a time, all samples of a group at once. Each call waits here until its group is
whole; the group is scored once, and every call gets its part.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Unpack

from prefrm.errors import ConfigError
from prefrm.grpo.conversations import last_user_text
from prefrm.grpo.groups import GroupRule, RewardOptions
from prefrm.grpo.layout import Candidate
from prefrm.grpo.scorer import AsyncScorer, score_group

__all__ = ["VerlReward"]

# The calls of an asynchronous actor that Ray runs at once by default; verl sets no other number.
RAY_CALLS = 1000
# A call that is about to begin does so within this time.
STUCK_S = 5.0

NO_VALIDATION = "set trainer.val_before_train=False and trainer.test_freq=-1"
ALONE = f"verl validates with one seed for all samples of a prompt: {NO_VALIDATION}"


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    came: int = 0
    rows: list[Candidate] = field(default_factory=list)
    rewards: asyncio.Future[list[float]]
    scoring: asyncio.Task[None] | None = None

    def fail(self, error: Exception) -> None:
        """Raise it for every sample of the group, those that come later included."""
        if not self.rewards.done():
            self.rewards.set_exception(error)
            # Asked for here, so that asyncio says nothing of it if all samples were cancelled.
            self.rewards.exception()
            self.rows.clear()


class VerlReward:
    """`async run_single(data)` of a verl `RewardManagerBase`, whose subclass it makes a group-wise one:

        class WinRate(VisualRewardManager):
            run_single = VerlReward(connect_async("grpc://judge:8001/judge"), group_size=16)

    The subclass is named in `reward.reward_manager` (source `importlib`). `reward.num_workers` must be 1, as
    verl gives a sample to any worker. The contracts are
    `verl/experimental/reward_loop/reward_manager/base.py` and, for images,
    `verl_omni/reward_loop/reward_manager/visual.py`: `data` has one item with `batch["responses"]`,
    [3, H, W], uint8 or floats in [0, 1], and `non_tensor_batch["uid"]`, which names its group. In
    validation, where `meta_info["validate"]` is true, each sample is a group of one: all samples of a prompt
    have the same seed there.

    Args:
        scorer: what judges the groups.
        group_size: the samples of a prompt, `rollout.n`.
        group_timeout: seconds that an incomplete group waits for a further sample, of any group. It stays
            incomplete if a rollout of it fails, which verl does not tell a reward.
        to_prompt: gives the text to judge by; by default, of `raw_prompt`, the text or its last user message.
        options: `RewardOptions`. With `on_missing="drop"` a sample without a reward gets NaN, and of a group
            that stays incomplete, those that came are compared. `reference` is called with the prompt and the
            sample's `non_tensor_batch`. verl does not tell its rewards the step, for the log.
    """

    def __init__(
        self,
        scorer: AsyncScorer,
        *,
        group_size: int,
        group_timeout: float = 600.0,
        to_prompt: Callable[[Any], str] | None = None,
        **options: Unpack[RewardOptions],
    ) -> None:
        if group_size < 2:
            raise ConfigError(f"a group needs at least 2 samples; received group_size={group_size}")
        self._scorer = scorer
        self._group_size = group_size
        self._group_timeout = group_timeout
        self._to_prompt = to_prompt or _raw_prompt
        self._rule = GroupRule.of(alone=ALONE, **options)
        self._waiting: dict[str, _Waiting] = {}
        self._alarm: asyncio.TimerHandle | None = None

    async def __call__(self, data: Any) -> dict[str, Any]:
        """`{"reward_score": its reward, "reward_extra_info": {}}`, once its group is whole.

        What is wrong with one sample is raised for each of its group, at once.

        Raises:
            ConfigError: the group did not become whole, its prompts differ, or a sample's image or prompt is
                of another form.
            MediaError: a sample's image cannot be encoded and `on_missing` is "raise".
            ScoringError: the scorer could not answer.
            IncompleteMatrixError: a sample has no reward and `on_missing` is "raise".
        """
        item = data[0]
        if getattr(item, "meta_info", {}).get("validate"):
            rows = self._rule.completed([self._candidate(item)], item.non_tensor_batch)
            (reward,) = await score_group(self._rule, self._scorer, rows, evaluation=True)
        else:
            reward = await self._in_group(str(item.non_tensor_batch["uid"]), item)
        return {"reward_score": reward, "reward_extra_info": {}}

    async def _in_group(self, uid: str, item: Any) -> float:
        if uid not in self._waiting:
            self._waiting[uid] = _Waiting(rewards=asyncio.get_running_loop().create_future())
        group = self._waiting[uid]
        place = group.came
        group.came += 1
        if not group.rewards.done():
            try:
                group.rows.append(self._candidate(item))
            except Exception as error:
                group.fail(error)
        if group.came == self._group_size:
            self._begin(uid)
        self._set_alarm()
        return (await asyncio.shield(group.rewards))[place]

    def _candidate(self, item: Any) -> Candidate:
        return self._rule.candidate(self._to_prompt(item), item.batch["responses"])

    def _begin(self, uid: str) -> None:
        """Score a group, in a task of its own: whichever sample is cancelled, the others are scored."""
        group = self._waiting.pop(uid)
        group.scoring = asyncio.create_task(self._score(group))

    async def _score(self, group: _Waiting) -> None:
        if group.rewards.done():
            return
        try:
            group.rewards.set_result(await score_group(self._rule, self._scorer, group.rows))
        # Whatever went wrong concerns every sample of the group.
        except Exception as error:
            group.fail(error)
        finally:
            group.rewards.cancel()

    def _set_alarm(self) -> None:
        """Give incomplete groups up unless a further sample comes in time."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if waiting := sum(group.came for group in self._pending().values()):
            stuck = waiting == RAY_CALLS
            delay = min(STUCK_S, self._group_timeout) if stuck else self._group_timeout
            self._alarm = asyncio.get_running_loop().call_later(delay, self._give_up, stuck)

    def _pending(self) -> dict[str, _Waiting]:
        return {uid: group for uid, group in self._waiting.items() if not group.rewards.done()}

    def _give_up(self, stuck: bool) -> None:
        for uid, group in self._pending().items():
            if self._rule.on_missing == "drop" and not stuck:
                self._begin(uid)
            else:
                group.fail(self._incomplete(uid, group.came, stuck))

    def _incomplete(self, uid: str, came: int, stuck: bool) -> ConfigError:
        reason = (
            f"Ray starts no further call, as {RAY_CALLS} wait for theirs: make data.train_batch_size * "
            f"rollout.n at most {RAY_CALLS}, or set ray.actor.DEFAULT_MAX_CONCURRENCY_ASYNC beside the class"
            if stuck
            else f"no further sample of any group for {self._group_timeout:g} s: run verl with "
            "reward.num_workers=1, and group_size as rollout.n; if a rollout failed (see verl's log), "
            'on_missing="drop" compares the others of its group'
        )
        validation = (
            f"; in a validation of which verl-omni says nothing, {NO_VALIDATION}" if came == 1 else ""
        )
        return ConfigError(
            f"{came} of {self._group_size} samples of the group {uid} came, and {reason}{validation}"
        )


def _raw_prompt(item: Any) -> str:
    prompt = item.non_tensor_batch.get("raw_prompt")
    if prompt is None:
        raise ConfigError("the sample has no raw_prompt; set data.return_raw_chat=True, or pass to_prompt")
    return last_user_text(prompt)
