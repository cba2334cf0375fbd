"""Gradients through jumps of the sampler, and the closed-form adjoint against its integrated equation."""

import numpy as np
import pytest
import torch

from prefrm.flow.gradients import adjoint_target, leap, utility_gradient, utility_loss
from prefrm.flow.methods import method
from prefrm.flow.settings import Objective

GRID = (1.0, 0.8, 0.5, 0.2, 0.0)


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture
def example():
    """A linear velocity with one parameter matrix, and the path of its Euler sampler."""
    torch.manual_seed(0)
    matrix = draw(4, 4).requires_grad_()
    velocity = lambda i, x: torch.tanh(x @ matrix) * GRID[i]  # noqa: E731
    path = [draw(3, 4)]
    with torch.no_grad():
        for i in range(4):
            path.append(path[i] + (GRID[i + 1] - GRID[i]) * velocity(i, path[i]))
    return matrix, velocity, path


def slope(x0, matrix):
    return torch.autograd.grad((x0**2).sum(), matrix)[0]


def test_jumps_over_all_steps_are_the_sampler(example):
    matrix, velocity, path = example
    x0 = leap(velocity, path, GRID, (0, 1, 2, 3, 4), anchored=False)
    torch.testing.assert_close(x0, path[4])
    x = path[0]
    for i in range(4):
        x = x + (GRID[i + 1] - GRID[i]) * velocity(i, x)
    torch.testing.assert_close(slope(x0, matrix), slope(x, matrix))


def test_anchored_jumps_have_the_values_of_the_real_path(example):
    matrix, velocity, path = example
    x0 = leap(velocity, path, GRID, (0, 2, 4), anchored=True)
    torch.testing.assert_close(x0.detach(), path[4])
    # By hand: both jumps add to x0 directly, and the first one also through the second's input.
    first = -0.5 * velocity(0, path[0])
    second = -0.5 * velocity(2, path[2] + first - first.detach())
    torch.testing.assert_close(
        slope(x0, matrix), torch.autograd.grad((2 * path[4] * (first + second)).sum(), matrix)[0]
    )


def test_the_nested_gradient_is_scaled_by_its_share(example):
    matrix, velocity, path = example
    none, half, full = (
        slope(leap(velocity, path, GRID, (1, 3, 4), anchored=True, nested=share), matrix)
        for share in (0.0, 0.5, 1.0)
    )
    torch.testing.assert_close(half, (none + full) / 2)
    assert float((full - none).abs().max()) > 1e-3


def test_one_jump_of_refl_is_draft_of_the_last_step(example):
    matrix, velocity, path = example
    x0 = leap(velocity, path, GRID, (3, 4), anchored=False)
    torch.testing.assert_close(slope(x0, matrix), slope(path[3] - GRID[3] * velocity(3, path[3]), matrix))


def test_where_jumps_start_and_end():
    rng = np.random.default_rng(0)
    assert {method("refl").objective.points(40, rng)[0] for _ in range(200)} == set(range(30, 40))
    assert method("draft_k").objective.points(40, rng) == (39, 40)
    assert Objective(kind="draft", depth=3).points(10, rng) == (7, 8, 9, 10)
    assert Objective(kind="draft", depth=99).points(2, rng) == (0, 1, 2)
    pairs = {method("leap_align").objective.points(4, rng) for _ in range(200)}
    assert pairs == {(a, b, 4) for a in range(4) for b in range(a + 1, 4)}


def test_losses_of_utilities():
    utilities = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(utility_loss(method("refl").objective, utilities), torch.tensor([1e-3, 0.0]))
    torch.testing.assert_close(utility_loss(method("draft_k").objective, utilities), -utilities)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert utility_loss(method("draft_k").objective, utilities.bfloat16()).dtype == torch.float32


def test_utilities_have_a_gradient_where_there_is_none_around():
    x0 = draw(2, 3)
    with torch.no_grad():
        gradient = utility_gradient(lambda x: (x**3).sum(1), x0)
    torch.testing.assert_close(gradient, 3 * x0**2)


@pytest.mark.parametrize("s", [0.1, 0.5, 0.9])
def test_adjoint_of_a_normal_base(s):
    """Integrates da/dt = -b' a from t = 1 to 1 - s, for the memoryless drift b = 2 v_t - x / t of N(0, 1).

    In forward time t = 1 - s the velocity is v_t = -v = (2 t - 1) / (t^2 + (1 - t)^2) x, the noise's variance
    is 2 (1 - t) / t, and the optimal velocity is v_t - variance / 2 * a with a(1) = -strength * gradient.
    """
    times = torch.linspace(1 - s, 1.0, 200_001, dtype=torch.float64)
    drift = 2 * (2 * times - 1) / (times**2 + (1 - times) ** 2) - 1 / times
    a = -3.0 * 0.7 * float(torch.exp(torch.trapezoid(drift, times)))
    expected = -(0.25 - (s / (1 - s)) * a)  # Of the base v_t = 0.25, in the direction of s.
    actual = adjoint_target(torch.tensor([[-0.25]]).double(), torch.tensor([[0.7]]).double(), s, 3.0)
    assert float(actual) == pytest.approx(expected, rel=1e-6)


def test_the_adjoint_target_raises_the_utility():
    torch.manual_seed(0)
    x0, noise = draw(2, 3), draw(2, 3)
    x, gradient = 0.4 * x0 + 0.6 * noise, draw(2, 3)
    moved = x - 0.6 * adjoint_target(noise - x0, gradient, 0.6, 0.1)
    assert ((moved - x0) * gradient).sum() > 0
