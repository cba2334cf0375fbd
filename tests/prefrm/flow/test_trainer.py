"""The training loop on a tiny Stable Diffusion 3 and a judge of brightness."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from prefrm.differentiable import FakeDifferentiableScorer
from prefrm.errors import ConfigError
from prefrm.flow.config import OptimConfig, PolicyConfig
from prefrm.flow.features import features
from prefrm.flow.kernels import transition
from prefrm.flow.losses import DREW, Losses
from prefrm.flow.methods import method
from prefrm.flow.pipelines import Policy
from prefrm.flow.rollout import Batch, Sample, Sampler
from prefrm.flow.settings import Method, with_settings
from prefrm.flow.trainer import Trainer, adapters
from prefrm.rewards.samples import Pointwise, WinRates
from prefrm.winmatrix import FakeScorer
from tests.prefrm.flow.families import make, stable_diffusion_3

PROMPTS = ["a", "b"]
STEPS = 4


def brightness(prompt: str, image: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(image))).mean()) / 10


def trainer_of(
    row: Method | str,
    *,
    group: int = 4,
    reward: Any = brightness,
    rollout_batch: int = 8,
    precision: str = "no",
    guidance: float | None = None,
    **optim: Any,
) -> Trainer:
    row = method(row) if isinstance(row, str) else row
    settings = OptimConfig(**{"lr": 1e-3} | optim)
    others = adapters(row, settings)
    policy = Policy(
        make(stable_diffusion_3),
        PolicyConfig(
            model="tiny",
            steps=STEPS,
            guidance=guidance,
            rank=4,
            alpha=8,
            arguments={"height": 8, "width": 8},
        ),
        others,
    )
    # Adapters begin at zero; the draws of their other half must be the same in every test.
    torch.manual_seed(0)
    for weight in policy.parameters():
        weight.data = 0.05 * torch.randn_like(weight)
    policy.copy_adapter("default", *others)
    policy.probe("a")
    rewards = {} if row.intrinsic else {"judge": WinRates(FakeScorer(reward))}
    return Trainer(
        losses=Losses(policy=policy, method=row, batch=settings.batch, seed=5),
        accelerator=Accelerator(cpu=True, mixed_precision=precision),
        sampler=Sampler(
            policy,
            row.rollout,
            group,
            rollout_batch,
            seed=5,
            steps=STEPS,
            keep_path=row.objective.through_sampler,
        ),
        rewards=rewards,
        weights=dict.fromkeys(rewards, 1.0),
        settings=settings,
    )


def weights(trainer: Trainer, adapter: str = "default") -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in trainer.policy.parameters(adapter)]


def test_the_first_gradient_is_that_of_the_advantage_times_log_prob() -> None:
    row = with_settings(
        method("flow_grpo"), {"regularizer": {"reference": 0.0}, "rollout": {"stochastic": {"rule": "all"}}}
    )
    trainer = trainer_of(row, max_grad_norm=1e9)
    kept: dict[str, Any] = {}
    update = trainer._update

    def spy(batches: Any, advantages: Any, n: int, u: int) -> Any:
        kept.update(batches=batches, advantages=advantages)
        total = 0.0
        for batch, advantage in zip(batches, advantages, strict=True):
            for recording, i, rows in batch.trained:
                step, sigmas = recording.steps[i], recording.sigmas
                v = trainer.policy.velocity(recording, i)
                moved = transition("flow", 0.7, step.x, v, sigmas[i], sigmas[i + 1], sigmas[1])
                log_prob = moved.log_prob(step.x_next)
                assert list(rows) == list(range(len(advantage)))
                total = total + (torch.from_numpy(advantage[:, 0]).float() * log_prob).sum()
        count = sum(len(batch.trained) * len(batch.samples) for batch in batches)
        kept["expected"] = torch.autograd.grad(-total / count, trainer.parameters)
        return update(batches, advantages, n, u)

    trainer._update = spy  # type: ignore[method-assign]
    seen: list[torch.Tensor] = []
    trainer.optimizer.step = lambda: seen.extend(p.grad.clone() for p in trainer.parameters)
    logs = trainer.iteration(0, PROMPTS)
    assert logs["trained"] == 2 * 4 * (STEPS - 1)
    assert logs["images"] == 8
    assert abs(logs["reward/judge"] - 0.5) < 1e-6
    # Advantages have mean 0 in a group, and each ratio is exactly 1.
    assert abs(logs["loss"]) < 1e-6
    assert max(gradient.abs().max() for gradient in seen) > 0
    for gradient, expected in zip(seen, kept["expected"], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["nft", "flow_grpo", "tmpo"])
def test_smaller_batches_accumulate_to_the_same_weights(name: str) -> None:
    results = []
    for settings in ({"batch": 32, "rollout_batch": 8}, {"batch": 3, "rollout_batch": 4}):
        trainer = trainer_of(name, **settings)
        trainer.iteration(0, PROMPTS)
        results.append(weights(trainer))
    before = weights(trainer_of(name))
    assert any(not torch.equal(a, b) for a, b in zip(before, results[0], strict=True))
    for one, other, was in zip(*results, before, strict=True):
        # AdamW's first step has the size of lr whatever the gradient's: where that is rounding, it is free.
        assert (one - was).abs().max() <= 1.01e-3
        different = (one - other).abs() > 1e-4
        assert different.float().mean() < 0.02


def test_a_judge_s_preference_raises_its_reward() -> None:
    trainer = trainer_of("nft", group=8, rollout_batch=16, lr=2e-2)

    def mean() -> float:
        drawn = trainer.policy.draw(PROMPTS * 8, seeds=range(16))
        assert drawn.images is not None
        return float(drawn.images.mean())

    before = mean()
    for n in range(8):
        trainer.iteration(n, PROMPTS)
    assert mean() > before + 0.01


def test_a_judge_s_error_reaches_the_caller() -> None:
    def broken(prompt: str, image: bytes) -> float:
        raise RuntimeError("no judge")

    trainer = trainer_of("nft")
    trainer.rewards = {"judge": Pointwise(broken)}
    with pytest.raises(RuntimeError, match="no judge"):
        trainer.iteration(0, PROMPTS)


def test_the_best_and_the_worst_are_those_by_advantage() -> None:
    row = with_settings(method("mix_grpo"), {"rollout": {"keep_best": 0.25, "keep_worst": 0.25}})
    trainer = trainer_of(row)
    batches = trainer.sampler.draw(next(trainer.sampler.jobs([(0, "a")])), (0,), 0)
    trainer.weights = {"large": 1.0, "small": 1.0}
    # By the sum of the rewards the first would be the worst; each normalized, it is the second best.
    rewards = {"large": np.array([0.0, 100, 200, 300]), "small": np.array([10.0, 0, 0, 0])}
    (advantages,), _ = trainer._advantages(batches, rewards)
    assert np.isfinite(advantages[:, 0]).tolist() == [False, True, False, True]


def test_samples_without_an_advantage_train_nothing() -> None:
    trainer = trainer_of("nft", reward=lambda prompt, image: 1.0)
    before = weights(trainer)
    logs = trainer.iteration(0, PROMPTS)
    assert logs["trained"] == 0 and logs["loss"] == 0
    # Weight decay alone.
    for weight, was in zip(weights(trainer), before, strict=True):
        torch.testing.assert_close(weight, was * (1 - 1e-3 * 1e-4))

    def some(prompt: str, image: bytes) -> float:
        if prompt == "b":
            raise ValueError("unreadable")
        return brightness(prompt, image)

    trainer = trainer_of("nft", reward=some)
    logs = trainer.iteration(0, PROMPTS)
    assert logs["missing"] == 0.5
    assert logs["trained"] == 4 * (STEPS - 1)


def test_the_moving_average_is_what_is_kept() -> None:
    trainer = trainer_of("nft", ema=0.5)
    trainer.iteration(0, PROMPTS)
    first = weights(trainer)
    trainer.iteration(1, PROMPTS)
    # As diffusers' EMAModel: the first update is taken whole, then the decay rises to 0.5.
    decay = 2 / 11
    for average, one, two in zip(weights(trainer, trainer.kept), first, weights(trainer), strict=True):
        torch.testing.assert_close(average, decay * one + (1 - decay) * two)
    assert any(not torch.equal(a, b) for a, b in zip(first, weights(trainer), strict=True))


def test_updates_share_the_groups_of_an_iteration() -> None:
    trainer = trainer_of("flow_grpo", updates=2)
    logs = trainer.iteration(0, PROMPTS)
    assert trainer.updates == 2
    assert logs["trained"] == 4 * (STEPS - 1)


@pytest.mark.parametrize("name", ["v_grpo", "awm"])
def test_a_matching_ratio_is_to_the_policy_that_drew(name: str) -> None:
    alone = {"regularizer": {"reference": 0.0, "old": 0.0}, "objective": {"clip": 6e-3}}
    row = with_settings(method(name), alone)
    assert DREW not in trainer_of(name).policy.adapters
    trainer = trainer_of(row, updates=2, lr=3e-2)
    drew = weights(trainer)

    def ratios(advantage: float) -> torch.Tensor:
        """-A times the ratio, clipped on one side."""
        work = trainer.losses.work(batch, np.full((8, 1), advantage), {0, 1})
        return torch.cat([trainer.losses.of(one) for one in work]).detach() / -advantage

    (batch,) = trainer.sampler.draw(next(trainer.sampler.jobs([*enumerate(PROMPTS)])), (), 0)
    assert torch.equal(ratios(1.0), torch.ones(len(ratios(1.0))))
    trainer.iteration(0, PROMPTS)
    assert all(torch.equal(a, b) for a, b in zip(weights(trainer, DREW), drew, strict=True))
    low, high = ratios(1.0), ratios(-1.0)
    # Each ratio is seen whole on one side and clipped on the other.
    assert low.max() <= 1 + 6e-3 and high.min() >= 1 - 6e-3
    assert not torch.equal(low, high)
    # As before the first update of the next iteration.
    trainer.policy.copy_adapter("default", DREW)
    assert torch.equal(ratios(-1.0), torch.ones(len(high)))


@pytest.mark.parametrize("name", ["eam", "vipo"])
def test_what_all_units_share_is_computed_once(name: str) -> None:
    row = with_settings(method(name), {"rollout": {"stochastic": {"trained": 1.0}}})
    trainer, seen = trainer_of(row), list[torch.Tensor]()

    def encode(images: torch.Tensor) -> torch.Tensor:
        seen.extend(images)
        return features(images)

    def utilities(prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        # A pairwise judge needs the whole group, which is larger than a batch.
        assert len(pixels) == 4
        seen.extend(pixels)
        return pixels.mean((1, 2, 3))

    scorer = FakeDifferentiableScorer(utilities)
    trainer.losses = replace(trainer.losses, encode=encode, differentiable=scorer, batch=2)
    assert trainer.iteration(0, PROMPTS)["trained"] > len(seen) == 8


def test_an_old_policy_that_does_not_lag_needs_no_adapter() -> None:
    # DiffusionNFT's decay is 0 in its first iteration, so the two agree for two of them.
    row = with_settings(method("nft"), {"regularizer": {"decay": 0.0, "ramp": 0.0}})
    lagging, current = trainer_of("nft"), trainer_of(row)
    assert "old" in lagging.policy.adapters and "old" not in current.policy.adapters
    assert "old" in trainer_of(row, updates=2).policy.adapters
    for n in range(2):
        lagging.iteration(n, PROMPTS)
        current.iteration(n, PROMPTS)
    assert all(torch.equal(a, b) for a, b in zip(weights(lagging), weights(current), strict=True))


def test_warmup_raises_the_learning_rate() -> None:
    trainer = trainer_of("nft", warmup=4)
    assert [trainer.iteration(n, PROMPTS)["lr"] for n in range(2)] == pytest.approx([2.5e-4, 5e-4])


def test_a_linear_schedule_falls_from_the_warmup_to_the_last_step() -> None:
    settings = OptimConfig(iterations=3, updates=2, lr=1.0, warmup=2, schedule="linear")
    assert [settings.rate(step) for step in range(1, 7)] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("name", ["nft", "flow_grpo"])
def test_a_resumed_run_goes_on_bit_by_bit(name: str, tmp_path: Path) -> None:
    whole = trainer_of(name, ema=0.9)
    for n in range(2):
        whole.iteration(n, PROMPTS)
    whole.save(tmp_path, 2, {"seed": 5, "optim": {"lr": 1e-3}})
    whole.iteration(2, PROMPTS)
    resumed = trainer_of(name, ema=0.9)
    assert resumed.load(tmp_path, {"seed": 5, "optim": {"lr": 1e-3}}) == 2
    resumed.iteration(2, PROMPTS)
    for adapter in whole.policy.adapters:
        pairs = zip(weights(whole, adapter), weights(resumed, adapter), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(ConfigError, match=r"optim.lr was 0.001 and is 0.002"):
        resumed.load(tmp_path, {"seed": 5, "optim": {"lr": 2e-3}})


def test_a_loss_that_is_not_finite_ends_the_run() -> None:
    row = method("nft")
    row = replace(row, objective=replace(row.objective, scale=float("inf")))
    with pytest.raises(ConfigError, match=r"the loss is .*; lower optim.lr"):
        trainer_of(row).iteration(0, PROMPTS)


def test_half_precision_keeps_log_probabilities_exact() -> None:
    row = with_settings(method("flow_grpo"), {"regularizer": {"reference": 0.0}})
    AcceleratorState._reset_state(True)
    try:
        trainer = trainer_of(row, precision="bf16")
        logs = trainer.iteration(0, PROMPTS)
    finally:
        AcceleratorState._reset_state(True)
    # Replayed under the same autocast, every ratio is 1, and advantages of a group sum to 0.
    assert abs(logs["loss"]) < 1e-6


def test_confidence_depends_on_the_iteration_and_not_on_the_batch() -> None:
    def confidence(iteration: int, batch: int) -> torch.Tensor:
        trainer = trainer_of("solace", rollout_batch=batch)
        jobs = trainer.sampler.jobs([*enumerate(PROMPTS)])
        batches = [one for starts in jobs for one in trainer.sampler.draw(starts, (0,), iteration)]
        return torch.cat([trainer.losses.confidence(one) for one in batches])

    first, other = confidence(0, 8), confidence(0, 2)
    assert len(first) == len(other) == 8
    torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-4)
    # The same samples with another iteration's probes.
    trainer = trainer_of("solace")
    (batch,) = trainer.sampler.draw(next(trainer.sampler.jobs([*enumerate(PROMPTS)])), (0,), 0)
    again = trainer.losses.confidence(replace(batch, iteration=1))
    assert torch.equal(trainer.losses.confidence(batch), trainer.losses.confidence(batch))
    assert not torch.allclose(trainer.losses.confidence(batch), again)


def test_confidence_is_probed_without_guidance() -> None:
    def drawn(guidance: float | None) -> tuple[Losses, Batch]:
        trainer = trainer_of("solace", guidance=guidance)
        starts = next(trainer.sampler.jobs([*enumerate(PROMPTS)]))
        return trainer.losses, trainer.sampler.draw(starts, (0,), 0)[0]

    (guided, batch), (plain, other) = drawn(4.0), drawn(None)
    assert not torch.allclose(batch.final.x, other.final.x)
    same = replace(other, final=replace(other.final, x=batch.final.x))
    torch.testing.assert_close(guided.confidence(batch), plain.confidence(same), rtol=1e-4, atol=1e-4)


def test_the_data_term_of_a_gradient_method_is_the_matching_error() -> None:
    def losses(name: str) -> torch.Tensor:
        trainer = trainer_of(with_settings(method(name), {"objective": {"data_weight": 0.5}}))
        (batch,) = trainer.sampler.draw([Sample("a", 0, 0)], (), 3)
        return torch.stack([trainer.losses.of(work) for work in trainer.losses.data(batch)])

    assert losses("rwr").shape == (STEPS - 1, 1)
    assert torch.equal(losses("refl"), losses("rwr"))


def test_the_data_term_is_in_the_loss_and_in_batches() -> None:
    # All samples win in half of the cases: only the data term is left.
    row = with_settings(method("rwr"), {"advantage": {"signed": True}})

    def trained(batch: int, rollout_batch: int) -> tuple[float, float, int]:
        trainer = trainer_of(row, reward=lambda prompt, image: 1.0, batch=batch, rollout_batch=rollout_batch)
        sizes: list[int] = []
        draw = trainer.policy.draw

        def seen(prompts: Any, **more: Any) -> Any:
            sizes.append(len(prompts))
            return draw(prompts, **more)

        trainer.policy.draw = seen  # type: ignore[method-assign]
        logs = trainer.iteration(0, ["a", "b", "c", "a"])
        assert logs["trained"] == 0
        return logs["loss"], logs["grad_norm"], max(sizes)

    loss, norm, size = trained(32, 8)
    assert loss > 0 and size == 8
    assert trained(2, 3) == (pytest.approx(loss, rel=1e-4), pytest.approx(norm, rel=1e-3), 3)
