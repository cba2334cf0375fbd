"""Rollouts on a tiny Stable Diffusion 3: seeds, branches, trees, shared noise, exploration, keys."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from prefrm.flow.config import PolicyConfig
from prefrm.flow.methods import METHODS
from prefrm.flow.pipelines import Policy
from prefrm.flow.rollout import Batch, Sample, Sampler
from prefrm.flow.settings import Rollout, StochasticSteps
from tests.prefrm.flow.families import make, stable_diffusion_3

NOISY = Rollout(kernel="flow", noise=0.7, stochastic=StochasticSteps(rule="all"))
PERTURBED = Rollout(condition_noise=0.5, condition_span=0.5)
STEPS = 4


@pytest.fixture(scope="module")
def policy() -> Policy:
    arguments = {"height": 8, "width": 8}
    settings = PolicyConfig(model="tiny", steps=STEPS, rank=2, alpha=4, arguments=arguments)
    made = Policy(make(stable_diffusion_3), settings, ("old",))
    torch.manual_seed(1)
    with torch.no_grad():
        # Adapters begin at zero.
        for weight in made.parameters("old"):
            weight.add_(0.1 * torch.randn_like(weight))
    made.probe("a")
    return made


def drawn(
    policy: Policy,
    rule: Rollout,
    prompts: list[tuple[int, str]],
    *,
    group: int = 2,
    batch: int = 8,
    stochastic: tuple[int, ...] = (),
) -> list[Batch]:
    sampler = Sampler(policy, rule, group, batch, seed=3, steps=STEPS)
    return [one for starts in sampler.jobs(prompts) for one in sampler.draw(starts, stochastic, 5)]


def x0_of(batches: list[Batch]) -> dict[tuple[int, int, int, int], Any]:
    """By prompt, start, leaf and step."""
    return {
        (sample.place, sample.start, sample.leaf, batch.step): x
        for batch in batches
        for sample, x in zip(batch.samples, batch.final.x, strict=True)
    }


@pytest.mark.parametrize("rule", [Rollout(), NOISY, replace(NOISY, same_noise=True), PERTURBED])
def test_a_sample_depends_on_its_seed_and_not_on_its_batch(policy: Policy, rule: Rollout) -> None:
    prompts = [(0, "a"), (1, "b"), (2, "a")]
    stochastic = (0, 2) if rule.kernel == "flow" else ()
    together = x0_of(drawn(policy, rule, prompts, group=3, batch=9, stochastic=stochastic))
    for other in (
        drawn(policy, rule, prompts[::-1], group=3, batch=2, stochastic=stochastic),
        drawn(policy, rule, prompts[1:], group=3, batch=3, stochastic=stochastic),
    ):
        for key, x in x0_of(other).items():
            torch.testing.assert_close(x, together[key], rtol=1e-4, atol=1e-5)
    # The same prompt twice in an iteration gives other samples.
    assert not torch.allclose(together[0, 0, 0, -1], together[2, 0, 0, -1])
    assert not torch.allclose(together[0, 0, 0, -1], together[0, 1, 0, -1])


def test_the_old_policy_draws_where_the_rule_says_so(policy: Policy) -> None:
    (old,) = drawn(policy, Rollout(policy="old"), [(0, "a")])
    (current,) = drawn(policy, Rollout(), [(0, "a")])
    for i, step in old.final.steps.items():
        with policy.using("old"):
            assert torch.equal(policy.velocity(old.final, i), step.v)
        assert not torch.allclose(policy.velocity(old.final, i), step.v)
    # Afterwards the policy in training is in use again.
    assert torch.equal(policy.velocity(current.final, 0), current.final.steps[0].v)
    assert {row.name for row in METHODS.values() if row.rollout.policy == "old"} == {"nft", "e2po", "sol_rl"}


def test_an_even_grid_has_no_level_just_above_zero(policy: Policy) -> None:
    own, even = (drawn(policy, replace(NOISY, even_grid=even), [(0, "a")])[0] for even in (False, True))
    assert own.final.sigmas[-2] < 0.01
    expected = [3 * s / (1 + 2 * s) for s in (1, 0.75, 0.5, 0.25, 0)]
    assert even.final.sigmas == pytest.approx(expected, abs=1e-6)
    rows = {row.name for row in METHODS.values() if row.rollout.even_grid}
    assert rows == {"dance_grpo", "mix_grpo", "pref_grpo", "slas", "vipo"}


def test_samples_of_a_group_start_from_the_same_noise_only_if_asked(policy: Policy) -> None:
    (alike,) = drawn(policy, replace(NOISY, same_noise=True), [(0, "a")], stochastic=(1,))
    (other,) = drawn(policy, NOISY, [(0, "a")], stochastic=(1,))
    assert torch.equal(alike.final.steps[0].x[0], alike.final.steps[0].x[1])
    assert not torch.equal(other.final.steps[0].x[0], other.final.steps[0].x[1])
    assert not torch.allclose(alike.final.x[0], alike.final.x[1])


def test_a_group_that_exceeds_a_call_is_drawn_in_several(policy: Policy) -> None:
    batches = drawn(policy, Rollout(), [(0, "a"), (1, "b")], group=5, batch=2)
    assert [len(batch.samples) for batch in batches] == [2, 2, 1, 2, 2, 1]
    sampler = Sampler(policy, Rollout(), group=5, batch=2, seed=3, steps=STEPS)
    assert [len(starts) for starts in sampler.jobs([(0, "a"), (1, "b")])] == [5, 5]


def test_leaves_of_a_tree_share_the_steps_of_their_nodes(policy: Policy) -> None:
    rule = replace(NOISY, branches=(2, 3), branch_noise=(0.4, 0.8))
    (batch,) = drawn(policy, rule, [(0, "a")], group=6, stochastic=(0, 1, 2))
    assert [sample.leaf for sample in batch.samples] == [0, 1, 2, 3, 4, 5]
    first, second, third = batch.trained
    assert [trained.step for trained in batch.trained] == [0, 1, 2]
    assert [list(trained.rows) for trained in batch.trained] == [
        [0, 0, 0, 1, 1, 1],
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 4, 5],
    ]
    noises = [trained.recording.steps[trained.step].noise for trained in batch.trained]
    assert noises == [0.4, 0.8, 0.7]
    root, level = first.recording.steps[0], second.recording.steps[1]
    assert torch.equal(root.x[0], root.x[1])
    assert not torch.equal(root.x_next[0], root.x_next[1])
    # Children start where their parent ended.
    assert torch.equal(level.x, root.x_next[[0, 0, 0, 1, 1, 1]])
    assert len({tuple(x.flatten().tolist()) for x in level.x_next}) == 6
    assert torch.equal(third.recording.steps[2].x, level.x_next)


def test_branches_beyond_the_stochastic_steps_do_not_count(policy: Policy) -> None:
    window = StochasticSteps(rule="sliding", count=4)
    rule = replace(NOISY, branches=(2, 2, 2, 2), stochastic=window)
    (batch,) = drawn(policy, rule, [(0, "a")], group=16, batch=16, stochastic=(0, 1, 2))
    nodes = [(start, leaf) for start in range(2) for leaf in range(8)]
    assert [(sample.start, sample.leaf) for sample in batch.samples] == nodes


def test_each_step_has_children_of_one_trunk(policy: Policy) -> None:
    rule = replace(NOISY, stochastic=StochasticSteps(rule="each"), branches=(2,), key="prompt_seed_step")
    batches = drawn(policy, rule, [(7, "a")], group=4, stochastic=(0, 1, 2))
    assert [batch.step for batch in batches] == [0, 1, 2]
    assert [len(batch.samples) for batch in batches] == [4, 4, 4]
    for batch in batches:
        ((recording, step, rows),) = batch.trained
        assert (step, list(rows)) == (batch.step, [0, 1, 2, 3])
        x = recording.steps[step].x
        assert torch.equal(x[0], x[1]) and not torch.equal(x[1], x[2])
        assert batch.keys(rule) == [(7, 0, step), (7, 0, step), (7, 1, step), (7, 1, step)]
        assert batch.images.shape == (4, 3, 8, 8)
    # All are children of one trunk: without noise their ends would agree.
    trunk = batches[0].trained[0].recording.steps[0].x[::2]
    ode = drawn(policy, Rollout(), [(7, "a")], group=2)[0]
    assert torch.equal(ode.final.steps[0].x, trunk)
    torch.testing.assert_close(ode.final.steps[2].x, batches[2].trained[0].recording.steps[2].x[::2])


def test_one_shared_step_makes_groups_of_prompt_and_step(policy: Policy) -> None:
    rule = replace(NOISY, stochastic=StochasticSteps(rule="shared"), branches=(2,), key="prompt_step")
    (batch,) = drawn(policy, rule, [(0, "a"), (1, "b")], stochastic=(1,))
    assert batch.step == 1
    assert batch.keys(rule) == [(0, 1), (0, 1), (1, 1), (1, 1)]
    assert [trained.step for trained in batch.trained] == [1]


def test_explored_starts_are_drawn_again_from_their_seeds(policy: Policy) -> None:
    rule = Rollout(explore=2, keep_best=0.5, keep_worst=0.5)
    sampler = Sampler(policy, rule, group=2, batch=8, seed=3, steps=STEPS)
    (starts,) = sampler.jobs([(0, "a")])
    assert starts == [Sample("a", 0, n) for n in range(4)]
    (cheap,) = sampler.preview(starts, 5)
    assert len(cheap.final.steps) == STEPS // 2
    (kept,) = sampler.draw([starts[3], starts[1]], (), 5)
    assert len(kept.final.steps) == STEPS
    # The same initial noise: the pipelines begin at s = 1.
    assert torch.equal(kept.final.steps[0].x, cheap.final.steps[0].x[[3, 1]])


def test_noise_on_the_condition_is_seen_by_the_rollout_alone(policy: Policy) -> None:
    perturbed = drawn(policy, PERTURBED, [(0, "a")])[0]
    plain = drawn(policy, Rollout(), [(0, "a")])[0]
    first, clean = perturbed.final.steps[0], plain.final.steps[0]
    assert torch.equal(first.x, clean.x)
    assert not torch.allclose(first.v, clean.v)
    assert not torch.allclose(perturbed.final.x[0], plain.final.x[0])
    # What is recorded, and so what the update evaluates, is the prompt as it is.
    name = "encoder_hidden_states"
    assert torch.equal(first.calls[0][name], clean.calls[0][name])
    torch.testing.assert_close(policy.velocity(perturbed.final, 0), clean.v)
    # It fades: from s = 1 - span on there is none.
    last = perturbed.final.steps[STEPS - 1]
    assert perturbed.final.sigmas[STEPS - 1] < 0.5
    torch.testing.assert_close(policy.velocity(perturbed.final, STEPS - 1), last.v)
