"""The policy stage with a scorer in this process."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from data_recipes.shapes.painter.model import MAX_PROGRAM_TOKENS
from data_recipes.shapes.prompts import Prompt, split_prompts
from prefrm.grpo import PreferenceReward
from prefrm.progress import Advance
from prefrm.quickstart.policy import Painter, PolicyResult, draw, improve, mean_oracle
from prefrm.quickstart.settings import PolicySettings
from prefrm.winmatrix import FakeScorer, Group, WinMatrix

# TRL sets what transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing:FutureWarning")

SETTINGS = PolicySettings(steps=2, prompts=2, group_size=4, iterations=1, samples=2, watch_every=2)


class Recorder(FakeScorer):
    """Prefers the larger file; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda prompt, image: len(image) / 1000)
        self.asked: list[Group] = []

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        self.asked += groups
        return super().score(groups)


def run(folder: Path, scorer: FakeScorer, held_out: Sequence[Prompt], steps: list[int]) -> PolicyResult:
    advance: Advance = steps.append
    train = split_prompts("train")[:20]
    return improve(
        Painter(),
        scorer,
        train=train,
        held_out=held_out,
        folder=folder,
        settings=SETTINGS,
        seed=5,
        advance=advance,
    )


def test_a_program_that_draws_nothing_has_no_reward_and_is_not_compared() -> None:
    scorer = Recorder()
    programs = ["red circle 0 0", "a masterpiece", "blue square 1 1", "red circle 0 0 ; red star 0 0"]
    rewards = PreferenceReward(scorer, draw, num_generations=4)(["a circle"] * 4, programs)
    assert [reward is None for reward in rewards] == [False, True, False, True]
    (group,) = scorer.asked
    assert [image is None for image in group.images] == [False, True, False, True]


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


def test_sampling_leaves_the_global_random_state_alone() -> None:
    painter, prompts = Painter(), split_prompts("validation")[:3]
    first, again = (painter.sample(prompts, each=2, seed=1) for _ in range(2))
    assert [s.program for s in first] == [s.program for s in again]
    assert all(len(s.program.split()) <= MAX_PROGRAM_TOKENS for s in first)


@pytest.mark.parametrize("program", ["", "red circle", "red circle 9 9", "circle red 0 0"])
def test_what_draws_nothing_scores_nothing(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = Painter()
    monkeypatch.setattr("prefrm.quickstart.policy.paint", lambda model, tokenizer, prompts: [program])
    (sample,) = painter.sample(split_prompts("validation")[:1], each=1, seed=0)
    assert (sample.image, sample.oracle) == (None, 0.0)
