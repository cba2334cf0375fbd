"""Rewards under trainers that pass a whole group: Flow-Factory and slime, called as they call."""

import asyncio
import importlib
import inspect
import sys
from abc import ABC, abstractmethod
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, DataError, IncompleteMatrixError
from prefrm.grpo import FlowFactoryReward, SlimeReward
from prefrm.winmatrix import FakeScorer, Group
from tests.prefrm.grpo.pixels import AsyncPixelScorer, PixelScorer, shades


def win_rates(*values):
    (matrix,) = FakeScorer(lambda _, image: float(image)).score(
        [Group(prompt="", candidates=tuple(str(10 * round(v * 255) / 255).encode() for v in values))]
    )
    return matrix.win_rate()


class GroupwiseRewardModel(ABC):
    """Flow-Factory's, as far as a subclass meets it."""

    def __init__(self, config, accelerator):
        self.config, self.accelerator = config, accelerator

    @abstractmethod
    def __call__(self, prompt, image=None, video=None, **kwargs): ...


def compute_groupwise_group(model, samples):
    """As flow_factory/rewards/reward_processor.py calls a model on one group."""
    torch = pytest.importorskip("torch")
    fields = inspect.signature(model.__call__).parameters
    group_input = {name: [sample[name] for sample in samples] for name in fields if name in samples[0]}
    output = model(**group_input)
    return torch.as_tensor(
        output.rewards if hasattr(output, "rewards") else output, device="cpu", dtype=torch.float32
    )


class TestFlowFactory:
    @pytest.mark.parametrize("tensors", [False, True])
    def test_it_makes_a_groupwise_model(self, tensors):
        torch = pytest.importorskip("torch")

        class WinRate(GroupwiseRewardModel):
            required_fields = ("prompt", "image")
            use_tensor_inputs = tensors
            __call__ = FlowFactoryReward(PixelScorer())

        images = shades(0.2, 0.7, 0.4)
        samples = [
            {
                "prompt": "a cat",
                "image": torch.from_numpy(image)
                if tensors
                else Image.fromarray((image * 255).round().astype(np.uint8).transpose(1, 2, 0)),
                "video": None,
                "metadata": "{}",
            }
            for image in images
        ]
        rewards = compute_groupwise_group(WinRate(config=None, accelerator=None), samples)
        assert rewards.tolist() == pytest.approx(win_rates(0.2, 0.7, 0.4).tolist(), abs=1e-6)

    def test_what_is_no_group_is_refused(self):
        reward = FlowFactoryReward(PixelScorer())
        with pytest.raises(ConfigError, match="more than one prompt, 'a' and 'b'"):
            reward(prompt=["a", "b"], image=list(shades(0.1, 0.2)))
        with pytest.raises(ConfigError, match="received 2 images and 3 prompts"):
            reward(prompt=["a"] * 3, image=list(shades(0.1, 0.2)))

    def test_a_lone_image_has_nothing_to_compare(self):
        def ask(**options):
            return FlowFactoryReward(PixelScorer(), **options)(prompt=["a"], image=list(shades(0.1)))

        assert np.isnan(ask()).tolist() == [True]
        with pytest.raises(
            ConfigError, match=r"a group of one image, for 'a', .*; set group_size; on_single"
        ):
            ask(on_single="raise")
        against = ask(on_single="reference", reference=lambda prompt, about: shades(0.3)[0])
        assert against == pytest.approx(win_rates(0.1, 0.3)[:1], abs=1e-6)

    def test_a_group_that_comes_without_its_images(self):
        with pytest.raises(IncompleteMatrixError, match="2 of 2 candidates have no reward"):
            FlowFactoryReward(PixelScorer())(prompt=["a"] * 2)
        rewards = FlowFactoryReward(PixelScorer(), on_missing="drop")(prompt=["a"] * 2)
        assert np.isnan(rewards).all()

    def test_it_takes_tensors_unless_the_class_says_otherwise(self):
        class WinRate(GroupwiseRewardModel):
            __call__ = FlowFactoryReward(PixelScorer())

        class OfPillowImages(GroupwiseRewardModel):
            use_tensor_inputs = False
            __call__ = FlowFactoryReward(PixelScorer())

        assert WinRate.use_tensor_inputs and not OfPillowImages.use_tensor_inputs


def to_image(sample):
    if sample.response == "broken":
        raise DataError("this draws nothing")
    return None if sample.response == "" else encode(float(sample.response))


def encode(shade):
    return Image.new("RGB", (4, 5), (round(shade * 255),) * 3)


def sample(response, prompt="a cat"):
    return SimpleNamespace(prompt=prompt, response=response, metadata={}, reward=None)


async def batched_async_rm(args, samples):
    """As slime/rollout/rm_hub/__init__.py calls a custom function under --group-rm."""
    module, _, name = args.custom_rm_path.rpartition(".")
    rm_function = getattr(importlib.import_module(module), name)
    return await rm_function(args, samples)


class TestSlime:
    @pytest.fixture
    def ask(self, monkeypatch):
        module = ModuleType("my_rewards")
        monkeypatch.setitem(sys.modules, "my_rewards", module)

        def call(samples, **options):
            module.win_rate = SlimeReward(AsyncPixelScorer(), to_image, **options)
            args = SimpleNamespace(custom_rm_path="my_rewards.win_rate", group_rm=True)
            return asyncio.run(batched_async_rm(args, samples))

        return call

    def test_a_group(self, ask):
        rewards = ask([sample("0.2"), sample("0.7"), sample("0.4")])
        assert rewards == pytest.approx(win_rates(0.2, 0.7, 0.4).tolist(), abs=1e-6)

    def test_a_conversation_is_judged_by_its_last_user_message(self, ask):
        conversation = [{"role": "user", "content": "a dog"}]
        assert len(ask([sample("0.2", conversation), sample("0.7", conversation)])) == 2
        assert len(ask([sample("0.2", 1), sample("0.7", 2)], to_prompt=lambda _: "same")) == 2

    @pytest.mark.parametrize("gone", ["", "broken"])
    def test_a_sample_without_an_image(self, ask, gone):
        samples = [sample("0.2"), sample(gone), sample("0.4")]
        with pytest.raises(IncompleteMatrixError, match="first that in place 1"):
            ask(samples)
        rewards = ask(samples, on_missing="drop")
        assert np.isnan(rewards[1])
        assert [rewards[0], rewards[2]] == pytest.approx(win_rates(0.2, 0.4).tolist(), abs=1e-6)

    def test_two_prompts_are_refused(self, ask):
        with pytest.raises(ConfigError, match="more than one prompt"):
            ask([sample("0.2", "a"), sample("0.3", "b")])
