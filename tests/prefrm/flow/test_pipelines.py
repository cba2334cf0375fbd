"""Policies of every family: replays are exact, gradients are those of a direct call, adapters switch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.flow.config import PolicyConfig
from prefrm.flow.pipelines import Policy, load_pipeline
from prefrm.flow.recording import Plan, Recording
from tests.prefrm.flow.families import FAMILIES, SIZE, make

EACH = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
NOISY = Plan(kernel="flow", noise={0: 0.7, 1: 0.7})
PROMPTS = ["a", "a", "b", "b"]


def size(family: Callable[[], Any]) -> dict[str, Any]:
    side = SIZE[family.__name__]
    free = {"use_resolution_binning": False} if family.__name__ == "sana" else {}
    return {"height": side, "width": side} | free


def tiny(pipe: Any, adapters: tuple[str, ...] = (), **settings: Any) -> Policy:
    return Policy(pipe, PolicyConfig(model="tiny", steps=3, rank=2, alpha=4, **settings), adapters)


def policy_of(family: Callable[[], Any], adapters: tuple[str, ...] = (), **settings: Any) -> Policy:
    arguments = size(family) | settings.pop("arguments", {})
    policy = tiny(make(family), adapters, arguments=arguments, **settings)
    # The adapter begins at zero.
    torch.manual_seed(1)
    for weight in policy.parameters():
        weight.data = 0.1 * torch.randn_like(weight)
    policy.probe("a")
    return policy


def recorded(policy: Policy) -> Recording:
    return policy.draw(PROMPTS, seeds=range(4), plan=NOISY, decode=False)


@EACH
def test_replay_gives_the_recorded_velocity_exactly(family: Callable[[], Any]) -> None:
    policy = policy_of(family)
    recording = recorded(policy)
    assert [step.noise for step in recording.steps.values()] == [0.7, 0.7, 0.0]
    for i, step in recording.steps.items():
        assert step.v.abs().mean() > 0.01
        assert torch.equal(policy.velocity(recording, i), step.v)


@EACH
def test_rows_and_steps_of_a_replay_are_picked(family: Callable[[], Any]) -> None:
    policy = policy_of(family)
    recording = recorded(policy)
    at, rows = [2, 0, 1], [3, 1, 0]
    x = torch.stack([recording.steps[i].x[row] for i, row in zip(at, rows, strict=True)])
    v = torch.stack([recording.steps[i].v[row] for i, row in zip(at, rows, strict=True)])
    torch.testing.assert_close(policy.velocity(recording, at, x, rows), v, rtol=1e-4, atol=1e-5)
    if family.__name__ == "qwen_image":
        # The probe's prompts are equally long and have no mask; these are not.
        assert recording.steps[0].calls[0]["encoder_hidden_states_mask"].shape == (4, 3)


@EACH
def test_a_recording_without_its_path_takes_less_and_gives_the_same(family: Callable[[], Any]) -> None:
    policy = policy_of(family)
    torch.manual_seed(0)
    whole = recorded(policy)
    torch.manual_seed(0)
    short = policy.draw(PROMPTS, seeds=range(4), plan=NOISY, decode=False, keep_path=False)
    # Stochastic steps are kept.
    assert torch.equal(policy.velocity(short, 1), whole.steps[1].v)
    euler = short.steps[2]
    assert all(x.untyped_storage().nbytes() == x.element_size() for x in (euler.x, euler.x_next, euler.v))
    x = whole.steps[2].x
    assert torch.equal(policy.velocity(short, 2, x), whole.steps[2].v)
    at, rows = [2, 0, 1], [3, 1, 0]
    assert torch.equal(policy.velocity(short, at, x[rows], rows), policy.velocity(whole, at, x[rows], rows))


@EACH
def test_gradient_of_a_replay_is_that_of_a_direct_call(family: Callable[[], Any]) -> None:
    policy = policy_of(family)
    recording = recorded(policy)
    policy.velocity(recording, 1).square().sum().backward()
    # The text stream of Qwen-Image's last layer leads nowhere.
    trained = [weight for weight in policy.parameters() if weight.grad is not None]
    replayed = [weight.grad.clone() for weight in trained]
    policy.transformer.zero_grad()
    (call,) = recording.steps[1].calls
    output = policy.transformer(**call)[0]
    output = torch.stack(output) if isinstance(output, list) else output
    output.square().sum().backward()
    assert max(gradient.abs().max() for gradient in replayed) > 0
    for gradient, weight in zip(replayed, trained, strict=True):
        assert torch.equal(gradient, weight.grad)


GUIDED = {
    "stable_diffusion_3": {"guidance": 4.0},
    "sana": {"guidance": 4.0},
    "lumina2": {"guidance": 4.0},
    "z_image": {"guidance": 4.0},
    "flux": {"arguments": {"true_cfg_scale": 4.0, "negative_prompt": "c"}},
    "qwen_image": {"arguments": {"true_cfg_scale": 4.0, "negative_prompt": "c"}},
}


@EACH
def test_guidance_is_replayed_exactly(family: Callable[[], Any]) -> None:
    policy, unguided = policy_of(family, **GUIDED[family.__name__]), policy_of(family)
    recording, plain = recorded(policy), recorded(unguided)
    assert not torch.allclose(recording.steps[0].v, plain.steps[0].v)
    for i, step in recording.steps.items():
        assert torch.equal(policy.velocity(recording, i), step.v)
        alone = policy.velocity(recording, i, guided=False)
        torch.testing.assert_close(alone, unguided.velocity(plain, i, step.x), rtol=1e-4, atol=1e-5)


def test_guidance_that_cannot_be_reproduced_is_refused() -> None:
    (stable_diffusion_3, *_) = FAMILIES
    arguments = {"skip_guidance_layers": [0], "skip_layer_guidance_start": -1, "skip_layer_guidance_stop": 1}
    with pytest.raises(ConfigError, match="cannot be reproduced"):
        policy_of(stable_diffusion_3, guidance=4.0, arguments=arguments)


@EACH
def test_an_ode_rollout_is_the_pipeline_s_own(family: Callable[[], Any]) -> None:
    side = size(family)
    pipe = make(family)
    guided = {"guidance_scale": 0.0} if hasattr(type(pipe), "do_classifier_free_guidance") else {}
    if type(pipe).__name__ == "SanaPipeline":
        from diffusers import FlowMatchEulerDiscreteScheduler

        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    generators = [torch.Generator().manual_seed(n) for n in range(2)]
    expected = pipe(
        prompt=["a", "b"],
        num_inference_steps=3,
        generator=generators,
        output_type="latent",
        **side,
        **guided,
    )[0]
    policy = tiny(make(family), arguments=side)
    drawn = policy.draw(["a", "b"], seeds=range(2), decode=False)
    torch.testing.assert_close(drawn.x.reshape(expected.shape), expected, rtol=0, atol=1e-6)


@EACH
def test_a_call_continues_from_the_middle(family: Callable[[], Any]) -> None:
    policy = policy_of(family)
    whole = policy.draw(PROMPTS, seeds=range(4), decode=False)
    begun = policy.draw(PROMPTS, seeds=range(4), plan=Plan(stop=1), decode=False)
    assert list(begun.steps) == [0]
    ended = policy.draw(PROMPTS, seeds=range(4), plan=Plan(start=1), latents=begun.x, decode=False)
    assert list(ended.steps) == [1, 2]
    assert torch.equal(ended.x, whole.x)
    assert whole.sigmas == ended.sigmas


def test_without_an_adapter_the_policy_is_the_reference() -> None:
    (family, *_) = FAMILIES
    policy = policy_of(family, adapters=("old",))
    recording = recorded(policy)
    now = policy.velocity(recording, 0)
    with policy.using(None):
        reference = policy.velocity(recording, 0)
    plain = tiny(make(family), arguments={"height": 8, "width": 8})
    plain.probe("a")
    expected = plain.draw(PROMPTS, seeds=range(4), decode=False).steps[0].v
    torch.testing.assert_close(reference, expected)
    policy.copy_adapter("default", "old")
    with policy.using("old"):
        assert torch.equal(policy.velocity(recording, 0), now)
        assert not policy.velocity(recording, 0).requires_grad
    assert not torch.allclose(now, reference)
    assert policy.velocity(recording, 0).requires_grad


def test_copying_an_adapter_moves_it() -> None:
    (family, *_) = FAMILIES
    policy = policy_of(family, adapters=("old",))
    policy.copy_adapter("default", "old")
    before = [weight.clone() for weight in policy.parameters("old")]
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 1
    policy.copy_adapter("default", "old", decay=0.25)
    for weight, was in zip(policy.parameters("old"), before, strict=True):
        torch.testing.assert_close(weight, was + 0.75)


def test_a_gradient_flows_through_the_decoder() -> None:
    (family, *_) = FAMILIES
    policy = policy_of(family)
    drawn = policy.draw(PROMPTS, seeds=range(4))
    x0 = drawn.x.clone().requires_grad_()
    pixels = policy.decode(PROMPTS, x0)
    torch.testing.assert_close(pixels, drawn.images)
    pixels.sum().backward()
    assert x0.grad is not None and x0.grad.abs().max() > 0


def test_diffusers_loads_the_adapter(tmp_path: Any) -> None:
    (family, *_) = FAMILIES
    policy = policy_of(family)
    drawn = policy.draw(["a"], seeds=[0], decode=False)
    policy.save_lora(tmp_path)
    pipe = make(family)
    pipe.load_lora_weights(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(
        prompt=["a"],
        num_inference_steps=3,
        guidance_scale=0.0,
        generator=[torch.Generator().manual_seed(0)],
        output_type="latent",
        height=8,
        width=8,
    )[0]
    torch.testing.assert_close(latents, drawn.x)


def test_prompts_are_encoded_once() -> None:
    (family, *_) = FAMILIES
    pipe, calls = make(family), []
    encode = pipe.encode_prompt
    pipe.encode_prompt = lambda *args, **kwargs: calls.append(args) or encode(*args, **kwargs)
    policy = tiny(pipe, arguments={"height": 8, "width": 8})
    policy.draw(PROMPTS, seeds=range(4), decode=False)
    policy.draw(PROMPTS, seeds=range(4, 8), decode=False)
    assert len(calls) == 1


def test_half_precision_is_replayed_exactly() -> None:
    (family, *_) = FAMILIES
    policy = tiny(make(family, torch.bfloat16), arguments={"height": 8, "width": 8})
    policy.probe("a")
    recording = recorded(policy)
    for i, step in recording.steps.items():
        assert step.x_next.dtype == torch.bfloat16
        assert torch.equal(policy.velocity(recording, i), step.v)
    assert all(weight.dtype == torch.float32 for weight in policy.parameters())


def test_what_is_no_flow_policy_is_refused() -> None:
    from diffusers import DDIMScheduler, DDPMPipeline, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(ConfigError, match="DDPMPipeline has no transformer"):
        tiny(DDPMPipeline(unet, DDIMScheduler()))
    (family, *_) = FAMILIES
    pipe = make(family)
    pipe.scheduler = DDIMScheduler()
    with pytest.raises(ConfigError, match="DDIMScheduler is not a flow-matching scheduler"):
        tiny(pipe)
    with pytest.raises(ConfigError, match="does not take hight"):
        tiny(make(family), arguments={"hight": 8})
    with pytest.raises(ConfigError, match="name no layer"):
        tiny(make(family), targets=("nothing",))


def test_a_pipeline_that_is_not_there_is_one_line(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        load_pipeline(str(tmp_path / "none"), torch.float32)
    assert "\n" not in str(caught.value)
