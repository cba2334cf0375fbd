"""Checklists: what a judge is asked, how its answers are read, and what is asked again."""

from collections.abc import Callable
from pathlib import Path

import pytest

from prefrm.arena import ArenaPrompt, Check
from prefrm.arena.checklists import WORDING, CheckJudge, Checklist, ImageToCheck, YesNoChecks, read_wording
from prefrm.arena.definitions import DEFINITIONS
from prefrm.arena.unigenbench import POINTS
from prefrm.errors import ConfigError
from prefrm.questions import FakeGenerator, FakeYesNo, Generated, Generator, YesNoJudge

PROMPT = ArenaPrompt(
    id="7",
    text="two pandas in {ink}",
    checks=(
        Check(question="ink painting", dimension="Style"),
        Check(question="two pandas", dimension="Attribute", subdimension="Attribute - Quantity"),
        Check(question="", dimension="Grammar", subdimension="Grammar - Negation"),
        Check(question="How many pandas?", dimension="count", answer="two"),
    ),
)
IMAGES = [ImageToCheck(prompt=PROMPT, image=n, data=bytes([n])) for n in range(3)]


def checklist(answer: Callable[[str, bytes, int], str], attempts: int = 3) -> Checklist:
    return Checklist(FakeGenerator(answer), attempts=attempts)


def test_a_question_has_every_check_with_what_its_points_mean() -> None:
    asked = checklist(lambda *_: "").question(PROMPT)
    assert "「two pandas in {ink}」" in asked and "have 4 items" in asked
    assert (
        "1. Style: ink painting\n2. Attribute - Quantity: two pandas\n"
        "3. Grammar - Negation: as the prompt says\n4. count: How many pandas? (two)\n"
    ) in asked
    explained = asked.partition("The kinds of checkpoints:\n")[2].partition("\n\n")[0].splitlines()
    assert [line.partition(": ")[0] for line in explained] == [
        "Style",
        "Attribute - Quantity",
        "Grammar - Negation",
    ]
    assert set(DEFINITIONS) == set(POINTS)
    assert "kinds of checkpoints" not in Checklist(FakeGenerator(lambda *_: ""), definitions={}).question(
        PROMPT
    )


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ('<description><analysis>["[1"]</analysis><score>[1, 0, 1, 1]</score></description>', (1, 0, 1, 1)),
        ("<score>\n[0,0,0,0,]\n</score>", (0, 0, 0, 0)),
        ("<SCORE>['1', '1', '0', '1']</SCORE>", (1, 1, 0, 1)),
        ("as in <score>[0 or 1, ...]</score>:\n<score>[1, 1, 1, 1]</score>", (1, 1, 1, 1)),
    ],
)
def test_the_scores_of_an_answer_are_read(text: str, verdicts: tuple[float, ...]) -> None:
    (found,) = checklist(lambda *_: text).check(IMAGES[:1])
    assert (found.prompt, found.image, found.verdicts, found.reason, found.asked) == ("7", 0, verdicts, "", 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no list of 0 and 1"),
        ("It looks good.", "no list of 0 and 1 in <score>: 'It looks good.'"),
        ("<score>[1, 0, 1]</score>", "3 scores for 4 checks"),
        ("<score>[1, 0, 1, 2]</score>", "no list of 0 and 1"),
        ("<score>[1, 0.5, 1, 1]</score>", "no list of 0 and 1"),
        ("<score>[1, 0, 1, 1", "no list of 0 and 1"),
        ("<score>[__import__('os')]</score>", "no list of 0 and 1"),
    ],
)
def test_an_answer_that_cannot_be_read_is_asked_for_again_and_never_a_score(text: str, reason: str) -> None:
    (found,) = checklist(lambda *_: text).check(IMAGES[:1])
    assert (found.verdicts, found.asked) == ((), 3)
    assert reason in found.reason


def test_only_images_without_verdicts_are_asked_about_again() -> None:
    asked: list[tuple[int, int]] = []

    def answer(text: str, image: bytes, attempt: int) -> str:
        asked.append((image[0], attempt))
        return "<score>[1, 0, 1, 1]</score>" if attempt >= image[0] else "no"

    found = checklist(answer, attempts=2).check(IMAGES)
    assert asked == [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1)]
    assert [(one.image, len(one.verdicts), one.asked) for one in found] == [(0, 4, 1), (1, 4, 2), (2, 0, 2)]


def test_what_is_refused_is_not_asked_again() -> None:
    class Refusing(FakeGenerator):
        def generate(self, questions, *, attempt=0):  # type: ignore[no-untyped-def]
            return [Generated(reason="too large") for _ in questions]

    (found,) = Checklist(Refusing(lambda *_: "")).check(IMAGES[:1])
    assert (found.reason, found.asked) == ("too large", 1)


def test_each_check_is_a_statement_of_which_a_judge_gives_the_probability() -> None:
    asked: list[str] = []

    def yes(text: str, image: bytes) -> float:
        asked.append(text)
        return image[0] / 4 if text != "ink painting" else 1.0

    found = YesNoChecks(FakeYesNo(yes)).check(IMAGES[1:])
    assert asked[:4] == [
        "ink painting",
        "two pandas",
        "two pandas in {ink}",
        'The answer to "How many pandas?" is two.',
    ]
    assert [one.verdicts for one in found] == [(1.0, 0.25, 0.25, 0.25), (1.0, 0.5, 0.5, 0.5)]
    (silent,) = YesNoChecks(FakeYesNo(lambda *_: float("nan"))).check(IMAGES[:1])
    assert silent.verdicts == () and silent.reason


def test_a_wording_of_ones_own_is_part_of_the_identity(tmp_path: Path) -> None:
    path = tmp_path / "wording.txt"
    path.write_text("Prompt {prompt}. {points} {descriptions} {other}", encoding="utf-8")
    judge = FakeGenerator(lambda *_: "")
    own = Checklist(judge, wording=read_wording(path))
    assert own.question(PROMPT).startswith("Prompt two pandas in {ink}. ['Style', 'Attribute - Quantity', ")
    assert own.question(PROMPT).endswith("count: How many pandas? (two) {other}")
    identities = {one.identity() for one in (own, Checklist(judge), Checklist(judge, attempts=2))}
    assert len(identities) == 3
    path.write_text("{prompt} {points}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"needs \{prompt\}.*received points, prompt"):
        read_wording(path)
    assert Checklist(judge, wording=WORDING).identity() == Checklist(judge).identity()


def test_the_fakes_satisfy_the_protocols() -> None:
    generator, yes = FakeGenerator(lambda *_: ""), FakeYesNo(lambda *_: 0.5)
    assert isinstance(generator, Generator) and isinstance(yes, YesNoJudge)
    assert isinstance(Checklist(generator), CheckJudge) and isinstance(YesNoChecks(yes), CheckJudge)
