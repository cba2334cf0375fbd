"""What reward functions write with `log_groups=`, under each trainer."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from prefrm.group_log import GroupLogReader
from prefrm.grpo import (
    AsyncPreferenceReward,
    FlowFactoryReward,
    FlowGRPOReward,
    PreferenceReward,
    SlimeReward,
    VerlReward,
)
from prefrm.rewards import Criteria
from prefrm.winmatrix import Group
from tests.prefrm.grpo.pixels import AsyncPixelScorer, PixelScorer, shades
from tests.prefrm.grpo.test_reward import Trainer, to_image


def entries(folder):
    return GroupLogReader(folder).entries()


def test_each_group_is_logged_with_its_step_its_matrix_and_its_rewards(tmp_path, scorer):
    reward = PreferenceReward(scorer, to_image, num_generations=3, log_groups=tmp_path, name="judge")
    state = SimpleNamespace(global_step=4)
    rewards = reward(["a"] * 3 + ["b"] * 3 + ["c"] * 3, list("012-05--1"), trainer_state=state)

    reader = GroupLogReader(tmp_path)
    a, b, c = reader.entries()
    assert [(one.prompt, one.step, one.evaluation) for one in (a, b, c)] == [
        (prompt, 5, False) for prompt in "abc"
    ]
    assert [*a.rewards["judge"], *b.rewards["judge"], *c.rewards["judge"]] == rewards
    assert reader.group(b.id) == Group(prompt="b", candidates=(None, b"0", b"5"))
    assert (a.matrices["judge"].win_rate() == np.float32(rewards[:3])).all()
    assert b.matrices["judge"].errors[0] and b.matrices["judge"].valid[1, 2]
    # Of one candidate that could be made, nothing was asked.
    assert c.matrices["judge"].reason(0, 2) == "not scored"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_evaluation_is_told_from_the_training(tmp_path, async_scorer):
    reward = AsyncPreferenceReward(async_scorer, to_image, log_groups=str(tmp_path))
    state = SimpleNamespace(global_step=4)

    def call(training, size):
        log_metric = Trainer(training=training).log_metric
        texts = list("012")[:size]
        asyncio.run(reward(["a"] * size, texts, trainer_state=state, log_metric=log_metric))

    call(True, 3)
    call(False, 2)
    assert [(one.step, one.evaluation, one.size) for one in entries(tmp_path)] == [
        (4, True, 2),
        (5, False, 3),
    ]


def test_several_criteria_are_logged_beside_what_they_are_combined_to(tmp_path, scorer):
    several = PreferenceReward(
        scorer,
        to_image,
        num_generations=2,
        criteria=Criteria(names=("", "colour")),
        log_groups=tmp_path / "several",
    )
    several(["a"] * 2, ["0", "1"])
    (entry,) = entries(tmp_path / "several")
    assert list(entry.matrices) == ["preference", "preference/overall", "preference/colour"]
    one = PreferenceReward(
        scorer, to_image, num_generations=2, criteria=["colour"], log_groups=tmp_path / "one"
    )
    one(["a"] * 2, ["0", "1"])
    (entry,) = entries(tmp_path / "one")
    assert (list(entry.matrices), entry.criterion) == (["preference"], "colour")


def flow_grpo(log_groups):
    reward = FlowGRPOReward(PixelScorer(), group_size=2, log_groups=log_groups)
    reward(shades(0.2, 0.7), ["a"] * 2, only_strict=True)


def flow_factory(log_groups):
    FlowFactoryReward(PixelScorer(), log_groups=log_groups)(["a"] * 2, shades(0.2, 0.7))


def slime(log_groups):
    reward = SlimeReward(AsyncPixelScorer(), lambda sample: sample.image, log_groups=log_groups)
    samples = [SimpleNamespace(prompt="a", image=image, metadata={}) for image in shades(0.2, 0.7)]
    asyncio.run(reward(SimpleNamespace(), samples))


def verl(log_groups):
    reward = VerlReward(AsyncPixelScorer(), group_size=2, to_prompt=lambda item: "a", log_groups=log_groups)

    def sample(image):
        return [SimpleNamespace(batch={"responses": image}, non_tensor_batch={"uid": "x"})]

    async def both():
        await asyncio.gather(*(reward(sample(image)) for image in shades(0.2, 0.7)))

    asyncio.run(both())


@pytest.mark.parametrize("trainer", [flow_grpo, flow_factory, slime, verl])
def test_the_other_trainers_log_too(tmp_path, trainer):
    trainer(tmp_path)
    (entry,) = entries(tmp_path)
    assert (entry.prompt, entry.step, entry.evaluation) == ("a", None, False)
    assert entry.rewards["preference"] == tuple(entry.matrices["preference"].win_rate())
    assert entry.rewards["preference"][0] < 0.5
