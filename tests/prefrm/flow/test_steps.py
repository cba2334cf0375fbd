"""Which steps are stochastic and trained: ranges, windows, chunks."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrm.flow.methods import METHODS
from prefrm.flow.settings import Likelihood, Rollout, StochasticSteps


def steps_of(iteration=0, total=10, seed=0, **rule):
    return StochasticSteps(**rule).draw(iteration, total, np.random.default_rng(seed))


@given(
    st.sampled_from(["all", "random", "sliding", "each", "shared"]),
    st.integers(2, 30),
    st.integers(0, 99),
    st.integers(1, 6),
    st.integers(0, 3),
    st.floats(0.0, 1.0),
)
def test_the_last_step_is_never_stochastic(rule, total, iteration, count, first, within):
    steps = steps_of(iteration, total, rule=rule, count=count, first=first, within=within)
    assert steps
    assert steps == tuple(range(steps[0], steps[-1] + 1))
    assert 0 <= steps[0] <= steps[-1] <= total - 2


def test_all_none_and_each():
    assert steps_of(rule="all") == steps_of(rule="each") == tuple(range(9))
    assert steps_of(rule="none") == ()


def test_a_sliding_window_restarts_at_the_end():
    # MixGRPO: five windows of four fit into the steps 0 .. 7; each stays for two iterations.
    starts = [steps_of(n, 9, rule="sliding", count=4, every=2)[0] for n in range(12)]
    assert starts == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 0, 0]


def test_a_window_that_never_moves():
    assert {steps_of(n, 28, rule="sliding", first=1, count=3, every=0) for n in range(99)} == {(1, 2, 3)}


def test_a_random_window_lies_in_its_share_of_the_steps():
    # Flow-GRPO-Fast: three steps within the first half.
    windows = {steps_of(seed=seed, rule="random", count=3, within=0.5) for seed in range(50)}
    assert windows == {(0, 1, 2), (1, 2, 3), (2, 3, 4)}


def test_a_shared_step_is_one_step():
    drawn = {steps_of(seed=seed, total=5, rule="shared") for seed in range(50)}
    assert drawn == {(0,), (1,), (2,), (3,)}


def chosen(share, units, samples):
    rng = np.random.default_rng(0)
    return np.stack([StochasticSteps(trained=share).chosen(units, rng) for _ in range(samples)])


class TestUnits:
    def test_each_and_all(self):
        assert (
            Likelihood(chunks="each").units(3) == Likelihood(chunks=(1, 1, 1)).units(3) == ((0,), (1,), (2,))
        )
        assert Likelihood(chunks="all").units(3) == ((0, 1, 2),)
        assert Likelihood(chunks="each").units(0) == Likelihood(chunks="all").units(0) == ()

    def test_chunks_of_gcpo(self):
        assert [len(unit) for unit in Likelihood(chunks=(2, 3, 4, 7)).units(16)] == [2, 3, 4, 7]
        assert Likelihood(chunks=(2, 3, 4, 7)).units(8) == ((0,), (1, 2), (3, 4), (5, 6, 7))

    @given(st.integers(1, 40), st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple))
    def test_every_position_is_in_one_unit(self, count, chunks):
        assert [at for unit in Likelihood(chunks=chunks).units(count) for at in unit] == list(range(count))

    def test_dance_grpo_trains_sixty_percent_of_the_steps_of_each_sample(self):
        trained = chosen(0.6, 15, 200)
        assert (trained.sum(axis=1) == 9).all()
        assert 80 < trained.sum(axis=0).min() <= trained.sum(axis=0).max() < 160

    def test_at_least_one_unit_is_trained(self):
        assert chosen(0.1, 3, 4).sum(axis=1).tolist() == [1] * 4


def test_the_perturbed_condition_fades():
    rule = Rollout(condition_span=0.5)
    assert [rule.condition_strength(s) for s in (1.0, 0.75, 0.5, 0.2)] == [1.0, 0.5, 0.0, 0.0]


def test_stochastic_steps_of_the_methods_that_have_none_train_all_levels():
    assert all(
        row.likelihood.kind == "matching" or row.objective.through_sampler
        for row in METHODS.values()
        if row.rollout.stochastic.rule == "none"
    )


@pytest.mark.parametrize("chunks", [(), (0, 1), (-2,)])
def test_lengths_of_chunks_are_positive(chunks):
    with pytest.raises(ValueError, match="chunks"):
        Likelihood(chunks=chunks)


def test_methods_and_settings_need_no_torch():
    code = (
        "import sys, prefrm.flow, prefrm.flow.methods, prefrm.flow.config; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
