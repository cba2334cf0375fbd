"""The one kernel formula, against the closed forms that the papers and their code have, in float64."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from prefrm.flow.kernels import Transition, ddim_std, gradient_size, spread, transition

S_AFTER_FIRST = 0.96
STEPS = [(1.0, 0.96), (0.913, 0.858), (0.602, 0.465), (0.278, 0.0089)]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def x_and_v():
    torch.manual_seed(0)
    return draw(3, 2, 4, 4), draw(3, 2, 4, 4)


def g_of_flow(a, s):
    return a * math.sqrt(s / (1 - (S_AFTER_FIRST if s == 1 else s)))


def flow_grpo(x, v, s, s_next, a):
    """Flow-GRPO's code: dt < 0, drift with the score's correction."""
    dt, g = s_next - s, g_of_flow(a, s)
    mean = x * (1 + g**2 / (2 * s) * dt) + v * (1 + g**2 * (1 - s) / (2 * s)) * dt
    return mean, g * math.sqrt(-dt)


def dance_grpo(x, v, s, s_next, eta):
    """DanceGRPO's code: an Euler step plus the score of the marginal."""
    x0 = x - s * v
    score = -(x - x0 * (1 - s)) / s**2
    return x + (s_next - s) * v - 0.5 * eta**2 * score * (s_next - s), eta * math.sqrt(s - s_next)


def flow_cps(x, v, s, s_next, a):
    """FlowCPS's code: the noise's coefficient is kept."""
    std = s_next * math.sin(a * math.pi / 2)
    return (x - s * v) * (1 - s_next) + (x + (1 - s) * v) * math.sqrt(s_next**2 - std**2), std


def euler(x, v, s, s_next, a):
    return x + (s_next - s) * v, 0.0


CLOSED_FORMS = {
    "flow": (flow_grpo, 0.7),
    "dance": (dance_grpo, 0.3),
    "cps": (flow_cps, 0.8),
    "ode": (euler, 0.0),
}


@pytest.mark.parametrize("kernel", CLOSED_FORMS)
@pytest.mark.parametrize(("s", "s_next"), STEPS)
def test_published_closed_forms(x_and_v, kernel, s, s_next):
    closed_form, noise = CLOSED_FORMS[kernel]
    step = transition(kernel, noise, *x_and_v, s, s_next, S_AFTER_FIRST)
    mean, std = closed_form(*x_and_v, s, s_next, noise)
    torch.testing.assert_close(step.mean, mean, rtol=1e-9, atol=1e-9)
    assert float(step.std) == pytest.approx(std, rel=1e-9)


@pytest.mark.parametrize(("now", "then", "eta"), [(0.3, 0.5, 0.8), (0.01, 0.9, 1.0)])
def test_ddim_between_variance_preserving_pairs_is_ddpos(now, then, eta):
    # now and then are the cumulative alphas A and A' of ddpo-pytorch's ddim_step_with_logprob.
    a, s, a_next, s_next = torch.tensor([now, 1 - now, then, 1 - then], dtype=torch.float64).sqrt()
    variance = (1 - then) / (1 - now) * (1 - now / then)
    assert float(ddim_std(eta, a, s, a_next, s_next)) == pytest.approx(eta * math.sqrt(variance), rel=1e-12)


def test_ddim_of_a_flow_is_the_renoising_posterior():
    # At eta 1 the step is q(x' | x, x0): its mean's coefficient of x1 and its variance keep the marginal.
    s, s_next = torch.tensor([1.0, 0.6], dtype=torch.float64), torch.tensor([0.8, 0.3], dtype=torch.float64)
    std, c = spread("ddim", 1.0, s, s_next, S_AFTER_FIRST)
    torch.testing.assert_close(c**2 + std**2, s_next**2)
    # From pure noise nothing is kept: x' is noised afresh.
    assert float(std[0]) == pytest.approx(0.8)
    # Covariance of x' and x given x0 is that of the forward process, (1 - s) / (1 - s') s'^2.
    assert float(c[1] * s[1]) == pytest.approx(0.4 / 0.7 * 0.3**2, rel=1e-9)


def test_cps_of_full_noise_is_stochastic_sampling_of_diffusers():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(6)
    torch.manual_seed(0)
    x, v = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    s, s_next = (float(scheduler.sigmas[i]) for i in (2, 3))
    torch.manual_seed(7)
    theirs = scheduler.step(v, scheduler.timesteps[2], x, return_dict=False)[0]
    torch.manual_seed(7)
    step = transition("cps", 1.0, x, v, s, s_next, float(scheduler.sigmas[1]))
    torch.testing.assert_close(step.sample(torch.randn_like(x)), theirs, rtol=1e-6, atol=1e-6)


def test_cps_keeps_the_marginal_and_flow_adds_noise():
    s, s_next = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    for kernel, noise, keeps in (("cps", 0.8, True), ("flow", 0.7, False), ("dance", 0.3, False)):
        std, c = spread(kernel, noise, s, s_next, S_AFTER_FIRST)
        assert bool(c**2 + std**2 > s_next**2 + 1e-9) is not keeps


def test_at_pure_noise_only_the_denominator_takes_the_next_level():
    one, after = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.96, dtype=torch.float64)
    std, c = spread("flow", 0.7, one, after, 0.96)
    assert float(std) == pytest.approx(0.7 * math.sqrt(1 / 0.04) * math.sqrt(0.04))
    assert float(c) == pytest.approx(0.96 - float(std) ** 2 / 2)


@pytest.mark.parametrize("kernel", ["cps", "ddim"])
def test_the_last_step_has_no_noise(x_and_v, kernel):
    x, v = x_and_v
    step = transition(kernel, 0.8, x, v, 0.2, 0.0, S_AFTER_FIRST)
    assert float(step.std) == 0
    torch.testing.assert_close(step.mean, x - 0.2 * v)


def test_noise_beyond_one_would_fold_back():
    # FlowCPS's configurations have a = 1.8, which acts as 0.2.
    s, s_next = torch.tensor(0.7), torch.tensor(0.5)
    with pytest.raises(AssertionError, match=r"in \(0, 1\]"):
        spread("cps", 1.8, s, s_next, S_AFTER_FIRST)


class TestLogProbability:
    def test_it_is_the_mean_of_the_normal_density(self):
        mean, x_next = draw(2, 3, 4), draw(2, 3, 4)
        std = torch.tensor([0.5, 2.0], dtype=torch.float64)
        expected = torch.distributions.Normal(mean, std[:, None, None]).log_prob(x_next).mean((1, 2))
        torch.testing.assert_close(Transition(mean=mean, std=std).log_prob(x_next), expected)

    def test_cps_has_the_square_alone(self, x_and_v):
        x, v = x_and_v
        x_next = draw(*x.shape)
        step = transition("cps", 0.8, x, v, 0.7, 0.5, S_AFTER_FIRST)
        torch.testing.assert_close(step.log_prob(x_next), -((x_next - step.mean) ** 2).mean((1, 2, 3)))

    def test_weights_stand_inside_the_mean(self):
        mean, x_next = draw(2, 3, 2, 2), draw(2, 3, 2, 2)
        weights = torch.rand(2, 1, 2, 2, dtype=torch.float64)
        step = Transition(mean=mean, std=torch.tensor(0.5, dtype=torch.float64))
        expected = (torch.distributions.Normal(mean, 0.5).log_prob(x_next) * weights).mean((1, 2, 3))
        torch.testing.assert_close(step.log_prob(x_next, weights), expected)
        torch.testing.assert_close(step.log_prob(x_next, torch.ones_like(weights)), step.log_prob(x_next))

    def test_the_next_state_carries_no_gradient(self, x_and_v):
        x, v = x_and_v
        v.requires_grad_()
        step = transition("flow", 0.7, x, v, 0.7, 0.5, S_AFTER_FIRST)
        # With a gradient through x' = mean + std noise the density would not depend on v at all.
        step.log_prob(step.sample(torch.ones_like(x))).sum().backward()
        assert float(v.grad.abs().max()) > 0

    @pytest.mark.parametrize("kernel", ["flow", "cps"])
    def test_autocast_changes_nothing(self, kernel):
        torch.manual_seed(0)
        x, v, x_next = (torch.randn(2, 3, 4, 4).bfloat16() for _ in range(3))
        precise = transition(kernel, 0.7, x.float(), v.float(), 0.7, 0.5, S_AFTER_FIRST).log_prob(
            x_next.float()
        )
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = transition(kernel, 0.7, x, v, 0.7, 0.5, S_AFTER_FIRST).log_prob(x_next)
        assert actual.dtype == torch.float32
        assert torch.equal(actual, precise)


def test_samples_of_one_batch_may_be_at_different_steps(x_and_v):
    x, v = x_and_v
    s, s_next = (torch.tensor(levels, dtype=torch.float64) for levels in zip(*STEPS[:3], strict=True))
    together = transition("flow", 0.7, x, v, s, s_next, S_AFTER_FIRST)
    for n, (now, then) in enumerate(STEPS[:3]):
        alone = transition("flow", 0.7, x[n : n + 1], v[n : n + 1], now, then, S_AFTER_FIRST)
        torch.testing.assert_close(together.mean[n], alone.mean[0])
        torch.testing.assert_close(together.log_prob(x)[n], alone.log_prob(x[n : n + 1])[0])


@pytest.mark.parametrize("kernel", ["flow", "dance", "cps", "ddim"])
def test_gradient_size_is_the_size_of_the_score_in_v(x_and_v, kernel):
    x, v = x_and_v
    s, s_next = torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    mean = lambda v: transition(kernel, 0.6, x, v, s, s_next, S_AFTER_FIRST).mean  # noqa: E731
    slope = (mean(v + 1) - mean(v)).abs().max()
    std = spread(kernel, 0.6, s, s_next, S_AFTER_FIRST)[0]
    size = gradient_size(kernel, 0.6, s, s_next, S_AFTER_FIRST)
    torch.testing.assert_close(size, slope / std)
    if kernel == "flow":
        g, dt = g_of_flow(0.6, 0.7), -0.2
        flash = math.sqrt(-dt) / g + g * math.sqrt(-dt) * (1 - 0.7) / (2 * 0.7)
        assert float(size) == pytest.approx(flash)
