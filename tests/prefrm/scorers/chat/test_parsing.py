"""Parsers over literal answers: what each names, and what names nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.scorers.chat import DIALECTS
from prefrm.scorers.chat.parsing import Unreadable

THINK = "<think>Image 1 is better in colour. Total 17 to 15.</think>\n<answer>Image 2 is better</answer>"
SCORES = (
    "Alignment Score:\nImage 1: 0.75\nImage 2: 0.25\nCoherence Score:\nImage 1: 0.5\nImage 2: 0.5\n"
    "Style Score:\nImage 1: 0.435699999332428\nImage 2: 0.564300000667572"
)
CATEGORIES = '[{"name": "A", "cat_winner": "Image 2"}, {"cat_winner": "none"}]'
FLEX = f'```json\n{{"categories": {CATEGORIES}, "winner": "Image 1"'
READABLE = {
    "unifiedreward-rank": {
        "Image 1 is better.": 0,
        "image 2 is better": 1,
        "Both images are equally good.": 2,
        "I compared them. Image 2 is better. So: Image 2 is better.": 1,
    },
    "unifiedreward-edit": {
        "Edited image 1 is better.": 0,
        "<answer>edited image 2 IS better</answer>": 1,
        "Both edited images are equally good": 2,
        "Edited image 1 is better in colour. <answer>Edited image 2 is better": 1,
    },
    "unifiedreward-think": {
        THINK: 1,
        "<answer>Image 1 is better": 0,
        "<answer>Image 2 is better</answer> no, <answer>Image 1 is better</answer>": 0,
    },
    "lightrft": {"<answer>Both are equally good</answer>": 2, THINK: 1},
    "unifiedreward-flex": {
        FLEX + "}": 0,
        '{"winner": "image 2"}': 1,
        'Here: {"winner": "Image 2 (slightly)"} as asked': 1,
    },
    "unifiedreward-pair-score": {SCORES: 0, SCORES.replace("0.75", "0.01").replace("0.25", "0.99"): 1},
    "plain": {"1": 0, " 2.": 1},
    "plain-text": {"1, it is": 0, "2": 1},
    "vqascore": {"Yes": 0, "no, it does not": 1},
    "rating": {"4": 4, "0": 0},
}
UNREADABLE = {
    "unifiedreward-rank": [
        "",
        "Image 1 is",
        "Image 1 is better. Image 2 is better.",
        "Image 3 is better",
        "They are alike",
    ],
    "unifiedreward-edit": ["Image 1 is better", "Edited image 1 is better. Edited image 2 is better."],
    "unifiedreward-think": [
        "Image 1 is better",
        "<answer></answer>",
        "<answer>Both images are equally good</answer>",
    ],
    "lightrft": [
        "<think>Image 1 is better</think>",
        "<answer>Image 1 is better, or Image 2 is better</answer>",
    ],
    "unifiedreward-flex": [
        FLEX,
        "{}",
        '{"winner": "Image 1 or Image 2"}',
        '{"cat_winner": "Image 1"}',
        "[1]",
        "{" * 5000,
    ],
    "unifiedreward-pair-score": [
        SCORES.partition("Style")[0],
        SCORES.replace("0.75", "0").replace("0.25", "0"),
        "0.7",
    ],
    "plain": ["12", "", "Image 1", "3"],
    "plain-text": ["1a", "Answer 2", "0"],
    "vqascore": ["Yesterday", "It is", ""],
    "rating": ["10", "six", "-1"],
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_answers_are_read_as_the_judge_means_them(dialect):
    read = {text: DIALECTS[dialect].parser(text).label for text in READABLE[dialect]}
    assert read == READABLE[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_answer_that_names_no_single_outcome_is_unreadable(dialect):
    for text in UNREADABLE[dialect]:
        with pytest.raises(Unreadable):
            DIALECTS[dialect].parser(text)


@pytest.mark.parametrize("dialect", [name for name, one in DIALECTS.items() if one.labels[:2] == ("1", "2")])
def test_the_place_of_the_label_is_that_of_its_digit(dialect):
    for text in READABLE[dialect]:
        verdict = DIALECTS[dialect].parser(text)
        assert verdict.label == 2 or text[verdict.at] == str(verdict.label + 1)


def test_pair_scores_are_shares_by_dimension_and_their_mean():
    verdict = DIALECTS["unifiedreward-pair-score"].parser(SCORES)
    assert verdict.scores == pytest.approx({"Alignment": 0.75, "Coherence": 0.5, "Style": 0.435699999332428})
    assert verdict.share == pytest.approx((0.75 + 0.5 + 0.435699999332428) / 3)


def test_pair_scores_need_not_add_up_to_one():
    verdict = DIALECTS["unifiedreward-pair-score"].parser(
        SCORES.replace("0.75", "0.6").replace("0.25", "0.2")
    )
    assert verdict.scores["Alignment"] == pytest.approx(0.75)


def test_a_category_without_a_winner_has_no_score():
    assert DIALECTS["unifiedreward-flex"].parser(FLEX + "}").scores == {"A": 0.0}


@pytest.mark.parametrize("dialect", [f"unifiedreward-{name}" for name in ("rank", "edit", "think", "flex")])
def test_swapping_the_two_images_swaps_the_verdict(dialect):
    for text, outcome in READABLE[dialect].items():
        swapped = text.replace("mage 1", "mage #").replace("mage 2", "mage 1").replace("mage #", "mage 2")
        assert DIALECTS[dialect].parser(swapped).label == (1, 0, 2)[outcome]


@settings(max_examples=30)
@given(st.text())
def test_any_text_is_a_verdict_or_unreadable(text):
    for dialect in DIALECTS.values():
        try:
            dialect.parser(text)
        except Unreadable as error:
            assert str(error)
