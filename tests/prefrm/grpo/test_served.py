"""The trainers' contracts over a real server give what they give over a scorer in the same process."""

import asyncio
import pickle
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from prefrm.client import connect, connect_async
from prefrm.grpo import (
    AsyncPreferenceReward,
    FlowFactoryReward,
    FlowGRPOReward,
    PreferenceReward,
    SlimeReward,
)
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer
from tests.prefrm.grpo.pixels import PixelScorer, shades
from tests.prefrm.grpo.test_group_calls import sample
from tests.prefrm.grpo.test_group_calls import to_image as drawn

VALUES = (0.2, 0.7, 0.4, 0.5)


@pytest.fixture(scope="module")
def served() -> Iterator[Addresses]:
    with background(JudgeServer(PixelScorer(), ModelInfo(name="judge"))) as addresses:
        yield addresses


@pytest.fixture(scope="module", params=["grpc_url", "http_url"])
def url(request, served):
    return getattr(served, request.param)


def test_flow_grpo(url):
    images, prompts = shades(*VALUES), ["a", "b", "b", "a"]
    with connect(url) as judge:
        rewards, info = FlowGRPOReward(judge, group_size=2)(images, prompts, [{}] * 4)
    local, local_info = FlowGRPOReward(PixelScorer(), group_size=2)(images, prompts, [{}] * 4)
    assert np.array_equal(rewards, local)
    assert np.array_equal(info["order_gap"], local_info["order_gap"])


def test_flow_factory(url):
    call = {"prompt": ["a"] * 4, "image": list(shades(*VALUES))}
    with connect(url) as judge:
        assert np.array_equal(FlowFactoryReward(judge)(**call), FlowFactoryReward(PixelScorer())(**call))


def test_slime(url):
    async def main():
        async with connect_async(url) as judge:
            return await SlimeReward(judge, drawn)(None, [sample(str(value)) for value in VALUES])

    expected = FlowFactoryReward(PixelScorer())(["a"] * 4, list(shades(*VALUES)))
    assert asyncio.run(main()) == expected.tolist()


def to_image(completion, **columns):
    return Image.new("RGB", (4, 5), (round(float(completion) * 255),) * 3)


@pytest.mark.parametrize(
    ("kind", "connected"), [(PreferenceReward, connect), (AsyncPreferenceReward, connect_async)]
)
def test_trls_asynchronous_trainer_gets_it_through_a_pickle_and_connects_there(url, kind, connected):
    reward = kind(connected(url), to_image, num_generations=4)
    there = pickle.loads(pickle.dumps(reward))  # noqa: S301
    call = {
        "prompts": ["a"] * 4,
        "completions": [str(value) for value in VALUES],
        "completion_ids": [[1]] * 4,
    }

    async def main():
        # As AsyncRolloutWorker does, on the event loop of its process.
        if kind is PreferenceReward:
            rewards = await asyncio.to_thread(there, **call)
            there._scorer.close()
        else:
            rewards = await there(**call)
            await there._scorer.close()
        return rewards

    expected = FlowFactoryReward(PixelScorer())(["a"] * 4, list(shades(*VALUES)))
    assert asyncio.run(main()) == expected.tolist()
