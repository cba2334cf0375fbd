"""Under every trainer an image that cannot be encoded stops the run, or is dropped where drop was asked."""

import asyncio
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from prefrm.errors import ConfigError, IncompleteMatrixError, MediaError, OutOfMemoryError
from prefrm.grpo import FlowFactoryReward, FlowGRPOReward, PreferenceReward, SlimeReward, VerlReward
from tests.prefrm.grpo.pixels import AsyncPixelScorer, PixelScorer, shades
from tests.prefrm.grpo.test_group_calls import win_rates


def flow_grpo(images, scorer=None, **options):
    prompts = ["a cat"] * len(images)
    return FlowGRPOReward(scorer or PixelScorer(), group_size=len(images), **options)(images, prompts)[0]


def flow_factory(images, scorer=None, **options):
    return FlowFactoryReward(scorer or PixelScorer(), **options)(["a cat"] * len(images), list(images))


def trl(images, scorer=None, **options):
    reward = PreferenceReward(
        scorer or PixelScorer(), lambda n, **_: images[int(n)], num_generations=len(images), **options
    )
    return reward(["a cat"] * len(images), [str(n) for n in range(len(images))])


def slime(images, **options):
    samples = [SimpleNamespace(prompt="a cat", image=image, metadata={}) for image in images]
    reward = SlimeReward(AsyncPixelScorer(), lambda sample: sample.image, **options)
    return asyncio.run(reward(None, samples))


def verl(images, **options):
    reward = VerlReward(AsyncPixelScorer(), group_size=len(images), **options)

    async def main():
        items = [
            SimpleNamespace(batch={"responses": image}, non_tensor_batch={"uid": "x", "raw_prompt": "a cat"})
            for image in images
        ]
        return await asyncio.gather(*(reward([item]) for item in items))

    return [one["reward_score"] for one in asyncio.run(main())]


ADAPTERS = [flow_grpo, flow_factory, trl, slime, verl]
BROKEN = {
    "NaN": (np.nan, "NaN or infinite"),
    "infinite": (np.inf, "NaN"),
    "range": (255, "from 0.9.* to 255"),
}


def with_broken(value):
    images = shades(0.1, 0.9, 0.4)
    images[1, 0, 0, 0] = value
    return images


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("kind", BROKEN)
def test_an_image_that_cannot_be_encoded_is_dropped_or_stops_the_run(adapter, kind, caplog):
    value, reason = BROKEN[kind]
    with pytest.raises(MediaError, match=reason):
        adapter(with_broken(value))
    with caplog.at_level(logging.WARNING, "prefrm.grpo"):
        rewards = adapter(with_broken(value), on_missing="drop")
    assert rewards[1] is None or np.isnan(rewards[1])
    assert [rewards[0], rewards[2]] == pytest.approx(win_rates(0.1, 0.4).tolist(), abs=1e-6)
    assert [record.getMessage().split(": ")[0] for record in caplog.records] == [
        "a candidate for 'a cat' is dropped"
    ]


class Full:
    """A local scorer whose device is too small for any group."""

    def score(self, groups):
        raise OutOfMemoryError("the device is full")


@pytest.mark.parametrize("adapter", [flow_grpo, flow_factory, trl])
def test_a_group_beyond_the_memory_is_not_judged_as_where_a_server_refuses_it(adapter):
    with pytest.raises(IncompleteMatrixError, match="cannot be scored: the device is full"):
        adapter(shades(0.1, 0.9), Full())
    rewards = adapter(shades(0.1, 0.9), Full(), on_missing="drop")
    assert all(reward is None or np.isnan(reward) for reward in rewards)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_nothing_is_scored_where_all_but_one_are_dropped(adapter):
    images = shades(0.1, 0.9)
    images[0, 0, 0, 0] = np.nan
    rewards = adapter(images, on_missing="drop")
    assert all(reward is None or np.isnan(reward) for reward in rewards)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_arrays_with_the_channels_last_are_taken(adapter):
    images = shades(0.1, 0.9, 0.4).transpose(0, 2, 3, 1)
    assert list(adapter(images)) == pytest.approx(win_rates(0.1, 0.9, 0.4).tolist(), abs=1e-6)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_what_is_not_an_image_is_refused_whatever_is_dropped(adapter):
    with pytest.raises(ConfigError, match=r"received float32 \[5, 4, 5\]"):
        adapter(np.zeros((2, 5, 4, 5), np.float32), on_missing="drop")
