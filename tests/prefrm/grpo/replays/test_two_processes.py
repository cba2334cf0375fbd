"""Every replay of two processes, on two real ones."""

import json

import pytest

pytest.importorskip("torch")

from prefrm.grpo.replays import Judged, Played, problems
from tests.forked import ranks
from tests.prefrm.grpo.replays import both


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replays")
    for status, log in ranks(both.main, folder, folder=folder):
        assert status == 0, log
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("replay", both.SPREAD, ids=lambda replay: f"{replay.trainer}: {replay.name}")
def test_every_reward_is_the_win_rate_in_a_whole_group(seen, replay):
    parts = [results[replay.name] for results in seen]
    if replay.error:
        assert all(replay.error in part["error"] for part in parts), parts
        return
    assert not any("error" in part for part in parts), parts
    played = [
        Played(
            rewards={int(number): reward for number, reward in part["rewards"].items()},
            judged=[Judged(*group) for group in part["judged"]],
        )
        for part in parts
    ]
    assert problems(replay, played) == []
    # Both processes share the work.
    assert all(part.judged for part in played) or len([g for p in played for g in p.judged]) == 1


def test_a_judge_that_one_process_cannot_reach_stops_both(seen):
    first, second = (results["down on rank 1"]["error"] for results in seen)
    assert second == "ServerUnavailableError: nobody answers at 127.0.0.1:9"
    assert first == f"ScoringError: rank 1 failed: {second}"


def test_a_group_that_one_process_gives_up_is_given_up_by_both(seen):
    *failed, whole = seen[0]["impatient"]
    (given_up,) = set(failed)
    assert given_up.startswith("2 images of 'a' came, which are not a whole group of 4")
    assert seen[1]["impatient"] == [f"rank 0 failed: ConfigError: {given_up}"] * 2 + [whole]
    assert whole == [4, 4]
