"""Every row of the methods against its published update, and what settings allow."""

import numpy as np
import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.flow.gradients import adjoint_target, leap, utility_gradient, utility_loss
from prefrm.flow.likelihood import Terms, noised
from prefrm.flow.methods import METHODS, method
from prefrm.flow.objectives import matched, sample_losses, step_weights
from prefrm.flow.settings import with_settings
from prefrm.rewards.chain import diversity
from tests.prefrm.flow.published import (
    DATA,
    FEATURES,
    GRID,
    KEYS,
    MAP,
    NOISE,
    OLD,
    POINTS,
    PUBLISHED,
    REFERENCE,
    REWARDS,
    ROLLOUT,
    SAMPLES,
    SEVERAL,
    THETA,
    euler_path,
    flow_step,
    log_prob,
    net,
    path,
    shared,
    utility,
)


def row_loss(row, theta, advantage, trained):
    """The loss of a row from the package's pieces, as the trainer puts them together."""
    if row.objective.through_sampler:
        x0 = leap(
            lambda i, x: net(theta, x, GRID[i]), euler_path(), GRID, POINTS[row.name],
            anchored=row.objective.kind == "leap", nested=row.objective.nested,
        )  # fmt: skip
        return utility_loss(row.objective, utility(x0)).mean()
    transitions = row.likelihood.kind == "transition"
    rng = np.random.default_rng(0)
    steps = row.rollout.stochastic.draw(0, 3, rng) if transitions else row.likelihood.levels(3, rng)
    if row.rollout.stochastic.rule == "shared":
        steps = (0, 1)  # Each iteration draws one of them; `trained` holds which.
    weights = step_weights(row, GRID)
    rows = np.flatnonzero(advantage)
    terms = transition_terms if transitions else matching_terms
    losses = []
    for number, unit in enumerate(row.likelihood.units(len(steps))):
        batch = [n for n in rows if not transitions or len(steps) == 1 or trained[n, number]]
        if batch:
            losses.append(
                sample_losses([terms(row, theta, steps[at], batch, advantage, weights) for at in unit])
            )
    loss = torch.cat(losses).mean()
    if row.objective.data_weight:
        target, x = NOISE[1] - DATA, noised(DATA, NOISE[1], GRID[1])
        data = Terms(method=row, advantage=torch.ones(6), s=GRID[1], v=net(theta, x, GRID[1]), target=target)
        loss = loss + row.objective.data_weight * matched([data]).mean()
    return loss


def transition_terms(row, theta, i, batch, advantage, weights):
    rollout, first = row.rollout, row.rollout.stochastic.first
    levels = [(rollout.branch_noise or (rollout.noise,) * 2)[max(step - first, 0)] for step in range(2)]
    states = path(rollout.kernel, levels, first=first)
    x = states[i][batch]
    return Terms(
        method=row,
        advantage=torch.from_numpy(advantage)[batch],
        s=torch.full((len(batch),), GRID[i], dtype=torch.float64),
        v=net(theta, x, GRID[i]),
        v_rollout=net(ROLLOUT, x, GRID[i]),
        v_old=net(OLD, x, GRID[i]) if row.needs_old else None,
        v_ref=net(REFERENCE, x, GRID[i]) if row.needs_reference else None,
        weight=float(weights[i]),
        group=torch.tensor(KEYS)[batch],
        x=x,
        x_next=states[i + 1][batch],
        s_next=GRID[i + 1],
        s_after_first=GRID[1],
        noise=levels[i],
        pixel_map=MAP[batch] if row.objective.pixel_map else None,
    )


def matching_terms(row, theta, i, batch, advantage, weights):
    noise = (shared(i) if row.likelihood.shared_noise else NOISE[i])[batch]
    x0, s = SAMPLES[batch], GRID[i]
    x, target = noised(x0, noise, s), noise - x0
    if row.objective.kind == "adjoint":
        target = adjoint_target(net(REFERENCE, x, s), utility_gradient(utility, x0), s, row.objective.lam)
    return Terms(
        method=row,
        advantage=torch.from_numpy(advantage)[batch],
        s=s,
        v=net(theta, x, s),
        v_rollout=net(ROLLOUT, x, s) if row.name == "v_grpo" else net(theta, x, s),
        v_old=net(OLD, x, s) if row.needs_old else None,
        v_ref=net(REFERENCE, x, s) if row.needs_reference else None,
        weight=float(weights[i]),
        group=torch.tensor(KEYS)[batch],
        target=target,
    )


def trained_of(row):
    """[6, 2]: which steps each sample trains."""
    if row.rollout.stochastic.rule == "each":
        return np.array([[True, False]] * 3 + [[False, True]] * 3)
    if row.rollout.stochastic.rule == "shared":
        return np.array([[False, True]] * 6)
    rng = np.random.default_rng(3)
    return np.stack([row.rollout.stochastic.chosen(2, rng) for _ in range(6)])


@pytest.mark.parametrize("name", METHODS)
def test_a_row_reproduces_the_published_update(name):
    row, trained = method(name), trained_of(method(name))
    rewards = REWARDS if name in SEVERAL else {"a": REWARDS["a"]}
    advantage = row.advantage.advantages(rewards, KEYS, distances=diversity(FEATURES.numpy(), KEYS))
    mine, theirs = THETA.clone().requires_grad_(), THETA.clone().requires_grad_()
    loss, published = (
        row_loss(row, mine, advantage, trained),
        PUBLISHED[name](theirs, torch.from_numpy(trained)),
    )
    loss.backward()
    published.backward()
    torch.testing.assert_close(loss, published, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-9)
    assert float(theirs.grad.abs().max()) > 1e-9


def test_some_ratios_of_the_example_are_clipped_and_some_are_not():
    states, total = path("flow", (0.7, 0.7)), []
    for i in range(2):
        step = lambda p, i=i: flow_step(states[i], net(p, states[i], GRID[i]), i, 0.7)  # noqa: E731
        total.append(
            log_prob("flow", states[i + 1], *step(THETA)) - log_prob("flow", states[i + 1], *step(ROLLOUT))
        )
    change = torch.cat(total).abs()
    assert 0 < int((change > 1e-4).sum()) < len(change)


def test_the_table_has_every_method_with_a_paper_and_its_own_name():
    assert list(METHODS) == [row.name for row in METHODS.values()]
    assert list(METHODS) == list(PUBLISHED)
    assert all(row.title and row.paper for row in METHODS.values())
    assert len({row.title for row in METHODS.values()}) == len(METHODS) == 31


@pytest.mark.parametrize("name", METHODS)
def test_a_row_survives_configuration(name):
    assert with_settings(method(name), {}) == method(name)


def test_settings_override_what_they_name_and_nothing_else():
    changed = with_settings(
        method("tmpo"), {"objective": {"clip": 0.1}, "rollout": {"stochastic": {"count": 2}}}
    )
    assert (changed.objective.clip, changed.objective.beta) == (0.1, 15.0)
    assert (changed.rollout.stochastic.count, changed.rollout.stochastic.first) == (2, 1)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("flow_grpo_fast", {"rollout": {"noise": 1.8}}, r"noise levels of cps must be in \(0, 1\]"),
        ("tmpo", {"rollout": {"branch_noise": [0.4, 0.7, 1.2]}}, "noise levels of cps"),
        ("tmpo", {"rollout": {"branch_noise": [0.4]}}, "as long as branches"),
        ("flow_grpo", {"rollout": {"kernel": "ode"}}, "goes with the stochastic rule"),
        ("nft", {"likelihood": {"weight": "ghuber"}}, "ghuber is not a square"),
        ("nft", {"regularizer": {"form": "kl"}}, "form kl needs transitions"),
        ("flow_grpo_fast", {"objective": {"guard": True}}, "guard needs transitions with a density"),
        ("nft", {"objective": {"step_weight": "std"}}, "step_weight needs noise"),
        ("nft", {"likelihood": {"kind": "transition"}}, "transitions need stochastic steps"),
        ("flow_grpo", {"objective": {"kind": "adjoint"}}, "adjoint needs the likelihood matching"),
        ("nft", {"objective": {"clap": 1.0}}, "unknown key objective.clap"),
        ("tmpo", {"objective": {"kind": "weighted"}, "likelihood": {"kind": "matching"}}, "branches need"),
        ("tree_grpo", {"objective": {"kind": "draft"}}, "branches need transitions"),
        ("refl", {"regularizer": {"reference": 0.1}}, "through the sampler has no regularizer"),
        ("leap_align", {"regularizer": {"old": 1.0}}, "through the sampler has no regularizer"),
        ("temp_flow_grpo", {"rollout": {"branches": []}}, '"each" needs branches'),
        (
            "temp_flow_grpo",
            {"objective": {"kind": "balance"}, "rollout": {"key": "prompt"}},
            "drawn together",
        ),
        (
            "dance_grpo",
            {"rollout": {"stochastic": {"trained": 1.5}}},
            r"trained must be in \[0, 1\]; received 1.5",
        ),
    ],
)
def test_settings_that_do_not_fit(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(method(name), settings)


def test_an_unknown_method_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"ddpo, flow_grpo, .* received 'ppo'"):
        method("ppo")
