"""Every replay on one process: its processes' parts of a batch are one batch."""

import math

import pytest

from prefrm.errors import ConfigError, PrefrmError
from prefrm.grpo.replays import load, options_of, play, problems
from tests.prefrm.grpo.pixels import PixelScorer, shades
from tests.prefrm.grpo.replays.both import REPLAYS


@pytest.mark.parametrize("replay", REPLAYS, ids=lambda replay: f"{replay.trainer}: {replay.name}")
def test_every_reward_is_the_win_rate_in_a_whole_group(replay):
    alone = replay.merged()
    if replay.error:
        with pytest.raises(PrefrmError) as raised:
            play(alone, PixelScorer(), **options_of(replay))
        assert replay.error in str(raised.value)
        return
    played = play(alone, PixelScorer(), **options_of(replay))
    assert problems(alone, [played]) == []


def test_an_evaluation_against_reference_images():
    (replay,) = (replay for replay in REPLAYS if replay.name.startswith("evaluation before"))
    alone = replay.merged()
    played = play(
        alone, PixelScorer(), on_single="reference", reference=lambda prompt, metadata: shades(0.999)[0]
    )
    assert problems(alone, [played]) == []
    assert not any(math.isnan(reward) for reward in played.rewards.values())


def test_there_are_no_replays_of_an_unknown_trainer():
    with pytest.raises(ConfigError, match=r"there are replays of .*, flow_grpo.*; received 'openrlhf'"):
        load("openrlhf")
