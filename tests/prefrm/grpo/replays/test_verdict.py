"""What `problems` finds in a replay that went wrong."""

import math

import pytest

from prefrm.grpo.replays import Call, Played, Replay, Sample, Step, play, problems
from prefrm.grpo.replays.verdict import Judged
from tests.prefrm.grpo.pixels import PixelScorer


def replay(*words, evaluation=False):
    samples = tuple(Sample.parse(word, n) for n, word in enumerate(words))
    step = Step(calls=(Call(samples=(samples,), delay_s=(0.0,)),), evaluation=evaluation)
    return Replay(trainer="flow_grpo", read_from="", name="", about="", group_size=2, steps=(step,))


def test_a_word_of_a_file_is_a_sample():
    assert Sample.parse("a", 3) == Sample(number=3, prompt="a")
    assert Sample.parse("a@x!", 3) == Sample(number=3, prompt="a", source="x", nan=True)
    assert Sample.parse("a?", 3) == Sample(number=3, prompt="a", absent=True)


def swapped(played):
    played.rewards[0], played.rewards[1] = played.rewards[1], played.rewards[0]


def lost(played):
    del played.rewards[0]


def invented(played):
    played.rewards[4] = 0.5


def judged_twice(played):
    played.judged.append(played.judged[0])


def judged_with_a_stranger(played):
    first, second = played.judged
    played.judged[0] = Judged(first.prompt, [first.images[0], second.images[0]], first.win_rates)


def judged_with_too_many(played):
    first, second = played.judged
    played.judged[:] = [Judged("a", first.images + second.images, first.win_rates + second.win_rates)]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (swapped, "sample 0, of 'a', has the reward 0.5098 in the place of 0.4902"),
        (lost, "sample 0, of 'a', has no reward, not even NaN"),
        (invented, "sample 4, of 'c', has the reward 0.5000 in the place of nan"),
        (judged_twice, "sample 0, of 'a', was judged twice"),
        (judged_with_a_stranger, "a group of 2 images holds"),
        (judged_with_too_many, "a group of 4 images holds"),
    ],
)
def test_what_is_wrong_with_a_step_of_training(spoil, message):
    whole = replay("a", "a", "b", "b", "c!", "c")
    played = play(whole, PixelScorer(), on_missing="drop")
    assert problems(whole, [played]) == []
    spoil(played)
    assert any(message in problem for problem in problems(whole, [played])), problems(whole, [played])


def test_what_is_wrong_with_an_evaluation():
    alone = replay("a", "b", evaluation=True)
    assert problems(alone, [Played(rewards={0: math.nan, 1: math.nan})]) == []
    assert problems(alone, [Played(rewards={0: math.nan, 1: 0.5})]) == [
        "sample 1, of 'b', has the reward 0.5000 in the place of nan"
    ]
    trained = play(replay("a", "a"), PixelScorer())
    (together,) = trained.judged
    crowd = Judged("a", [*together.images, "another"], [*together.win_rates, 0.5])
    played = Played(rewards=trained.rewards, judged=[crowd])
    assert problems(replay("a", evaluation=True), [played]) == [
        "sample 0, of 'a', was compared with [2] images"
    ]
