"""Names of judges of checklists, and how each is asked."""

import math

import pytest
from PIL import Image

from prefrm.arena import ArenaPrompt, Check
from prefrm.arena.checklists import ImageToCheck
from prefrm.errors import ConfigError
from prefrm.media import encode_png
from prefrm.scorers.checking import open_check_judge
from tests.prefrm.scorers.chat.endpoints import FakeEndpoint, choice, serving, written

PROMPT = ArenaPrompt(
    id="3",
    text="two red squares",
    checks=(Check(question="two squares", dimension="count"), Check(question="red", dimension="color")),
)
IMAGES = [ImageToCheck(prompt=PROMPT, image=1, data=encode_png(Image.new("RGB", (4, 3))))]


def test_an_endpoint_is_asked_about_all_checks_at_once_until_it_can_be_read():
    answers = iter(["I cannot say.", "<score>[1, 0]</score>"])
    with (
        serving(FakeEndpoint(lambda body: [choice(next(answers))])) as endpoint,
        open_check_judge(endpoint.url, wording="{prompt}|{checks}") as judge,
    ):
        (found,) = judge.check(IMAGES)
        assert "checklist" in judge.identity() and "model=judge" in judge.identity()
    assert (found.verdicts, found.asked, found.image) == ((1.0, 0.0), 2, 1)
    assert written(endpoint.bodies[0]) == "two red squares|1. count: two squares\n2. color: red[image]"


def test_an_endpoint_of_a_dialect_that_says_yes_or_no_is_asked_about_each_check():
    def answer(body):
        p = 0.9 if "two squares" in written(body) else 0.3
        return [choice("Yes", alternatives={0: {"Yes": math.log(p), "No": math.log(1 - p)}})]

    endpoint = FakeEndpoint(answer)
    with serving(endpoint), open_check_judge(endpoint.url + "dialect=vqascore") as judge:
        (found,) = judge.check(IMAGES)
    assert found.verdicts == pytest.approx((0.9, 0.3)) and found.asked == 2


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("grpc://localhost:8001/judge", "compares candidates"),
        ("ensemble.yaml", "compares candidates"),
        ("chat+http://localhost:1/v1?dialect=rating", "does not answer yes or no"),
        ("chat+http://localhost:1/v1?n=2", "no use for n=2"),
    ],
)
def test_other_judges_are_refused(target, wrong):
    with pytest.raises(ConfigError, match=wrong), open_check_judge(target):
        pass
