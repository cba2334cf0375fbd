"""The reward functions in one process, against the matrices they stand on."""

import asyncio
import io
import math
import pickle
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from prefrm.errors import ConfigError, DataError, IncompleteMatrixError, ProtocolError
from prefrm.grpo import AsyncPreferenceReward, CombinedReward, PreferenceReward, last_user_text
from prefrm.grpo.conversations import prompt_images
from prefrm.pixels import encode_image
from prefrm.rewards import Combination, Criteria, bradley_terry
from prefrm.winmatrix import FakeScorer, Group, WinMatrix


def to_image(completion, **columns):
    """The completion's own text is the image; "-" is a completion without one."""
    if completion == "!":
        raise DataError("this completion draws nothing")
    return None if completion == "-" else completion.encode()


def written_utility(prompt, image):
    return float(image)


def make(scorer, **options):
    return PreferenceReward(scorer, to_image, num_generations=3, **options)


class Trainer:
    """What a reward can see of a TRL trainer: the owner of `log_metric`."""

    def __init__(self, training=True, num_generations=3, num_generations_eval=2):
        self.model = SimpleNamespace(training=training)
        self.num_generations = num_generations
        self.num_generations_eval = num_generations_eval
        self.metrics = {}

    def log_metric(self, name, value):
        self.metrics.setdefault(name, []).append(value)


def expected(prompt, *images):
    (matrix,) = FakeScorer(written_utility).score([Group(prompt=prompt, candidates=images)])
    return matrix.win_rate().tolist()


def test_each_group_is_scored_by_itself(scorer):
    rewards = make(scorer)(["a", "a", "a", "b", "b", "b"], ["0", "1", "2", "5", "5", "-5"])
    assert rewards == expected("a", b"0", b"1", b"2") + expected("b", b"5", b"5", b"-5")
    assert scorer.groups == [
        Group(prompt="a", candidates=(b"0", b"1", b"2")),
        Group(prompt="b", candidates=(b"5", b"5", b"-5")),
    ]


def test_a_prompt_sampled_twice_is_two_groups(scorer):
    rewards = make(scorer)(["a"] * 6, ["0", "1", "2", "7", "8", "9"])
    assert len(scorer.groups) == 2
    assert rewards[:3] == pytest.approx(rewards[3:])


@pytest.mark.parametrize("gone", ["-", "!"])
def test_a_missing_candidate_gets_none_and_the_others_are_compared_without_it(scorer, gone):
    rewards = make(scorer)(["a"] * 3, ["1", gone, "0"])
    assert rewards[1] is None
    assert [rewards[0], rewards[2]] == expected("a", b"1", b"0")
    assert scorer.groups == [Group(prompt="a", candidates=(b"1", None, b"0"))]


def test_a_group_of_fewer_than_two_images_is_not_scored(scorer):
    rewards = make(scorer)(["a"] * 3 + ["b"] * 3, ["-", "1", "!", "-", "-", "-"])
    assert rewards == [None] * 6
    assert scorer.groups == []


def test_a_pair_that_the_scorer_could_not_judge_is_the_callers_choice(scorer):
    completions = ["1", "unreadable", "0"]
    with pytest.raises(IncompleteMatrixError, match="could not convert"):
        make(scorer)(["a"] * 3, completions)
    rewards = make(scorer, on_missing="drop")(["a"] * 3, completions)
    assert rewards[1] is None
    assert [rewards[0], rewards[2]] == expected("a", b"1", b"0")


def test_the_reward_can_be_chosen(scorer):
    prompts, completions = ["a"] * 3, ["0", "1", "3"]
    assert make(scorer, reward="hard_win_rate")(prompts, completions) == [0.0, 0.5, 1.0]
    assert make(scorer, reward="copeland")(prompts, completions) == [-2.0, 0.0, 2.0]
    utilities = [0 - 4 / 3, 1 - 4 / 3, 3 - 4 / 3]
    # By name it has a weak prior.
    assert make(scorer, reward="bradley_terry")(prompts, completions) == pytest.approx(utilities, abs=0.01)
    assert make(scorer, reward=bradley_terry)(prompts, completions) == pytest.approx(utilities, abs=1e-5)
    shrunk = make(scorer, reward=partial(bradley_terry, prior_precision=1.0))(prompts, completions)
    assert 0 < shrunk[2] < utilities[2]


def test_columns_reach_the_callables_row_by_row(scorer):
    def draw(completion, **columns):
        assert columns.keys() == {"caption", "shift"}
        return str(float(completion) + columns["shift"]).encode()

    reward = PreferenceReward(
        scorer, draw, num_generations=2, to_prompt=lambda prompt, caption, **_: f"{caption}, please"
    )
    reward(
        prompts=["draw it"] * 4,
        completions=["0", "1", "2", "3"],
        completion_ids=[[1]] * 4,
        trainer_state=object(),
        log_extra=None,
        caption=["a cat", "a cat", "a dog", "a dog"],
        shift=[0, 10, 20, 30],
    )
    assert scorer.groups == [
        Group(prompt="a cat, please", candidates=(b"0.0", b"11.0")),
        Group(prompt="a dog, please", candidates=(b"22.0", b"33.0")),
    ]


def test_a_pillow_image_is_sent_as_png():
    seen = []

    def brightness(prompt, image):
        seen.append(image)
        return float(np.asarray(Image.open(io.BytesIO(image))).mean())

    reward = PreferenceReward(
        FakeScorer(brightness), lambda c, **_: Image.new("RGB", (2, 2), c), num_generations=2
    )
    rewards = reward(["a"] * 2, ["white", "black"])
    assert rewards == [1.0, 0.0]
    assert seen[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (0, "to_image", "encoded bytes; received int"),
        # A path is not taken for a text.
        ("drawn/0.png", "to_image", "encoded bytes; received str"),
        (b"0", "to_text", "a text is a string; received bytes"),
    ],
)
def test_what_is_not_of_its_kind_is_refused(scorer, given, options, message):
    reward = PreferenceReward(scorer, num_generations=2, **{options: lambda completion, **_: given})
    with pytest.raises(ConfigError, match=message):
        reward(["a"] * 2, ["0", "1"])


def test_candidates_are_images_or_texts(scorer):
    with pytest.raises(ConfigError, match="to_image or to_text, not both"):
        PreferenceReward(scorer, to_image, to_text=to_image)


def test_another_text_of_a_completion_is_compared(scorer):
    reward = PreferenceReward(
        scorer, num_generations=3, to_text=lambda completion, **_: completion.partition("</think>")[2]
    )
    reward(["a"] * 3, ["...</think>1", "...", "</think>0"])
    assert scorer.groups == [Group(prompt="a", candidates=("1", None, "0"))]


RED, BLUE = (Image.new("RGB", (2, 2), color) for color in ("red", "blue"))
QUESTION = [{"role": "user", "content": [{"type": "image", "image": RED}, {"type": "text", "text": "what?"}]}]


@pytest.mark.parametrize(
    ("prompt", "completions", "columns"),
    [
        ("what?", ["1", "", "0"], {"images": [[RED]] * 3}),
        ("what?", ["1", " ", "0"], {"image": [RED] * 3}),
        (QUESTION, [[{"role": "assistant", "content": text}] for text in ("1", None, "0")], {}),
        (
            QUESTION,
            [[{"role": "assistant", "content": [{"type": "text", "text": text}]}] for text in ("1", "", "0")],
            # TRL shows the images of a prompt in its messages too.
            {"images": [[RED]] * 3},
        ),
    ],
)
def test_without_a_renderer_the_completions_are_compared_as_answers_to_the_prompt_and_its_images(
    scorer, prompt, completions, columns
):
    rewards = PreferenceReward(scorer, num_generations=3)([prompt] * 3, completions, **columns)
    assert scorer.groups == [Group(prompt="what?", candidates=("1", None, "0"), context=(encode_image(RED),))]
    assert rewards == [expected("", "1", "0")[0], None, expected("", "1", "0")[1]]


def test_an_image_that_completions_share_is_encoded_once(scorer, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        "prefrm.grpo.trl.encode_image", lambda image: encoded.append(image) or encode_image(image)
    )
    # `datasets` decodes the images of a row again for each of its completions.
    columns = {"images": [[RED, BLUE], [RED.copy(), BLUE.copy()], [BLUE], [BLUE]]}
    PreferenceReward(scorer, num_generations=2)(["a", "a", "b", "b"], list("0123"), **columns)
    assert encoded == [RED, BLUE]
    red, blue = map(encode_image, (RED, BLUE))
    assert [group.context for group in scorer.groups] == [(red, blue), (blue,)]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([{"role": "user", "content": [{"image": RED}]}], "KeyError: 'type'"),
        (["a cat"], "AttributeError"),
        (None, "TypeError"),
    ],
)
def test_images_of_what_is_no_conversation_are_refused(prompt, said):
    with pytest.raises(ConfigError, match=f"{said}.*pass to_context"):
        prompt_images(prompt)


def test_messages_without_content_have_no_images():
    assert prompt_images([{"role": "assistant", "tool_calls": []}, *QUESTION]) == [RED]


def test_a_renderer_has_no_context_unless_it_is_asked_for(scorer):
    columns = {"image": [RED, RED]}
    draw = partial(PreferenceReward, scorer, lambda completion, **_: completion.encode(), num_generations=2)
    draw()(["a"] * 2, ["0", "1"], **columns)
    draw(to_context=lambda prompt, image, **_: [image])(["a"] * 2, ["0", "1"], **columns)
    assert [group.context for group in scorer.groups] == [(), (encode_image(RED),)]


def test_a_group_about_two_images_is_refused(scorer):
    with pytest.raises(ConfigError, match="more than one context"):
        PreferenceReward(scorer, num_generations=2)(["a"] * 2, ["0", "1"], image=[RED, BLUE])


class ByCriterion(FakeScorer):
    """The candidate "1,5" is worth 1 by the first criterion and 5 by the second."""

    def __init__(self):
        self.criteria = []

    def score(self, groups):
        self.criteria += [group.criterion for group in groups]
        places = [("alignment", "aesthetics").index(group.criterion) for group in groups]
        return [
            FakeScorer(lambda prompt, text, n=n: float(text.split(",")[n])).score([group])[0]
            for group, n in zip(groups, places, strict=True)
        ]


def test_groups_are_compared_by_several_criteria_and_rewarded_by_their_combination():
    scorer, trainer = ByCriterion(), Trainer()
    completions = ["0,9", "1,5", "9,5"]
    rule = Criteria(names=("alignment", "aesthetics"), combination=Combination(weights={"aesthetics": 2.0}))
    reward = PreferenceReward(scorer, criteria=rule)
    rewards = reward(["a"] * 3, completions, log_metric=trainer.log_metric)
    # (first + 2 * second) / 3.
    assert rewards == pytest.approx(expected("a", "6", f"{11 / 3}", f"{19 / 3}"), abs=1e-5)
    assert scorer.criteria == ["alignment", "aesthetics"]
    assert len(trainer.metrics["preference/win_rate_std"]) == 1
    equal = PreferenceReward(scorer, num_generations=3, criteria=("alignment", "aesthetics"))
    assert equal(["a"] * 3, completions) == pytest.approx(expected("a", "4.5", "3", "7"), abs=1e-5)


class TestPrompts:
    def test_a_plain_prompt_is_itself(self):
        assert last_user_text("a cat") == "a cat"

    def test_of_a_conversation_the_last_user_message(self):
        conversation = [
            {"role": "system", "content": "You draw."},
            {"role": "user", "content": "a dog"},
            {"role": "assistant", "content": "<svg/>"},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "now a cat"}]},
        ]
        assert last_user_text(conversation, column=1) == "now a cat"

    @pytest.mark.parametrize("conversation", [[], [{"role": "system", "content": "You draw."}]])
    def test_a_conversation_without_one_is_refused(self, conversation):
        with pytest.raises(ConfigError, match="pass to_prompt"):
            last_user_text(conversation)

    @pytest.mark.parametrize(
        ("prompt", "said"),
        [
            ([{"content": "a cat"}], "received [{'content': 'a cat'}] (KeyError: 'role')"),
            ([{"role": "user"}], "KeyError: 'content'"),
            ([{"role": "user", "content": None}], "TypeError"),
            ([{"role": "user", "content": [{"text": "a cat"}]}], "KeyError: 'type'"),
            (["a cat"], "received ['a cat'] (TypeError"),
            (None, "received None (TypeError"),
        ],
    )
    def test_what_is_no_conversation_is_refused_with_what_it_is(self, scorer, prompt, said):
        with pytest.raises(ConfigError) as caught:
            PreferenceReward(scorer, str.encode, num_generations=2)([prompt] * 2, ["0", "1"])
        assert "a list of messages, each with role and content" in str(caught.value)
        assert said in str(caught.value)

    def test_what_is_no_text_is_refused(self, scorer):
        with pytest.raises(ConfigError, match="to_prompt must return a string; it returned bytes"):
            make(scorer, to_prompt=lambda prompt, **_: b"a")(["a"] * 3, list("012"))

    def test_conversations_are_scored_by_their_text(self, scorer):
        prompt = [{"role": "user", "content": "a cat"}]
        reward = PreferenceReward(
            scorer, lambda completion, **_: completion[0]["content"].encode(), num_generations=2
        )
        completions = [[{"role": "assistant", "content": text}] for text in ("0", "1")]
        assert reward([prompt] * 2, completions) == expected("a cat", b"0", b"1")

    def test_a_group_of_two_prompts_is_refused(self, scorer):
        with pytest.raises(ConfigError, match="more than one prompt, 'a' and 'b'; num_generations must be"):
            make(scorer)(["a", "a", "b"], ["0", "1", "2"])

    def test_a_part_of_a_group_is_refused(self, scorer):
        with pytest.raises(ConfigError, match=r"4 completions .* are no whole groups of 3"):
            make(scorer)(["a"] * 4, ["0", "1", "2", "3"])


class TestGroupSize:
    def test_the_trainer_is_asked(self, scorer):
        reward = PreferenceReward(scorer, to_image)
        for training, sizes in ((True, [3, 3]), (False, [2, 2, 2])):
            scorer.groups.clear()
            reward(["a"] * 6, list("012345"), log_metric=Trainer(training).log_metric)
            assert [group.size for group in scorer.groups] == sizes

    def test_a_number_that_is_not_the_trainers_is_refused(self, scorer):
        reward = make(scorer)
        reward(["a"] * 3, list("012"), log_metric=Trainer().log_metric)
        with pytest.raises(
            ConfigError, match="num_generations is 3, but the trainer's groups have 2 in eval"
        ):
            reward(["a"] * 6, list("012345"), log_metric=Trainer(training=False).log_metric)

    def test_evaluation_with_one_generation_has_nothing_to_compare(self, scorer):
        trainer = Trainer(training=False, num_generations_eval=1)
        reward = PreferenceReward(scorer, to_image)
        assert reward(["a", "b"], ["0", "1"], log_metric=trainer.log_metric) == [None, None]

    @pytest.mark.parametrize("log_metric", [None, lambda name, value: None])
    def test_without_a_trainer_it_must_be_given(self, scorer, log_metric):
        with pytest.raises(ConfigError, match="pass num_generations"):
            PreferenceReward(scorer, to_image)(["a"] * 2, ["0", "1"], log_metric=log_metric)


class TestMetrics:
    def test_one_value_for_each_group(self, scorer):
        trainer = Trainer()
        make(scorer, name="judge")(
            ["a"] * 3 + ["b"] * 3 + ["c"] * 3,
            ["0", "0", "0", "4", "-", "4", "-", "-", "1"],
            log_metric=trainer.log_metric,
        )
        assert trainer.metrics["judge/invalid_pairs"] == pytest.approx([0, 2 / 3, 1])
        # Three equal candidates, then two: everybody's win rate is 1/2. The third group has none.
        assert trainer.metrics["judge/win_rate_std"] == [0.0, 0.0]
        gap = 1 / (1 + math.exp(-0.5)) - 1 / (1 + math.exp(0.5))
        assert trainer.metrics["judge/order_gap"] == pytest.approx([gap, gap], abs=1e-6)

    def test_an_inferred_pair_is_not_invalid(self):
        class HalfJudged:
            def score(self, groups):
                chain = np.array([[0, 1, np.nan], [-1, 0, 1], [np.nan, -1, 0]])
                inferred = np.subtract.outer([2.0, 1.0, 0.0], [2.0, 1.0, 0.0])
                return [WinMatrix.from_order_logits(chain).with_inferred(inferred) for _ in groups]

        trainer = Trainer()
        rewards = make(HalfJudged())(["a"] * 3, ["0", "1", "2"], log_metric=trainer.log_metric)
        assert rewards == sorted(rewards, reverse=True)
        assert trainer.metrics["preference/invalid_pairs"] == [0]
        assert trainer.metrics["preference/inferred_pairs"] == pytest.approx([1 / 3])

    def test_the_spread_is_that_of_the_win_rates(self, scorer):
        trainer = Trainer(num_generations=2)
        PreferenceReward(scorer, to_image, reward="copeland")(
            ["a"] * 2, ["2", "0"], log_metric=trainer.log_metric
        )
        win = 1 / (1 + math.exp(-2))
        assert trainer.metrics["preference/win_rate_std"] == pytest.approx([win - 0.5], abs=1e-6)


class TestAsync:
    def test_it_gives_what_the_synchronous_one_gives(self, scorer, async_scorer):
        call = dict(prompts=["a"] * 3 + ["b"] * 3, completions=["0", "-", "2", "5", "!", "x"])
        options = dict(num_generations=3, on_missing="drop")
        expected = PreferenceReward(scorer, to_image, **options)(**call)
        reward = AsyncPreferenceReward(async_scorer, to_image, **options)
        assert asyncio.run(reward(**call)) == expected == [expected[0], None, expected[2], None, None, None]
        assert async_scorer.groups == scorer.groups

    def test_errors_come_through(self, async_scorer):
        reward = AsyncPreferenceReward(async_scorer, to_image, num_generations=2)
        with pytest.raises(IncompleteMatrixError):
            asyncio.run(reward(["a"] * 2, ["0", "unreadable"]))
        with pytest.raises(ConfigError, match="more than one prompt"):
            asyncio.run(reward(["a", "b"], ["0", "1"]))


@pytest.mark.parametrize(("found", "fits"), [("1.13.0", False), ("1.14.0", True), ("2.0.0.dev0", True)])
def test_an_asynchronous_reward_needs_a_trl_that_awaits_it(monkeypatch, scorer, async_scorer, found, fits):
    monkeypatch.setattr("importlib.metadata.version", lambda name: found)
    PreferenceReward(scorer, to_image)
    if fits:
        AsyncPreferenceReward(async_scorer, to_image)
        return
    with pytest.raises(ConfigError, match=r"needs trl 1\.14 or newer.*found 1\.13\.0.*use PreferenceReward"):
        AsyncPreferenceReward(async_scorer, to_image)


class TestGroupOfOne:
    """As evaluation with `num_generations_eval=1` makes them."""

    @pytest.fixture
    def ask(self, scorer):
        def call(**options):
            trainer = Trainer(training=False, num_generations_eval=1)
            columns = {"log_metric": trainer.log_metric, "worth": ["2", "3"]}
            return PreferenceReward(scorer, to_image, **options)(["a", "b"], ["4", "1"], **columns)

        return call

    def test_it_is_compared_with_a_reference(self, ask):
        rewards = ask(on_single="reference", reference=lambda prompt, row: row["worth"].encode())
        assert rewards == pytest.approx([expected("a", b"4", b"2")[0], expected("b", b"1", b"3")[0]])

    def test_a_text_is_compared_with_a_text(self, scorer):
        trainer = Trainer(training=False, num_generations_eval=1)

        def ask(reference):
            options = dict(on_single="reference", reference=lambda prompt, row: reference)
            return PreferenceReward(scorer, **options)(["a"], ["4"], log_metric=trainer.log_metric)

        assert ask("2") == pytest.approx([expected("a", "4", "2")[0]])
        with pytest.raises(ConfigError, match=r"the reference of 'a' must be of the kind .*, text; received"):
            ask(RED)

    def test_a_path_is_not_a_reference_image(self, ask):
        with pytest.raises(ConfigError, match=r"candidate, image; received 'ref.png', of the kind text"):
            ask(on_single="reference", reference=lambda prompt, row: "ref.png")

    def test_or_stops_the_run(self, ask):
        with pytest.raises(ConfigError, match=r"a group of one image, for 'a'.*set num_generations_eval"):
            ask(on_single="raise")


def test_a_scorer_that_answers_amiss_is_found_out():
    class Short(FakeScorer):
        def score(self, groups):
            return super().score(groups)[1:]

    with pytest.raises(ProtocolError, match=r"groups of \[3\] candidates and answered with matrices of \[\]"):
        make(Short(written_utility))(["a"] * 3, ["0", "1", "2"])


@pytest.mark.parametrize(
    "setting", [dict(reward="elo"), dict(on_missing="zero"), dict(num_generations=1)], ids=str
)
@pytest.mark.parametrize("kind", [PreferenceReward, AsyncPreferenceReward])
def test_a_bad_setting_is_refused(scorer, kind, setting):
    with pytest.raises(ConfigError, match=f"{next(iter(setting.values()))}"):
        kind(scorer, to_image, **setting)


def test_it_crosses_to_another_process():
    # TRL's AsyncGRPO sends its reward functions to a worker that it spawns.
    reward = pickle.loads(pickle.dumps(make(FakeScorer(written_utility))))  # noqa: S301
    assert reward.__name__ == "preference"
    assert reward(["a"] * 3, ["0", "1", "2"]) == expected("a", b"0", b"1", b"2")


def test_it_needs_no_torch_in_one_process():
    code = (
        "import sys\n"
        "from prefrm.grpo import PreferenceReward\n"
        "from prefrm.winmatrix import FakeScorer\n"
        "scorer = FakeScorer(lambda prompt, image: float(image))\n"
        "reward = PreferenceReward(scorer, lambda c, **_: c.encode(), num_generations=2)\n"
        "assert reward(['a', 'a'], ['0', '100']) == [0.0, 1.0]\n"
        "assert not {'torch', 'trl', 'transformers'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestCombined:
    @staticmethod
    def length(completions, **_):
        return [float(len(completion)) for completion in completions]

    def test_it_sums_and_keeps_none(self, scorer):
        trainer = Trainer()
        combined = CombinedReward([make(scorer, reward="hard_win_rate"), self.length], [2.0, 0.1])
        rewards = combined(
            prompts=["a"] * 3, completions=["10", "-", "0"], log_metric=trainer.log_metric, completion_ids=[]
        )
        assert rewards == [pytest.approx(2.2), None, pytest.approx(0.1)]
        assert trainer.metrics["combined/preference"] == [0.5]
        assert trainer.metrics["combined/length"] == pytest.approx([4 / 3])
        assert trainer.metrics["preference/invalid_pairs"] == pytest.approx([2 / 3])

    def test_it_needs_no_log(self, scorer):
        combined = CombinedReward([self.length], [1.0], name="size")
        assert combined(prompts=["a"], completions=["abc"]) == [3.0]
        assert combined.__name__ == "size"

    @pytest.mark.parametrize(("functions", "weights"), [([], []), ([length], []), ([length], [1.0, 2.0])])
    def test_every_function_needs_its_weight(self, functions, weights):
        with pytest.raises(ConfigError, match="each function needs a weight"):
            CombinedReward(functions, weights)

    def test_an_asynchronous_function_is_refused(self, async_scorer):
        with pytest.raises(ConfigError, match="preference is asynchronous"):
            CombinedReward([AsyncPreferenceReward(async_scorer, to_image)], [1.0])
