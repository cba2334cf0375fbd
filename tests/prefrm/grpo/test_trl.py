"""The reward functions under a real TRL `GRPOTrainer`: what it is told, and what it makes of it."""

import asyncio
import json
import math
from statistics import pstdev
from types import SimpleNamespace

import pytest
from PIL import Image

from prefrm.group_log import GroupLogReader
from prefrm.grpo import AsyncPreferenceReward, CombinedReward, PreferenceReward
from prefrm.pixels import encode_image
from prefrm.winmatrix import FakeScorer, Group
from tests.forked import ranks
from tests.prefrm.grpo import tiny

pytest.importorskip("trl")
# The trainer calls what its own dependencies have deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

RED, BLUE = (Image.new("RGB", (32, 32), color) for color in ("red", "blue"))
ROWS = [
    {"prompt": "a cat", "blank": False},
    {"prompt": "a dog", "blank": False},
    {"prompt": "a cow", "blank": True},
    {"prompt": "a fox", "blank": False},
]


class AsyncFake(FakeScorer):
    async def score(self, groups):
        return super().score(groups)


def written_utility(prompt, image):
    return float(image)


def expected_rewards(prompts, completions, blanks, size):
    """Win rates among the images of each group, computed group by group."""
    rewards = []
    for n in range(0, len(prompts), size):
        part = range(n, n + size)
        images = [tiny.to_image(completions[k], blank=blanks[k]) for k in part]
        there = [k for k, image in enumerate(images) if image is not None]
        group = [None] * size
        if len(there) > 1:
            alone = Group(prompt="", candidates=tuple(images[k] for k in there))
            (matrix,) = FakeScorer(written_utility).score([alone])
            for k, rate in zip(there, matrix.win_rate(), strict=True):
                group[k] = float(rate)
        rewards += group
    return rewards


def expected_advantages(rewards, size):
    """TRL's own default: (r - mean) / (unbiased std + 1e-4) over the rewards there are; 0 for a None."""
    advantages = []
    for n in range(0, len(rewards), size):
        group = rewards[n : n + size]
        known = [r for r in group if r is not None]
        if len(known) < 2:
            advantages += [0.0] * size
            continue
        mean = sum(known) / len(known)
        std = math.sqrt(sum((r - mean) ** 2 for r in known) / (len(known) - 1))
        advantages += [0.0 if r is None else (r - mean) / (std + 1e-4) for r in group]
    return advantages


def mean(values):
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def numbers_or_none(values):
    return [None if math.isnan(value) else value for value in values]


def blanks_of(prompts):
    blank = {row["prompt"]: row["blank"] for row in ROWS}
    return [blank[prompt if isinstance(prompt, str) else prompt[-1]["content"]] for prompt in prompts]


def check_run(run, calls, size=4):
    """A None stays out of every mean and gets no advantage, in every step."""
    steps = [entry for entry in run.state.log_history if "reward" in entry]
    assert len(steps) == len(calls) == 2
    for entry, (prompts, completions, rewards) in zip(steps, calls, strict=True):
        assert rewards == pytest.approx(
            expected_rewards(prompts, completions, blanks_of(prompts), size), nan_ok=True
        )
        assert entry["reward"] == pytest.approx(mean(rewards), abs=1e-6)
        assert entry["rewards/preference/mean"] == pytest.approx(mean(rewards), abs=1e-6)
        groups = [rewards[n : n + size] for n in range(0, len(rewards), size)]
        # In these runs a candidate has no reward exactly if it has no image, or is the only one that has.
        judged = [math.comb(sum(r is not None for r in group), 2) for group in groups]
        invalid = [1 - pairs / math.comb(size, 2) for pairs in judged]
        assert entry["preference/invalid_pairs"] == pytest.approx(mean(invalid))
        spreads = [pstdev(r for r in group if r is not None) for group in groups if group != [None] * size]
        assert entry["preference/win_rate_std"] == pytest.approx(mean(spreads), abs=1e-6)
        assert 0 < entry["preference/order_gap"] < 1
    _, _, last = calls[-1]
    assert numbers_or_none(run._logs["rewards"]["preference"]) == pytest.approx(last)
    assert list(run._logs["advantages"]) == pytest.approx(expected_advantages(last, size), abs=1e-4)
    everything = [reward for _, _, rewards in calls for reward in rewards]
    assert None in everything
    assert any(reward is not None for reward in everything)


class LengthScorer(FakeScorer):
    def __init__(self):
        super().__init__(lambda prompt, text: len(text.encode()))
        self.groups = []

    def score(self, groups):
        self.groups += groups
        return super().score(groups)


@pytest.mark.slow
@pytest.mark.parametrize("column", ["image", "images"])
def test_a_vision_language_model_learns_from_answers_compared_with_each_other(tmp_path, column):
    """The judge sees the question, its image and a group of answers; no renderer is needed."""
    rows = [
        {"prompt": [{"role": "user", "content": question}], column: [image] if column == "images" else image}
        for question, image in (("which color?", RED), ("how many?", BLUE))
    ]
    scorer = LengthScorer()
    reward = tiny.Recorded(PreferenceReward(scorer))
    run = tiny.trainer([reward], tmp_path, rows, parts=tiny.vision_model(), max_steps=1)
    run.train()
    ((_, completions, rewards),) = reward.calls
    answers = [completion[0]["content"] for completion in completions]
    assert {(group.prompt, group.context) for group in scorer.groups} == {
        ("which color?", (encode_image(RED),)), ("how many?", (encode_image(BLUE),)),
    }  # fmt: skip
    assert [text for group in scorer.groups for text in group.candidates] == answers
    expected = [
        rate
        for n in (0, 4)
        for rate in LengthScorer()
        .score([Group(prompt="", candidates=tuple(answers[n : n + 4]))])[0]
        .win_rate()
    ]
    assert rewards == pytest.approx(expected)
    assert list(run._logs["advantages"]) == pytest.approx(expected_advantages(rewards, 4), abs=1e-4)


@pytest.mark.parametrize("conversational", [False, True])
def test_a_synchronous_reward(tmp_path, conversational):
    rows = [
        {**row, "prompt": [{"role": "user", "content": row["prompt"]}] if conversational else row["prompt"]}
        for row in ROWS
    ]
    reward = tiny.Recorded(PreferenceReward(tiny.CountingScorer(), tiny.to_image))
    run = tiny.trainer([reward], tmp_path, rows)
    run.train()
    check_run(run, reward.calls)


def test_an_asynchronous_reward(tmp_path):
    scorer = AsyncFake(written_utility, first_bonus=0.5)
    reward = tiny.AsyncRecorded(AsyncPreferenceReward(scorer, tiny.to_image))
    run = tiny.trainer([reward], tmp_path, ROWS)
    run.train()
    check_run(run, reward.calls)


def test_a_generation_batch_of_several_steps_is_scored_once(tmp_path):
    scorer = tiny.CountingScorer()
    reward = tiny.Recorded(PreferenceReward(scorer, lambda completion, **_: str(len(completion)).encode()))
    run = tiny.trainer([reward], tmp_path, ROWS[:2], per_device_train_batch_size=4, steps_per_generation=2)
    run.train()
    assert [len(prompts) for prompts, _, _ in reward.calls] == [8]
    assert [group.size for group in scorer.groups] == [4, 4]


def test_logged_groups_have_the_steps_of_the_metrics(tmp_path):
    log = tmp_path / "log"
    reward = tiny.Recorded(PreferenceReward(tiny.CountingScorer(), tiny.to_image, log_groups=log))
    run = tiny.trainer([reward], tmp_path, [{"prompt": "a cat"}, {"prompt": "a dog"}])
    run.train()
    found = GroupLogReader(log).entries()
    assert {entry["step"] for entry in run.state.log_history if "reward" in entry} == {1, 2}
    for step, (_, _, rewards) in enumerate(reward.calls, start=1):
        of_step = [one for one in found if one.step == step]
        assert [value for one in of_step for value in one.rewards["preference"]] == rewards
    assert len(found) == 4 and not any(one.evaluation for one in found)


def test_evaluation_has_its_own_group_size(tmp_path):
    scorer = tiny.CountingScorer()
    reward = PreferenceReward(scorer, lambda completion, **_: str(len(completion)).encode())
    run = tiny.trainer(
        [reward],
        tmp_path,
        ROWS,
        # The same prompt twice: two groups of two, not one of four.
        eval_rows=[{"prompt": "a cat", "blank": False}] * 2,
        num_generations_eval=2,
        per_device_eval_batch_size=4,
    )
    metrics = run.evaluate()
    assert [group.size for group in scorer.groups] == [2, 2]
    assert metrics["eval_preference/invalid_pairs"] == 0
    scorer.groups.clear()
    run.train()
    assert {group.size for group in scorer.groups} == {4}


def test_evaluation_of_single_completions_compares_them_with_a_reference(tmp_path):
    scorer = tiny.CountingScorer()
    reward = PreferenceReward(
        scorer,
        lambda completion, **_: str(len(completion)).encode(),
        on_single="reference",
        reference=lambda prompt, row: str(row["worth"]).encode(),
    )
    rows = [{"prompt": "a cat", "worth": 2}, {"prompt": "a dog", "worth": 3}]
    run = tiny.trainer(
        [reward], tmp_path, ROWS, eval_rows=rows, num_generations_eval=1, per_device_eval_batch_size=2
    )
    metrics = run.evaluate()
    assert sorted((group.prompt, group.candidates[1]) for group in scorer.groups) == [
        ("a cat", b"2"),
        ("a dog", b"3"),
    ]
    expected = [float(matrix.win_rate()[0]) for matrix in FakeScorer(written_utility).score(scorer.groups)]
    assert metrics["eval_rewards/preference/mean"] == pytest.approx(mean(expected), abs=1e-6)


def length(completions, **columns):
    return [float(len(completion)) for completion in completions]


class TestBesideAnotherReward:
    """The limit that `CombinedReward` is for."""

    def test_trl_counts_a_missing_reward_as_zero_in_its_sum(self, tmp_path):
        reward = tiny.Recorded(PreferenceReward(tiny.CountingScorer(), tiny.to_image))
        run = tiny.trainer([reward, length], tmp_path, ROWS, max_steps=1)
        run.train()
        ((_, completions, rewards),) = reward.calls
        summed = [(r or 0.0) + n for r, n in zip(rewards, length(completions), strict=True)]
        assert None in rewards
        assert list(run._logs["advantages"]) == pytest.approx(expected_advantages(summed, 4), abs=1e-4)

    def test_combined_it_stays_missing(self, tmp_path):
        preference = tiny.Recorded(PreferenceReward(tiny.CountingScorer(), tiny.to_image))
        reward = tiny.Recorded(CombinedReward([preference, length], [1.0, 0.5]))
        run = tiny.trainer([reward], tmp_path, ROWS, max_steps=1)
        run.train()
        ((_, completions, rewards),) = preference.calls
        summed = [
            None if r is None else r + 0.5 * n for r, n in zip(rewards, length(completions), strict=True)
        ]
        assert None in rewards
        assert numbers_or_none(run._logs["rewards"]["combined"]) == pytest.approx(summed)
        assert list(run._logs["advantages"]) == pytest.approx(expected_advantages(summed, 4), abs=1e-4)
        (entry,) = [entry for entry in run.state.log_history if "reward" in entry]
        assert entry["combined/preference"] == pytest.approx(mean(rewards))


@pytest.mark.parametrize("kind", [PreferenceReward, AsyncPreferenceReward])
def test_a_group_under_the_experimental_async_trainer(monkeypatch, kind):
    """Its rollout loop, which needs a server to run, scores one group at a time; that part runs here."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from accelerate import PartialState
    from trl.experimental.async_grpo import async_rollout_worker as worker

    PartialState(cpu=True)  # its logger asks for one
    fake = FakeScorer if kind is PreferenceReward else AsyncFake
    reward = kind(fake(written_utility), tiny.to_image, num_generations=4)
    texts = ["b", "c", "d", "e"]  # 98, 99, 100, 101: the third draws nothing
    row = worker.TrainingSequence(input_ids=[1], completion_mask=[1], old_log_probs=[0.0], rollout_id=None)
    group = worker.RolloutGroup(
        prompts=[[{"role": "user", "content": "a cat"}]] * 4,
        reward_kwargs={"blank": [False] * 4},
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        completions_ids=[[1]] * 4,
        completions_sequences=[[row]] * 4,
        tool_call_counts=[0] * 4,
        tool_failure_counts=[0] * 4,
        model_version=0,
        group_id=0,
        env_rewards=[None] * 4,
        rollout_rewards=[None] * 4,
    )
    loop = SimpleNamespace(
        reward_funcs=[reward],
        reward_func_names=[reward.__name__],
        _env_reward_types=[],
        _provides_rollout_reward=False,
    )
    samples = asyncio.run(worker._AsyncRolloutLoop._score_group(loop, group))
    rewards = numbers_or_none(sample.metrics["rewards/preference"] for sample in samples)
    assert rewards == pytest.approx(expected_rewards([""] * 4, texts, [False] * 4, 4))
    assert rewards[2] is None
    assert samples[2].advantage == 0
    assert sum(sample.advantage for sample in samples) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_group_of_six_over_two_trainer_processes_of_three(tmp_path):
    for status, log in ranks(tiny.main, tmp_path, folder=tmp_path):
        assert status == 0, log[-4000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))

    assert len(first["calls"]) == len(second["calls"]) == 2
    for here, there in zip(first["calls"], second["calls"], strict=True):
        prompts, completions, rewards = (a + b for a, b in zip(here, there, strict=True))
        assert len(here[0]) == len(there[0]) == 3
        assert len(set(prompts)) == 1
        assert rewards == pytest.approx(expected_rewards(prompts, completions, [False] * 6, 6))
    # Both groups begin on the first process, which scores them; the second scores nothing again.
    assert [len(images) for _, images in first["groups"]] == [6, 6]
    assert second["groups"] == []
    last = first["calls"][-1][2] + second["calls"][-1][2]
    (entry,) = [entry for entry in first["history"] if entry["step"] == 2 and "reward" in entry]
    judged = math.comb(sum(reward is not None for reward in last), 2)
    assert entry["preference/invalid_pairs"] == pytest.approx(1 - judged / math.comb(6, 2))
    assert first["rewards"] == pytest.approx(last)
    assert first["advantages"] == pytest.approx(expected_advantages(last, 6), abs=1e-4)
