"""Two real processes give what one gives, score nothing twice, and fail together."""

import asyncio
import json
from pathlib import Path

import pytest

from prefrm.errors import ScoringError
from prefrm.group_log import GroupLogReader
from prefrm.grpo import AsyncPreferenceReward, PreferenceReward
from prefrm.grpo.ranks import Ranks, attempt
from tests.forked import ranks
from tests.prefrm.grpo import worker

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def both(folder):
    """What the two processes of `worker.py` saw, by rank."""
    for status, log in ranks(worker.main, folder, folder=folder):
        assert status == 0, log
    return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(worker.WORLD)]


@pytest.mark.parametrize("name", worker.BATCHES)
def test_two_processes_give_what_one_gives_and_score_nothing_twice(both, name):
    size, prompts, completions, cut = worker.BATCHES[name]
    scorer, metrics = worker.Scorer(), []
    reward = PreferenceReward(scorer, worker.to_image, num_generations=size)
    alone = reward(prompts, completions, log_metric=lambda *entry: metrics.append(list(entry)))

    first, second = (results["batches"][name] for results in both)
    assert first["rewards"] == alone[:cut]
    assert second["rewards"] == alone[cut:]
    assert first["scored"] + second["scored"] == worker.scored(scorer.groups)
    assert first["metrics"] + second["metrics"] == metrics


def test_each_process_scores_the_groups_that_begin_on_it(both):
    scored = [results["batches"]["a straddling group"]["scored"] for results in both]
    assert [[prompt for prompt, _ in groups] for groups in scored] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    ("name", "culprit", "error", "message"),
    [
        ("a callable fails on rank 1", 1, "RuntimeError", "the renderer broke"),
        ("the scorer fails on rank 0", 0, "ServerUnavailableError", "nobody answers at 127.0.0.1:9"),
        ("two prompts in a group", 0, "ConfigError", "more than one prompt, 'a' and 'b'"),
    ],
)
def test_a_failure_on_one_process_is_raised_on_both(both, name, culprit, error, message):
    there, elsewhere = (both[rank]["failures"][name] for rank in (culprit, 1 - culprit))
    assert there["error"] == error
    assert message in there["message"]
    assert elsewhere["error"] == "ScoringError"
    assert f"rank {culprit} failed: {error}: " in elsewhere["message"]
    assert message in elsewhere["message"]


def test_half_a_group_is_refused_on_both(both):
    for results in both:
        assert results["failures"]["half a group"]["error"] == "ConfigError"
        assert "5 completions (by process: [2, 3])" in results["failures"]["half a group"]["message"]


def test_after_a_failure_the_processes_are_still_in_step(both):
    alone = PreferenceReward(worker.Scorer(), worker.to_image, num_generations=2)(["a"] * 2, ["0", "1"])
    assert [results["failures"]["and works again"]["rewards"] for results in both] == [alone[:1], alone[1:]]
    for results in both:
        before, after = results["a later process group"]
        assert before == after
    assert [results["a later process group"][0] for results in both] == [alone[:1], alone[1:]]


@pytest.mark.parametrize("name", ["crossing", "one async reward twice"])
def test_two_async_calls_that_finish_in_different_orders_do_not_mix(both, name):
    def alone(completions):
        reward = AsyncPreferenceReward(worker.SlowScorer(0.0), worker.to_image, num_generations=2)
        return asyncio.run(reward(["a"] * 6, completions))

    first, second = alone(list("012345")), alone(list("952711"))
    assert both[0][name].get("rewards") == [first[:3], second[:3]], both[0][name]
    assert both[1][name].get("rewards") == [first[3:], second[3:]], both[1][name]


class TestAlone:
    def test_one_process_hears_itself(self):
        ranks = Ranks()
        assert ranks.join() == 0
        assert ranks.share(b"") == [b""]
        assert ranks.share(attempt(lambda: b"\0\1")) == [b"\0\1"]

    def test_its_own_failure_keeps_its_kind(self):
        def fail():
            raise KeyError("gone")

        failure = attempt(fail)
        with pytest.raises(KeyError, match="gone") as raised:
            Ranks().share(failure)
        assert raised.value is failure
        assert not isinstance(raised.value, ScoringError)


def test_two_processes_log_each_group_once_within_one_bound(both, folder):
    entries = GroupLogReader(folder / "log").entries()
    assert sorted(entry.step for entry in entries) == sorted([*range(1, 11)] * 3)
    rewards = [
        entry.rewards["preference"] for step in range(1, 11) for entry in entries if entry.step == step
    ]
    calls = zip(*(results["logged"] for results in both), strict=True)
    pairs = [sorted(tuple((one + other)[n : n + 2]) for n in (0, 2, 4)) for one, other in calls]
    assert [sorted(rewards[n : n + 3]) for n in range(0, 30, 3)] == pairs
    kept = [entry.step for entry in GroupLogReader(folder / "bounded").entries()]
    assert 0 < len(kept) <= 3 and set(kept) == {10}
