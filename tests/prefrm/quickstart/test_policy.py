"""The policy stage with a scorer in this process."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_recipes.shapes.painter.model import MAX_PROGRAM_TOKENS
from data_recipes.shapes.prompts import Prompt, split_prompts
from prefrm.grpo import PreferenceReward
from prefrm.quickstart.policy import Painter, PolicyResult, draw, improve, mean_oracle
from prefrm.quickstart.settings import PolicySettings
from prefrm.winmatrix import FakeScorer, Group, WinMatrix

# TRL sets what transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")

WHITE = 255
SETTINGS = PolicySettings(steps=2, prompts=2, group_size=4, iterations=1, samples=2, watch_every=2)


class Recorder(FakeScorer):
    """Prefers the larger file; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, image: len(image) / 1000)
        self.asked: list[Group] = []

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        self.asked += groups
        return super().score(groups)


class Steps:
    """A `Tracker` that keeps the steps that it was called with."""

    def __init__(self, steps: list[int]) -> None:
        self._steps = steps

    def __call__(self, done: int, numbers: str = "") -> None:
        self._steps.append(done)

    def say(self, line: str) -> None:
        raise AssertionError(line)


def run(
    folder: Path,
    scorer: FakeScorer,
    held_out: Sequence[Prompt],
    steps: list[int],
    *,
    painter: Painter | None = None,
    settings: PolicySettings = SETTINGS,
) -> PolicyResult:
    train = split_prompts("train")[:20]
    return improve(
        painter or Painter(),
        scorer,
        train=train,
        held_out=held_out,
        folder=folder,
        settings=settings,
        seed=5,
        tracker=Steps(steps),
    )


def test_a_program_that_draws_nothing_has_no_reward_and_is_not_compared() -> None:
    scorer = Recorder()
    programs = ["red circle 0 0", "a masterpiece", "blue square 1 1", "red circle 0 0 ; red star 0 0"]
    rewards = PreferenceReward(scorer, draw, num_generations=4)(["a circle"] * 4, programs)
    assert [reward is None for reward in rewards] == [False, True, False, True]
    (group,) = scorer.asked
    assert [image is None for image in group.candidates] == [False, True, False, True]


def test_every_step_is_scored_and_only_prompts_of_training_are(tmp_path: Path) -> None:
    scorer, steps, held_out = Recorder(), list[int](), split_prompts("validation")[:6]
    result = run(tmp_path, scorer, held_out, steps)
    assert steps == [1, 2]
    assert len(scorer.asked) == SETTINGS.steps * SETTINGS.prompts
    assert {group.prompt for group in scorer.asked} <= {p.text for p in split_prompts("train")[:20]}
    assert [step for step, _ in result.watched] == [0, 2]
    assert result.watched[-1][1] == mean_oracle(result.after)
    assert [s.prompt for s in result.before] == [p for p in held_out for _ in range(SETTINGS.samples)]
    assert all((sample.image is None) <= (sample.oracle == 0) for sample in result.after)


def test_equal_seeds_give_equal_policies(tmp_path: Path) -> None:
    held_out = split_prompts("validation")[:6]
    first, again = (run(tmp_path / name, Recorder(), held_out, []) for name in "ab")
    assert [s.program for s in first.after] == [s.program for s in again.after]


def ink(image: Image.Image) -> float:
    """The share of pixels that are not white."""
    return float((np.asarray(image.convert("L")) < WHITE).mean())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_policy_learns_what_the_scorer_prefers(sign: int, tmp_path: Path) -> None:
    painter = Painter()
    untrained = {name: tensor.clone() for name, tensor in painter.model.state_dict().items()}
    result = run(
        tmp_path,
        FakeScorer(lambda prompt, image: sign * 40 * ink(Image.open(io.BytesIO(image)))),
        split_prompts("validation")[:8],
        [],
        painter=painter,
        settings=PolicySettings(
            steps=10, prompts=4, group_size=8, iterations=1, lr=1e-3, samples=8, watch_every=10
        ),
    )
    before, after = (
        np.mean([ink(sample.image) for sample in samples if sample.image is not None])
        for samples in (result.before, result.after)
    )
    # With other seeds it rises from 0.07 to 0.09 and more, or falls to 0.05 and less.
    assert sign * (after - before) > 0.01
    trained = painter.model.state_dict()
    assert any(not torch.equal(tensor, trained[name]) for name, tensor in untrained.items())


def test_a_rate_that_still_rises_changes_less(tmp_path: Path) -> None:
    changes = []
    for warmup_steps in (1, 1000):
        painter = Painter()
        weight = painter.model.lm_head.weight.detach()
        start = weight.clone()
        settings = replace(SETTINGS, warmup_steps=warmup_steps)
        run(tmp_path, Recorder(), split_prompts("validation")[:1], [], painter=painter, settings=settings)
        changes.append(float((weight - start).abs().max()))
    assert 0 < changes[1] < changes[0] / 100


@pytest.mark.parametrize("training", [False, True])
def test_sampling_leaves_the_global_random_state_and_the_model_as_they_were(training: bool) -> None:
    painter, prompts = Painter(), split_prompts("validation")[:3]
    painter.model.train(training)
    state = torch.get_rng_state()
    first, again = (painter.sample(prompts, each=2, seed=1) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert painter.model.training is training
    assert [s.program for s in first] == [s.program for s in again]
    assert all(len(s.program.split()) <= MAX_PROGRAM_TOKENS for s in first)


@pytest.mark.parametrize("program", ["", "red circle", "red circle 9 9", "circle red 0 0"])
def test_what_draws_nothing_scores_nothing(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter()
    monkeypatch.setattr("prefrm.quickstart.policy.paint", lambda model, tokenizer, prompts: [program])
    (sample,) = painter.sample(split_prompts("validation")[:1], each=1, seed=0)
    assert (sample.image, sample.oracle) == (None, 0.0)
