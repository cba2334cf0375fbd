"""`POST /v1/chat/completions` and `GET /v1/models` over a real server, for clients like the published."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec
from prefrm.prompts import parse_template
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import InvalidRequestError
from serving.inflight import InFlightBytes
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.steps import finish
from serving.wire.chat_dialects import DIALECTS, dialect_of
from serving.wire.chat_reading import INSTRUCTION_BYTES, read_question
from tests.prefrm.judge.families import save_checkpoint
from tests.serving.chat_calls import (
    FLEX,
    RANK,
    SCORES,
    THINK,
    THINK_QWEN3,
    ask,
    content,
    data_url,
    final_answer,
    flex_winner,
    jpeg,
    messages,
    pair_scores,
    win_rates,
)

TEMPLATES = {"think": THINK, "think, Qwen3-VL": THINK_QWEN3, "rank": RANK, "scores": SCORES, "flex": FLEX}


class TieScorer:
    """Answers every pair with the log-odds of p = 0.7 and P(tie) = 0.4: 0.5, 0.1 and a tie."""

    P, TIE = 0.7, 0.4

    def score(self, groups):
        z = math.log(self.P / (1 - self.P))
        logits = np.array([[0, z], [-z, 0]])
        ties = np.array([[np.nan, self.TIE], [self.TIE, np.nan]])
        return [WinMatrix.from_order_logits(logits, tie=ties) for _ in groups]


@pytest.fixture(scope="module")
def tying():
    with background(JudgeServer(TieScorer(), ModelInfo(name="judge"))) as served:
        yield served


@pytest.fixture(scope="module")
def picture(png):
    return lambda shade: jpeg(png(shade))


@pytest.fixture(scope="module")
def pair(picture):
    return [picture(60), picture(90)]


def failed(response, status=400):
    """The message of an error in OpenAI's form."""
    assert response.status_code == status
    (error,) = response.json().values()
    assert (error["code"], error["param"]) == (status, None)
    return error["message"]


def p_of(scorer, prompt, images):
    return float(scorer.score([Group(prompt=prompt, candidates=tuple(images))])[0].p[0, 1])


class TestClients:
    @pytest.mark.parametrize(
        ("template", "parse"), [(THINK, final_answer), (THINK_QWEN3, final_answer), (FLEX, flex_winner)]
    )
    def test_a_pref_grpo_trainer_gets_the_hard_win_rates_of_the_judge(
        self, served, scorer, png, template, parse
    ):
        # Two candidates are one picture: their pair is a tie.
        group = Group(prompt="a [red] cube", candidates=tuple(png(shade) for shade in (10, 90, 200, 90)))
        (matrix,) = scorer.score(
            [replace(group, candidates=tuple(jpeg(image) for image in group.candidates))]
        )
        expected = np.round(matrix.win_rate(hard=True).astype(float), 3)
        assert win_rates(served, group, template, parse) == expected.tolist()
        assert len(set(expected)) == 3

    def test_a_rank_client_reads_the_same_verdict_in_both_orders(self, served, scorer, pair):
        text = RANK.format(prompt="a red cube")
        assert p_of(scorer, "a red cube", pair) < 0.5
        assert "Image 2 is better" in content(ask(served, pair, text))
        assert "Image 1 is better" in content(ask(served, pair[::-1], text))
        assert content(ask(served, pair[:1] * 2, text)) == "Both images are equally good."

    def test_a_pair_score_client_reads_the_calibrated_probability(self, served, scorer, pair):
        scores = pair_scores(content(ask(served, pair, SCORES.format(prompt="a"))))
        assert len(scores) == 3 and len(set(scores)) == 1
        assert scores[0][0] == pytest.approx(p_of(scorer, "a", pair), abs=1e-8)
        assert sum(scores[0]) == pytest.approx(1, abs=1e-8)

    def test_pairs_that_are_asked_at_once_share_a_batch(self, gated, png, pair, until, metric):
        group = Group(prompt="a", candidates=tuple(png(shade) for shade in (10, 90, 200, 30)))
        with (
            background(JudgeServer(gated, ModelInfo(name="judge"))) as served,
            ThreadPoolExecutor(2) as pool,
        ):
            pool.submit(ask, served, pair, THINK.format(prompt="busy"))
            until(lambda: len(gated.calls) == 1)
            rates = pool.submit(win_rates, served, group, THINK, final_answer)
            until(lambda: metric(served, 'prefrm_queue_groups{model="judge",version="1"}') == 6)
            gated.gate.set()
            assert sorted(rates.result()) == [0.0, 0.333, 0.667, 1.0]
        assert gated.calls == [["busy"], ["a"] * 6]


def test_a_group_that_is_asked_pair_by_pair_encodes_each_image_once(tmp_path, png):
    engine = Engine(Judge.from_base(JudgeSpec(base_model=str(save_checkpoint(tmp_path))), "cpu"))
    group = Group(prompt="a red cube", candidates=tuple(png(shade) for shade in (10, 60, 120, 200)))
    (matrix,) = engine.score([replace(group, candidates=tuple(jpeg(image) for image in group.candidates))])
    engine = Engine(engine.judge)
    with background(JudgeServer(engine, ModelInfo(name="judge"), cache=engine.cache)) as served:
        rates = win_rates(served, group, THINK, final_answer)
        pair = [jpeg(image) for image in group.candidates[:2]]
        scores = pair_scores(content(ask(served, pair, SCORES.format(prompt="a red cube"))))
    assert engine.cache.misses == 4
    assert rates == np.round(matrix.win_rate(hard=True).astype(float), 3).tolist()
    assert scores[0][0] == pytest.approx(float(matrix.p[0, 1]), abs=1e-6)


def tokens(response, choice=0):
    return response.json()["choices"][choice]["logprobs"]["content"]


def alternatives(token):
    return {entry["token"]: entry["logprob"] for entry in token["top_logprobs"]}


def read_p(response):
    """P(image 1 is better), a tie counting half, from the log-probabilities of a rank answer."""
    first = alternatives(tokens(response)[0])
    tie = math.exp(first["Both"]) if "Both" in first else 0.0
    digit = next((token for token in tokens(response) if token["token"] in "12"), None)
    odds = alternatives(digit)
    return tie / 2 + (1 - tie) / (1 + math.exp(odds["2"] - odds["1"])), tie


class TestLogprobs:
    def test_they_give_back_the_matrix(self, served, scorer, pair):
        for images in (pair, pair[::-1]):
            response = ask(served, images, RANK.format(prompt="a"), logprobs=True, top_logprobs=5)
            assert read_p(response) == (pytest.approx(p_of(scorer, "a", images), abs=1e-6), 0.0)

    def test_a_tie_branches_off_at_the_first_token(self, tying, pair):
        response = ask(tying, pair, RANK.format(prompt="a"), logprobs=True, top_logprobs=5)
        assert read_p(response) == (pytest.approx(TieScorer.P, abs=1e-6), pytest.approx(TieScorer.TIE))
        assert [token["token"] for token in tokens(response)] == ["Image", " ", "1", " is", " better", "."]
        assert bytes(tokens(response)[3]["bytes"]).decode() == " is"

    def test_without_alternatives_and_without_any(self, tying, pair):
        text = THINK.format(prompt="a")
        response = ask(tying, pair, text, logprobs=True)
        assert all(token["top_logprobs"] == [] for token in tokens(response))
        joint = sum(token["logprob"] for token in tokens(response))
        assert math.exp(joint) == pytest.approx(TieScorer.P - TieScorer.TIE / 2)
        assert ask(tying, pair, text, top_logprobs=3).json()["choices"][0]["logprobs"] is None

    def test_an_answer_that_the_client_began_is_continued(self, tying, pair):
        asked = [*messages(pair, RANK.format(prompt="a")), {"role": "assistant", "content": "Image "}]
        response = ask(tying, [], "", messages=asked, max_tokens=1, logprobs=True, top_logprobs=2)
        (choice,) = response.json()["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("1", "length")
        odds = alternatives(tokens(response)[0])
        assert {text: math.exp(logprob) for text, logprob in odds.items()} == pytest.approx(
            {"1": 5 / 6, "2": 1 / 6}, abs=1e-6
        )
        asked[-1]["content"] = "Imag"
        assert "not the beginning of any" in failed(ask(tying, [], "", messages=asked))

    def test_a_tie_of_a_judge_without_ties_leaves_the_digit_open(self, served, pair):
        asked = [*messages(pair[:1] * 2, RANK.format(prompt="a")), {"role": "assistant", "content": "Image "}]
        response = ask(served, [], "", messages=asked, max_tokens=1, logprobs=True, top_logprobs=2)
        assert alternatives(tokens(response)[0]) == pytest.approx({"1": math.log(0.5), "2": math.log(0.5)})


class TestSampling:
    def test_a_temperature_draws_from_the_probabilities(self, tying, pair):
        response = ask(tying, pair, RANK.format(prompt="a"), temperature=1, n=128, seed=3)
        texts = [choice["message"]["content"] for choice in response.json()["choices"]]
        counts = [texts.count(text) for text in ("Image 1 is better.", "Image 2 is better.")]
        shares = np.array([*counts, 128 - sum(counts)]) / 128
        # Five standard deviations.
        assert np.abs(shares - [0.5, 0.1, 0.4]).max() < 5 * 0.5 / math.sqrt(128)
        again = ask(tying, pair, RANK.format(prompt="a"), temperature=1, n=128, seed=3)
        assert [choice["message"]["content"] for choice in again.json()["choices"]] == texts

    def test_a_low_temperature_comes_close_to_the_likeliest(self, tying, pair):
        response = ask(tying, pair, RANK.format(prompt="a"), temperature=0.01, n=32)
        texts = {choice["message"]["content"] for choice in response.json()["choices"]}
        assert texts == {"Image 1 is better."}
        assert response.json()["usage"]["completion_tokens"] == 6 * 32


class TestErrors:
    def test_a_pair_that_cannot_be_judged_is_no_verdict(self, served, pair):
        text = THINK.format(prompt="a")
        assert failed(ask(served, [pair[0], b"no image"], text)).startswith("image 2 cannot be judged: ")
        small = JudgeServer(TieScorer(), ModelInfo(name="judge"), limits=Limits(prompt_bytes=3))
        with background(small) as strict:
            message = failed(ask(strict, pair, THINK.format(prompt="long")))
            assert message == "image 1 cannot be judged: a prompt may have 3 bytes; received 4"

    def test_a_pair_without_a_finite_answer_has_a_reason(self, pair):
        class Silent:
            def score(self, groups):
                return [WinMatrix.from_order_logits(np.full((2, 2), np.nan)) for _ in groups]

        with background(JudgeServer(Silent(), ModelInfo(name="judge"))) as served:
            message = failed(ask(served, pair, RANK.format(prompt="a")))
        assert message == "the pair cannot be judged: the judge gave no finite answer for this pair"

    def test_what_the_other_routes_answer(self, served, pair, gated):
        text = RANK.format(prompt="a")
        assert "unknown model: 'UnifiedReward'" in failed(ask(served, pair, text, model="UnifiedReward"), 404)
        assert ask(served, pair, text, model=None).json()["model"] == "judge"
        url = f"http://{served.http}/v1/chat/completions"
        assert "no JSON" in failed(httpx.post(url, content=b"{"))


class TestModels:
    def test_they_are_listed_and_described(self, served):
        url = f"http://{served.http}/v1/models"
        answer = httpx.get(url).json()
        assert answer["object"] == "list"
        assert [(card["id"], card["object"]) for card in answer["data"]] == [("judge", "model")]
        assert httpx.get(f"{url}/judge").json() == answer["data"][0]
        assert "unknown model: 'nobody'" in failed(httpx.get(f"{url}/nobody"), 404)


LIMITS = Limits(prompt_bytes=100)


def read(asked, dialects=DIALECTS):
    body = json.dumps(asked).encode()
    return finish(read_question(body, dialects, LIMITS, InFlightBytes(LIMITS).lease()))


def question(text, **fields):
    return {"messages": messages([b"one", b"two"], text)} | fields


class TestReading:
    @pytest.mark.parametrize("name", TEMPLATES)
    @given(caption=st.text(max_size=30) | st.sampled_from([*TEMPLATES.values(), "]", "[a] 「b」", "」]\n"]))
    def test_a_caption_is_read_out_of_each_dialect_whatever_it_holds(self, name, caption):
        # A whole question of Flex inside another would be Flex's.
        caption = caption if name == "flex" else caption.replace("]\n\n", "]")
        asked = read(question(TEMPLATES[name].format(prompt=caption)))
        assert asked.group.prompt == caption
        assert asked.group.candidates == (b"one", b"two")
        assert asked.dialect.name == read(question(TEMPLATES[name].format(prompt="a"))).dialect.name

    @pytest.mark.parametrize(
        ("text", "answers"),
        [
            (
                "{image}{image}Better for {prompt}?\n{answer}Number{space}\n1\n2\n",
                ("Number 1", "Number 2", ""),
            ),
            ("{image}and{image}{prompt}?\n{answer}\n$a\nb\nneither\n", ("$a", "b", "neither")),
            ("For {prompt}:\n{image} or\n{image}?\nWhich?\n{answer}\nA\nB\n", ("A", "B", "")),
            ("For {prompt}:{image}or{image}For {prompt}!\n{answer}\nA\nB\n", ("A", "B", "")),
        ],
    )
    @given(caption=st.text(max_size=20).map(str.strip))
    def test_a_template_is_a_dialect(self, text, answers, caption):
        template = parse_template(text, id="own")
        (turn,) = template.messages(caption)
        pictures = iter(messages([b"one", b"two"], "")[0]["content"])
        content = [next(pictures) if item["type"] == "image" else item for item in turn["content"]]
        asked = read({"messages": [turn | {"content": content}]}, [dialect_of(template), *DIALECTS])
        assert (asked.dialect.name, asked.group.prompt) == ("own", caption)
        assert asked.dialect.answers(0.3) == answers

    def test_texts_of_all_messages_and_in_any_place(self):
        url = {"url": data_url(b"one")}
        asked = read(
            {
                "messages": [
                    {"role": "system", "content": "Text Caption:"},
                    {"role": "user", "content": [{"type": "image_url", "image_url": url}]},
                    {"role": "user", "content": [{"type": "image_url", "image_url": url}]},
                    {"role": "user", "content": RANK.format(prompt="a\nb")},
                ]
            }
        )
        assert (asked.group.prompt, asked.dialect.name) == ("a\nb", "UnifiedReward rank")

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ([], "the request is a list; send an object"),
            ({}, "messages is missing"),
            ({"messages": []}, "messages has 0 of at least 1 items"),
            ({"messages": [3]}, r"messages\[0\] is the number 3; send an object"),
            (
                {"messages": [{"role": "judge", "content": "a"}]},
                r"messages\[0\].role is a string; send one of",
            ),
            ({"messages": [{"role": "user"}]}, r"messages\[0\].content is null; send a string or a list"),
            (
                {"messages": [{"role": "user", "content": [{"type": "video"}]}]},
                r"messages\[0\].content\[0\].type must be 'text' or 'image_url'",
            ),
            (
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "a"}]}]},
                r"messages\[0\].content\[0\].image_url is a string; send an object",
            ),
            (
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}],
                        }
                    ]
                },
                r"image_url.url is a URL; nothing is fetched",
            ),
            ({"messages": [{"role": "assistant", "content": "a"}] * 2}, "the assistant's and not the last"),
            (question("which one?"), "no caption was found in 10 characters; end a text with"),
            (question("x" * (101 + INSTRUCTION_BYTES)), "too many characters"),
            (
                {"messages": messages([b"a"] * 3, RANK)},
                "is about 2 images; received 3. .*source images of edits",
            ),
            (question(RANK, stream=True), "stream is true"),
            (question(RANK, logprob_token_ids=[16, 17]), "a judge has no vocabulary; send top_logprobs"),
            (question(RANK, n=0), "n is the number 0; send a number of at least 1"),
            (question(RANK, n=129), "n is the number 129; send a number of at most 128"),
            (question(RANK, temperature=-1), "temperature is the number -1; send a number of at least 0"),
            (question(RANK, logprobs="yes"), "logprobs is a string; send true or false"),
            (question(RANK, max_tokens=1.5), "max_tokens is the number 1.5; send a whole number"),
        ],
    )
    def test_a_malformed_question_is_refused_by_the_name_of_its_field(self, asked, message):
        with pytest.raises(InvalidRequestError, match=message):
            read(asked)
