"""Identities between the published losses, in float64, and what float32 heads mean under autocast."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from prefrm.flow.kernels import gradient_size, spread
from prefrm.flow.likelihood import Terms, matching_error, noised, probe_scores
from prefrm.flow.methods import METHODS, method
from prefrm.flow.objectives import (
    balance,
    clipped_ratio,
    dpo,
    least_squares,
    regularizer,
    sample_losses,
    step_weights,
)
from prefrm.flow.settings import Likelihood, Objective, Regularizer, with_settings

GRID = (1.0, 0.96, 0.9, 0.8, 0.6, 0.3, 0.0)
B = 4


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def transition_terms(row, at=3, distance=0.02, **others):
    """A recorded step of four samples, drawn by an old policy from which the policy is `distance` away."""
    x, old = draw(B, 3, 4, 4), draw(B, 3, 4, 4)
    v = (old + distance * draw(*x.shape)).requires_grad_()
    terms = Terms(
        method=row, advantage=draw(B), s=GRID[at], s_next=GRID[at + 1], s_after_first=GRID[1],
        v=v, v_rollout=old, v_ref=draw(*x.shape), group=torch.tensor([0, 0, 1, 1]), x=x, x_next=x,
        noise=row.rollout.noise,
    )  # fmt: skip
    return replace(terms, x_next=terms.transition(old).sample(draw(*x.shape)), **others)


def matching_terms(row, s=0.6, **others):
    x0, noise = draw(B, 3, 4, 4), draw(B, 3, 4, 4)
    terms = Terms(method=row, advantage=draw(B).clamp(-1, 1), s=s, v=draw(*x0.shape).requires_grad_())
    velocities = {"target": noise - x0, "v_old": draw(*x0.shape), "v_ref": draw(*x0.shape)}
    return replace(on_policy(terms), **velocities, group=torch.tensor([0, 0, 1, 1]), **others)


def on_policy(terms):
    return replace(terms, v_rollout=terms.v.detach())


def changed(name, **sections):
    return with_settings(method(name), sections)


def gradient(loss, terms):
    return torch.autograd.grad(loss.sum(), terms.v)[0]


def mean(x):
    return x.flatten(1).mean(1)


class TestRatio:
    def test_its_gradient_on_policy_is_that_of_the_weighted_log_probability(self):
        terms = on_policy(transition_terms(method("dance_grpo")))
        expected = gradient(-terms.advantage * terms.log_prob(terms.v), terms)
        torch.testing.assert_close(gradient(clipped_ratio([terms]), terms), expected)

    def test_guard_is_the_ratio_to_the_power_of_std_where_the_means_agree(self):
        terms = transition_terms(changed("flow_grpo", objective={"clip": 9.0, "guard": True}))
        bare = replace(terms, method=changed("flow_grpo", objective={"clip": 9.0}))
        now, old = terms.transition(terms.v), terms.transition(terms.v_rollout)
        shift = torch.exp(mean((now.mean - old.mean) ** 2) / (2 * now.std))
        guarded, ratio = (clipped_ratio([t]) / -t.advantage for t in (terms, bare))
        torch.testing.assert_close(guarded, ratio**now.std * shift)

    def test_guard_is_the_product_of_the_means_distance_and_the_noise(self):
        # Its expectation over the noise is free of the bias of the plain log-ratio.
        terms = transition_terms(changed("flow_grpo", objective={"clip": 9.0, "guard": True}))
        now, old = terms.transition(terms.v), terms.transition(terms.v_rollout)
        noise = (terms.x_next - old.mean) / old.std
        expected = torch.exp(mean((now.mean - old.mean) * noise))
        torch.testing.assert_close(clipped_ratio([terms]) / -terms.advantage, expected)

    def test_trust_drops_what_moves_further_away_and_nothing_else(self):
        terms = transition_terms(changed("flow_grpo", objective={"trust": 1e-12}))
        ratio = torch.exp(terms.log_prob(terms.v) - terms.log_prob(terms.v_rollout)).detach()
        away = ((ratio > 1) & (terms.advantage > 0)) | ((ratio < 1) & (terms.advantage < 0))
        assert 0 < int(away.sum()) < B
        torch.testing.assert_close(clipped_ratio([terms]), torch.where(away, 0.0, -terms.advantage * ratio))
        near = replace(terms, method=changed("flow_grpo", objective={"trust": 1e9}))
        torch.testing.assert_close(clipped_ratio([near]), -terms.advantage * ratio)

    @pytest.mark.parametrize("reduce", ["mean", "sum"])
    def test_a_chunk_of_one_step_is_that_step(self, reduce):
        terms = transition_terms(changed("gcpo", likelihood={"reduce": reduce}))
        single = replace(terms, method=method("flow_grpo_fast"))
        ratio = torch.exp(terms.log_prob(terms.v) - terms.log_prob(terms.v_rollout))
        assert single.method.likelihood.chunks == "each"
        clip = terms.method.objective.clip
        expected = torch.maximum(-terms.advantage * ratio, -terms.advantage * ratio.clamp(1 - clip, 1 + clip))
        torch.testing.assert_close(clipped_ratio([terms]), expected)

    def test_a_chunk_has_the_geometric_mean_of_its_ratios(self):
        row = changed("gcpo", objective={"clip": 9.0})
        unit = [transition_terms(row, at) for at in (1, 2, 3)]
        unit = [replace(terms, advantage=unit[0].advantage) for terms in unit]
        ratios = torch.stack([clipped_ratio([terms]) / -terms.advantage for terms in unit])
        torch.testing.assert_close(clipped_ratio(unit) / -unit[0].advantage, ratios.prod(0) ** (1 / 3))


class TestLeastSquares:
    @pytest.mark.parametrize("beta", [0.1, 1.0])
    def test_diffusion_nft(self, beta):
        row = changed("nft", likelihood={"weight": "uniform"}, objective={"lam": beta})
        terms = matching_terms(row)
        r, v, old, target = (terms.advantage + 1) / 2, terms.v, terms.v_old, terms.target
        plus, minus = beta * v + (1 - beta) * old, (1 + beta) * old - beta * v
        published = (r * mean((plus - target) ** 2) + (1 - r) * mean((minus - target) ** 2)) / beta
        torch.testing.assert_close(least_squares([terms]), published - mean((old - target) ** 2) / beta)

    def test_awm_with_its_distance_to_the_old_policy(self):
        awm = changed(
            "awm",
            likelihood={"weight": "uniform"},
            regularizer={"reference": 0.0, "old": 0.7},
            objective={"clip": 9.0},
        )
        terms = matching_terms(awm)
        squares = replace(terms, method=changed("advantage_flow", objective={"lam": 0.7}))
        torch.testing.assert_close(
            gradient(sample_losses([terms]), terms), gradient(sample_losses([squares]), terms)
        )

    def test_advantage_flow(self):
        terms = matching_terms(changed("advantage_flow", objective={"lam": 1.5}))
        a, e = terms.advantage, mean((terms.v_old - terms.target) ** 2)
        published = a * mean((terms.v - terms.target) ** 2) + 1.5 * mean((terms.v - terms.v_old) ** 2)
        torch.testing.assert_close(least_squares([terms]), published - a * e)

    def test_scaled_by_themselves_the_two_squares_are_in_x0(self):
        terms = matching_terms(changed("nft", objective={"lam": 0.5}))
        r, t, x = (terms.advantage + 1) / 2, terms.s, draw(B, 3, 4, 4)
        x0 = x - t * terms.target

        def scaled(v):
            gap = (x - t * v) - x0
            return mean(gap**2) / mean(gap.abs()).detach()

        plus, minus = (terms.v_old + sign * 0.5 * (terms.v - terms.v_old) for sign in (1, -1))
        published = (r * scaled(plus) + (1 - r) * scaled(minus)) / 0.5
        torch.testing.assert_close(least_squares([terms]), published)
        torch.testing.assert_close(gradient(least_squares([terms]), terms), gradient(published, terms))


class TestWithinGroup:
    def test_balance_of_two_raises_the_better_one(self):
        row = changed("tmpo", regularizer={"reference": 0.0}, objective={"beta": 5.0})
        terms = replace(
            transition_terms(row, distance=1e-9), advantage=torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
        )
        log_prob = terms.log_prob(terms.v)
        (slope,) = torch.autograd.grad(balance([terms]).sum(), terms.v)
        (own,) = torch.autograd.grad(log_prob.sum(), terms.v)
        # Descending the loss moves each log-probability in the direction of its advantage.
        assert torch.sign((-slope * own).flatten(1).sum(1)).tolist() == [1.0, -1.0, -1.0, 1.0]

    def test_balance_is_at_rest_where_the_policy_is_the_target(self):
        terms = on_policy(transition_terms(changed("tmpo", objective={"beta": 2.0})))
        terms = replace(terms, advantage=terms.log_prob(terms.v).detach() / 2)
        assert float(gradient(balance([terms]), terms).abs().max()) < 1e-12

    def test_dpo_at_the_reference_is_log_two(self):
        terms = matching_terms(method("flow_dpo"))
        terms = replace(
            terms, v_ref=terms.v.detach(), advantage=torch.tensor([1.0, -1.0, -1.0, 1.0]).double()
        )
        torch.testing.assert_close(dpo([terms]), torch.full((B,), math.log(2), dtype=torch.float64))
        torch.testing.assert_close(
            gradient(dpo([terms]), terms),
            gradient(-100 / 2 * terms.advantage * terms.log_prob(terms.v), terms),
        )


class TestRegularizer:
    def test_kl_of_a_transition_is_the_distance_of_the_velocities_times_half_the_squared_gradient_size(self):
        terms = transition_terms(changed("flow_grpo", regularizer={"form": "kl", "reference": 1.0}))
        s, s_next = (torch.tensor(level, dtype=torch.float64) for level in (terms.s, terms.s_next))
        size = gradient_size("flow", 0.7, s, s_next, GRID[1])
        torch.testing.assert_close(regularizer([terms]), mean((terms.v - terms.v_ref) ** 2) * size**2 / 2)

    def test_the_code_of_flow_grpo_drops_dt(self):
        paper, code = (
            transition_terms(changed("flow_grpo", regularizer={"form": form})) for form in ("kl", "kl_dt")
        )
        code = replace(paper, method=code.method)
        torch.testing.assert_close(regularizer([code]), regularizer([paper]) * (GRID[3] - GRID[4]))

    def test_decay_of_the_old_policy(self):
        assert [Regularizer(decay=0.5, ramp=0.001).decay_at(n) for n in (0, 100, 900)] == [0.0, 0.1, 0.5]
        assert Regularizer(decay=0.9).decay_at(0) == 0.9


class TestStepWeights:
    def test_they_have_mean_one_over_the_steps_that_may_be_trained(self):
        for kind in ("one", "std", "inverse_gradient", "inverse_dt"):
            weights = step_weights(changed("flow_grpo", objective={"step_weight": kind}), GRID)
            assert weights.shape == (5,)
            assert float(weights.mean()) == pytest.approx(1.0)

    def test_temp_flow_cancels_the_deviation_in_the_gradient(self):
        s, s_next = (torch.tensor(GRID[a:b], dtype=torch.float64) for a, b in ((0, 5), (1, 6)))
        weights = step_weights(method("temp_flow_grpo"), GRID)
        size = gradient_size("flow", 0.7, s, s_next, GRID[1])
        std, c = spread("flow", 0.7, s, s_next, GRID[1])
        torch.testing.assert_close(weights, 2.25 * std)
        torch.testing.assert_close(weights * size, 2.25 * (c * (1 - s) - s * (1 - s_next)).abs())

    def test_flash_falls_towards_low_noise_as_its_table_does(self):
        grid = [3 * s / (1 + 2 * s) for s in np.linspace(1, 0, 11)]
        weights = step_weights(method("flash_grpo"), grid)[1:6]
        assert (weights.diff() < 0).all()

    def test_one_of_a_step_alone_is_not_one(self):
        # Flash-GRPO trains one step an iteration: dividing by the trained steps' mean would undo the weight.
        weights = step_weights(method("flash_grpo"), GRID)
        assert float(weights.max() / weights.min()) > 1.2

    def test_weights_by_step_are_interpolated(self):
        weights = step_weights(
            changed("otca", objective={"step_weights": [2, 1, 2], "step_scale": 1.0}), GRID
        )
        torch.testing.assert_close(weights, torch.tensor([2, 1.5, 1, 1.5, 2], dtype=torch.float64))

    def test_a_weight_for_each_sample_stays_one_number_for_each_sample(self):
        # TempFlow-GRPO's code multiplies (B, 1, 1, 1) with (B), which is (B, 1, 1, B).
        row = method("temp_flow_grpo")
        terms = transition_terms(row, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]))
        terms = replace(
            terms, s=torch.full((B,), 0.8, dtype=torch.float64), s_next=torch.full((B,), 0.6).double()
        )
        losses = sample_losses([terms]) - regularizer([terms])
        assert losses.shape == (B,)
        torch.testing.assert_close(losses, clipped_ratio([terms]) * terms.weight)


class TestMatching:
    def test_weights_of_the_error(self):
        v, target, s = draw(B, 3, 4), draw(B, 3, 4), torch.tensor([0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
        error = mean((v - target) ** 2)
        for kind, expected in (
            ("uniform", error),
            ("ghuber", ((error + 1e-10) ** 0.25 - 1e-10**0.25) * s / 0.25),
            ("self", s * error / mean((v - target).abs())),
        ):
            torch.testing.assert_close(matching_error(kind, v, target, s), expected)

    def test_a_perfect_velocity_has_a_finite_gradient(self):
        for kind in ("ghuber", "self"):
            v = draw(B, 3).requires_grad_()
            matching_error(kind, v, v.detach(), 0.5).sum().backward()
            assert torch.isfinite(v.grad).all()

    def test_noised_samples_have_the_target_as_velocity(self):
        x0, noise = draw(B, 3), draw(B, 3)
        torch.testing.assert_close(noised(x0, noise, 0.7) - noised(x0, noise, 0.2), 0.5 * (noise - x0))

    def test_levels_are_drawn_from_equal_parts_of_the_grid(self):
        drawn = [Likelihood(times=4).levels(41, np.random.default_rng(n)) for n in range(60)]
        assert all(tuple(i // 10 for i in levels) == (0, 1, 2, 3) for levels in drawn)
        assert len({levels[0] for levels in drawn}) == 10

    def test_the_last_level_is_never_trained(self):
        rng = np.random.default_rng(0)
        assert Likelihood().levels(10, rng) == tuple(range(9))
        assert Likelihood(skip_first=True).levels(10, rng) == tuple(range(1, 9))
        assert Likelihood(times=99).levels(10, rng) == tuple(range(9))

    def test_probes_of_a_model_that_knows_its_samples(self):
        x0, noise = draw(B, 3, 2), [draw(B, 3, 2), draw(B, 3, 2)]
        known = lambda i, x: (x - x0) / GRID[i]  # noqa: E731  The velocity of the straight path from x0 to x.
        scores = probe_scores(known, x0, noise, (2, 3), GRID)
        torch.testing.assert_close(scores, torch.full((B, 2), -math.log(1e-6), dtype=torch.float64))
        biased = probe_scores(lambda i, x: known(i, x) + 0.5, x0, noise, (2, 3), GRID)
        torch.testing.assert_close(biased, torch.full((B, 2), -math.log(0.25 + 1e-6), dtype=torch.float64))


@pytest.mark.parametrize("name", [n for n, row in METHODS.items() if not row.objective.through_sampler])
def test_losses_are_float32_under_autocast(name):
    row = method(name)
    make = matching_terms if row.likelihood.kind == "matching" else transition_terms
    terms = make(row)
    half = {
        field: value.detach().bfloat16() if field.startswith(("v", "x", "target")) else value.float()
        for field in ("advantage", "v", "v_rollout", "v_old", "v_ref", "x", "x_next", "target")
        if (value := getattr(terms, field)) is not None
    }
    full = {field: value.float() for field, value in half.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = sample_losses([replace(terms, **half)])
    assert losses.dtype == torch.float32
    assert torch.equal(losses, sample_losses([replace(terms, **full)]))


def test_advantages_are_one_number_for_each_sample():
    with pytest.raises(AssertionError, match="one number"):
        replace(matching_terms(method("raft")), advantage=draw(B, 1))


def test_objectives_within_a_group_say_so():
    grouped = {name for name, row in METHODS.items() if row.objective.within_group}
    gradients = {"refl", "draft_k", "leap_align", "eam"}
    assert grouped == {"tmpo", "flow_dpo", "balanced_dpo"} | gradients
    assert {n for n, row in METHODS.items() if row.needs_old} == {
        "nft",
        "advantage_flow",
        "e2po",
        "sol_rl",
        "awm",
    }
    assert Objective(kind="dpo").within_group
