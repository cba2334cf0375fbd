"""Answers in words and probabilities of yes, from a fake endpoint."""

import math

import pytest
from PIL import Image

from prefrm.errors import ConfigError, ServerUnavailableError
from prefrm.media import encode_png
from prefrm.questions import Generator, ImageQuestion, YesNoJudge
from prefrm.scorers.chat import ChatGenerator, ChatScorer
from tests.prefrm.scorers.chat.endpoints import FakeEndpoint, choice, serving, shown, written

IMAGES = [encode_png(Image.new("RGB", (4, 3), (40 * n, 0, 0))) for n in range(3)]
QUESTIONS = [ImageQuestion(text=f"question {n}", image=image) for n, image in enumerate(IMAGES)]


def test_a_question_is_its_text_and_then_its_image() -> None:
    with serving(FakeEndpoint(lambda body: [choice(f"answer to {written(body)}")])) as endpoint:
        with ChatGenerator.connect(endpoint.url + "max_tokens=99") as judge:
            assert isinstance(judge, Generator)
            found = judge.generate(QUESTIONS)
            assert [one.text for one in found] == [f"answer to question {n}[image]" for n in range(3)]
            assert judge.identity() == "chat model=judge&max_tokens=99, server vllm"
        assert sorted(image for body in endpoint.bodies for image in shown(body)) == sorted(IMAGES)
        assert {body["max_completion_tokens"] for body in endpoint.bodies} == {99}
        assert "logprobs" not in endpoint.bodies[0]


def test_a_further_attempt_has_another_seed_and_a_temperature() -> None:
    with serving(FakeEndpoint(lambda body: [choice("yes")])) as endpoint:
        with ChatGenerator.connect(endpoint.url + "seed=5") as judge:
            for attempt in (0, 1, 2):
                judge.generate(QUESTIONS[:1], attempt=attempt)
        with ChatGenerator.connect(endpoint.url + "temperature=0.2") as judge:
            judge.generate(QUESTIONS[:1], attempt=1)
        sent = [(body["seed"], body["temperature"]) for body in endpoint.bodies]
    assert sent == [(5, 0.0), (6, 0.7), (7, 0.7), (1, 0.2)]


def test_an_image_that_cannot_be_shown_and_a_refusal_have_reasons() -> None:
    broken = ImageQuestion(text="?", image=b"no image")
    refusing = FakeEndpoint(lambda body: 400, refusal="too long")
    with serving(refusing) as endpoint, ChatGenerator.connect(endpoint.url) as judge:
        found = judge.generate([broken, QUESTIONS[0]])
    assert [one.text for one in found] == ["", ""]
    assert found[0].reason and "refused the question" not in found[0].reason
    assert "refused the question" in found[1].reason and "too long" in found[1].reason


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(ServerUnavailableError):
        ChatGenerator.connect("chat+http://127.0.0.1:9/v1", unavailable_timeout=0.1).generate(QUESTIONS)


@pytest.mark.parametrize("setting", ["dialect=vqascore", "n=2", "read=text", "pairs=3", "min_mass=0.1"])
def test_settings_of_scorers_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"no use for {setting}"):
        ChatGenerator.connect(f"chat+http://127.0.0.1:9/v1?{setting}")


def test_the_probability_of_yes_is_read_off_its_label() -> None:
    def answer(body):
        p = 0.2 if shown(body) == IMAGES[:1] else 0.75
        return [choice("Yes", alternatives={0: {"Yes": math.log(p), "No": math.log(1 - p)}})]

    broken = ImageQuestion(text="?", image=b"no image")
    with serving(FakeEndpoint(answer)) as endpoint:
        with ChatScorer.connect(endpoint.url + "dialect=vqascore") as judge:
            assert isinstance(judge, YesNoJudge)
            found = judge.probabilities([*QUESTIONS[:2], broken])
        assert "question 0" in written(endpoint.bodies[0]) or "question 1" in written(endpoint.bodies[0])
    assert [one.value for one in found[:2]] == pytest.approx([0.2, 0.75])
    assert math.isnan(found[2].value) and found[2].reason


@pytest.mark.parametrize("dialect", ["plain", "rating"])
def test_other_dialects_do_not_answer_yes_or_no(dialect: str) -> None:
    judge = ChatScorer.connect(f"chat+http://127.0.0.1:9/v1?dialect={dialect}")
    with pytest.raises(ConfigError, match="does not answer yes or no"):
        judge.probabilities(QUESTIONS)
