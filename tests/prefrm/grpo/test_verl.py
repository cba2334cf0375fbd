"""`run_single` of a verl reward manager: one sample a call, one group a score."""

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from prefrm.errors import ConfigError, MediaError, ServerUnavailableError
from prefrm.grpo import VerlReward
from prefrm.grpo.verl import RAY_CALLS
from tests.prefrm.grpo.pixels import AsyncPixelScorer, shades
from tests.prefrm.grpo.test_group_calls import win_rates

torch = pytest.importorskip("torch")


class Data:
    """A `DataProto` of one item, as verl_omni/agent_loop/diffusion_agent_loop.py makes it."""

    def __init__(self, uid, shade, prompt="a cat"):
        pixels = torch.from_numpy((shades(shade) * 255).round()).to(torch.uint8)
        self.batch = {"responses": pixels}
        self.non_tensor_batch = {
            "uid": np.array([uid]),
            "raw_prompt": np.array([[{"role": "user", "content": prompt}]]),
        }

    def __len__(self):
        return 1

    def __getitem__(self, n):
        return SimpleNamespace(
            batch={name: tensor[n] for name, tensor in self.batch.items()},
            non_tensor_batch={name: array[n] for name, array in self.non_tensor_batch.items()},
        )


def run(reward, *data):
    """As a `RewardLoopWorker` does, `reward_manager.run_single(data)` for every sample at once."""

    class Manager:
        run_single = reward

    async def main():
        tasks = [asyncio.create_task(Manager().run_single(one)) for one in data]
        return await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def test_every_sample_gets_its_part_of_its_group():
    scorer = AsyncPixelScorer()
    order = [("x", 0.1), ("y", 0.9), ("x", 0.3), ("y", 0.2), ("x", 0.2), ("y", 0.5)]
    outputs = run(VerlReward(scorer, group_size=3), *(Data(*one) for one in order))
    assert [set(output) for output in outputs] == [{"reward_score", "reward_extra_info"}] * 6
    rewards = [output["reward_score"] for output in outputs]
    assert rewards[0::2] == pytest.approx(win_rates(0.1, 0.3, 0.2).tolist(), abs=1e-6)
    assert rewards[1::2] == pytest.approx(win_rates(0.9, 0.2, 0.5).tolist(), abs=1e-6)
    assert [(group.prompt, group.size) for group in scorer.groups] == [("a cat", 3)] * 2


def test_a_group_of_the_same_name_may_come_again():
    reward = VerlReward(AsyncPixelScorer(), group_size=2)
    outputs = run(reward, Data("x", 0.1), Data("x", 0.3), Data("x", 0.4), Data("x", 0.2))
    rewards = [output["reward_score"] for output in outputs]
    assert rewards == pytest.approx([*win_rates(0.1, 0.3), *win_rates(0.4, 0.2)], abs=1e-6)


def test_a_group_that_never_is_whole_is_an_error_for_each_of_it():
    outputs = run(
        VerlReward(AsyncPixelScorer(), group_size=3, group_timeout=0.05), Data("x", 0.1), Data("x", 0.2)
    )
    for output in outputs:
        assert isinstance(output, ConfigError)
        assert "2 of 3 samples of the group x came, and no further sample of any group for 0.05 s" in str(
            output
        )
        assert "run verl with reward.num_workers=1" in str(output)


def test_samples_of_other_groups_keep_an_incomplete_one_waiting():
    async def main():
        reward = VerlReward(AsyncPixelScorer(), group_size=2, group_timeout=0.3)
        first = asyncio.create_task(reward(Data("x", 0.1)))
        for n in range(5):
            await asyncio.sleep(0.1)
            await asyncio.gather(reward(Data(f"y{n}", 0.1)), reward(Data(f"y{n}", 0.2)))
        return await asyncio.gather(first, reward(Data("x", 0.2)))

    assert [output["reward_score"] for output in asyncio.run(main())] == pytest.approx(
        win_rates(0.1, 0.2).tolist(), abs=1e-6
    )


def test_a_sample_without_its_prompt_says_which_setting_brings_it():
    data = Data("x", 0.1)
    del data.non_tensor_batch["raw_prompt"]
    (output,) = run(VerlReward(AsyncPixelScorer(), group_size=2), data)
    assert isinstance(output, ConfigError) and "data.return_raw_chat=True" in str(output)


@pytest.mark.parametrize("on_missing", ["raise", "drop"])
def test_more_incomplete_groups_than_ray_runs_calls_end_at_once(monkeypatch, on_missing):
    """Ray starts a call of an actor when an earlier one has ended: here none ever would."""
    monkeypatch.setattr("prefrm.grpo.verl.STUCK_S", 0.2)
    data = Data("x", 0.1)
    image = data.batch["responses"].numpy()[0]

    def sample(uid):
        values = {"uid": uid, "raw_prompt": [{"role": "user", "content": "a cat"}]}
        return [SimpleNamespace(batch={"responses": image}, non_tensor_batch=values, meta_info={})]

    async def main():
        reward = VerlReward(AsyncPixelScorer(), group_size=4, on_missing=on_missing)
        room = asyncio.Semaphore(RAY_CALLS)

        async def call(uid):
            async with room:
                return await reward(sample(uid))

        # One sample of each of 600 prompts after the other.
        calls = [call(str(n % 600)) for n in range(2 * 600)]
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 30)

    outputs = asyncio.run(main())
    assert "make data.train_batch_size * rollout.n at most 1000" in str(outputs[0])
    assert sum(isinstance(output, ConfigError) for output in outputs) >= RAY_CALLS


def test_a_failure_is_everybodys():
    class Down:
        async def score(self, groups):
            raise ServerUnavailableError("nobody answers")

    outputs = run(VerlReward(Down(), group_size=2), Data("x", 0.1), Data("x", 0.2))
    assert [type(output) for output in outputs] == [ServerUnavailableError] * 2
    outputs = run(VerlReward(AsyncPixelScorer(), group_size=2), Data("x", 0.1), Data("x", 0.2, "a dog"))
    assert [type(output) for output in outputs] == [ConfigError] * 2


def test_a_sample_that_is_cancelled_takes_no_other_along():
    class Slow(AsyncPixelScorer):
        async def score(self, groups):
            await go_on.wait()
            return await super().score(groups)

    async def main():
        reward = VerlReward(Slow(), group_size=2)
        first, last = (asyncio.create_task(reward(Data("x", 0.1 * n))) for n in (1, 2))
        await asyncio.sleep(0.05)
        last.cancel()
        go_on.set()
        return await asyncio.wait_for(asyncio.gather(first, last, return_exceptions=True), 5)

    go_on = asyncio.Event()
    first, last = asyncio.run(main())
    assert first["reward_score"] == pytest.approx(win_rates(0.1, 0.2)[0], abs=1e-6)
    assert isinstance(last, asyncio.CancelledError)


def spoilt(uid):
    """A sample with a pixel that is NaN."""
    data = Data(uid, 0.5)
    data.batch["responses"] = torch.full((1, 3, 4, 5), torch.nan)
    return data


def shapeless(uid):
    data = Data(uid, 0.5)
    data.batch["responses"] = torch.zeros(1, 7)
    return data


@pytest.mark.parametrize(
    ("broken", "kind", "reason"),
    [
        (spoilt("x"), MediaError, "a pixel that is NaN"),
        (shapeless("x"), ConfigError, "received float32 [7]"),
        (Data("x", 0.5, prompt=""), ConfigError, "no user message with text"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_sample_that_is_no_image_fails_its_whole_group_at_once(broken, kind, reason, place):
    samples = [Data("x", 0.1), Data("x", 0.2)]
    samples.insert(place, broken)
    reward = VerlReward(AsyncPixelScorer(), group_size=3, group_timeout=60.0)
    started = time.monotonic()
    outputs = run(reward, *samples, Data("y", 0.1), Data("y", 0.2), Data("y", 0.3))
    assert time.monotonic() - started < 30
    for output in outputs[:3]:
        assert isinstance(output, kind) and reason in str(output)
    assert all("reward_score" in output for output in outputs[3:])


def test_the_siblings_of_a_spoilt_sample_fail_before_the_group_is_whole():
    outputs = run(
        VerlReward(AsyncPixelScorer(), group_size=4, group_timeout=60.0), Data("x", 0.1), spoilt("x")
    )
    assert [type(output) for output in outputs] == [MediaError] * 2


def test_a_spoilt_sample_is_a_missing_candidate_where_those_are_dropped():
    reward = VerlReward(AsyncPixelScorer(), group_size=3, on_missing="drop")
    rewards = [one["reward_score"] for one in run(reward, Data("x", 0.1), spoilt("x"), Data("x", 0.3))]
    assert np.isnan(rewards[1])
    assert [rewards[0], rewards[2]] == pytest.approx(win_rates(0.1, 0.3).tolist(), abs=1e-6)
    none = run(VerlReward(AsyncPixelScorer(), group_size=2, on_missing="drop"), spoilt("x"), spoilt("x"))
    assert all(np.isnan(one["reward_score"]) for one in none)
