"""Readings of answers: log-probabilities before words, masses, ties, samples. By hand-derived values."""

import math
from dataclasses import replace

import pytest

from prefrm.errors import ProtocolError
from prefrm.scorers.chat import DIALECTS
from prefrm.scorers.chat.reading import Bounds, read_answers, without_tie
from prefrm.winmatrix.probabilities import LARGEST_LOG_ODDS
from tests.prefrm.scorers.chat.endpoints import choice

BOUNDS = Bounds(min_mass=0.5, min_read=0.5)


def logs(**p):
    return {name.removeprefix("n"): math.log(x) for name, x in p.items()}


def read(dialect, *choices, bounds=BOUNDS):
    return read_answers(DIALECTS[dialect], choices, bounds)


def logit(p):
    return math.log(p / (1 - p))


def test_a_label_is_read_off_its_alternatives_whatever_was_said():
    reading = read("plain", choice("The", alternatives={0: logs(n1=0.6, n2=0.2, The=0.1)}))
    assert reading.value == pytest.approx(math.log(3))
    assert reading.mass == pytest.approx(0.8)
    assert reading.tie is None


def test_spellings_of_a_label_count_together():
    reading = read(
        "vqascore", choice("Yes", alternatives={0: logs(Yes=0.5, yes=0.1, No=0.2) | {" YES": math.log(0.1)}})
    )
    assert reading.value == pytest.approx(math.log(0.7 / 0.2))
    assert reading.mass == pytest.approx(0.9)


def test_a_label_that_is_not_listed_has_the_most_that_it_can_have():
    alone = read("plain", choice("1", alternatives={0: logs(n1=0.9)}))
    assert alone.value == pytest.approx(math.log(0.9 / 0.1))
    below = read("plain", choice("1", alternatives={0: logs(n1=0.9, x=0.04)}))
    assert below.value == pytest.approx(math.log(0.9 / 0.04))


def test_too_little_mass_is_no_reading():
    reading = read("plain", choice("Hm", alternatives={0: logs(n1=0.2, n2=0.1, Hm=0.6)}))
    assert math.isnan(reading.value) and reading.mass == pytest.approx(0.3)
    assert "probability of 0.3 together" in reading.reason and "'Hm'" in reading.reason
    lenient = read(
        "plain",
        choice("Hm", alternatives={0: logs(n1=0.2, n2=0.1)}),
        bounds=Bounds(min_mass=0.3, min_read=0.5),
    )
    assert lenient.value == pytest.approx(math.log(2))


def test_no_label_among_the_alternatives_is_no_reading():
    reading = read("plain", choice("Hm", alternatives={0: logs(Hm=0.9)}))
    assert math.isnan(reading.value) and "has none of the labels 1, 2" in reading.reason


def test_a_sentence_is_read_at_its_digit_and_its_tie_at_its_first_token():
    at = {0: logs(Image=0.6, Both=0.2), 2: logs(n1=0.9, n2=0.1)}
    reading = read("unifiedreward-rank", choice("Image", " ", "1", " is better.", alternatives=at))
    assert reading.tie == pytest.approx(0.25)
    assert reading.value == pytest.approx(logit(0.75 * 0.9 + 0.125))
    assert reading.mass == pytest.approx(0.8)


def tied(image, both):
    return choice("Both", " images are equally good.", alternatives={0: logs(Image=image, Both=both)})


def test_a_tie_that_was_said_counts_beside_who_would_win_without_one():
    said = tied(0.3, 0.6)
    start = without_tie(DIALECTS["unifiedreward-rank"], said)
    forced = choice("1", alternatives={0: logs(n1=0.9, n2=0.1)})
    reading = read_answers(DIALECTS["unifiedreward-rank"], [said], BOUNDS, {start: forced})
    assert start == "Image " and reading.tie == pytest.approx(2 / 3)
    assert reading.value == pytest.approx(logit(0.9 / 3 + 1 / 3))
    assert reading.mass == pytest.approx(0.9)


def test_a_tie_of_which_nobody_knows_who_would_win_is_read_only_if_certain():
    reading = read("unifiedreward-rank", tied(0.3, 0.6))
    assert math.isnan(reading.value)
    assert "a tie with a probability of 0.667, and does not say who wins without one" in reading.reason
    certain = read("unifiedreward-rank", tied(0.004, 0.996))
    assert (certain.value, certain.tie) == (0.0, pytest.approx(0.996))


def test_a_sentence_after_prose_is_found_in_bytes_and_not_in_characters():
    at = {2: logs(n1=0.2, n2=0.8)}
    words = ("<answer>é — 猫 ", "Image ", "2", " is better</answer>")
    assert read("unifiedreward-think", choice(*words, alternatives=at)).value == pytest.approx(-math.log(4))


def test_three_labels_have_a_tie():
    dialect = DIALECTS["plain"].answering("", ("1", "2", "0"))
    given = choice("1", alternatives={0: logs(n1=0.5, n2=0.25, n0=0.25)})
    reading = read_answers(dialect, [given], BOUNDS)
    assert reading.tie == pytest.approx(0.25)
    assert reading.value == pytest.approx(logit(0.5 + 0.125))


def test_digits_have_an_expected_value():
    at = {0: logs(n0=0.1, n3=0.3, n5=0.4)}
    assert read("rating", choice("5", alternatives=at)).value == pytest.approx((0.9 + 2.0) / 0.8)
    assert read("rating", choice("4")).value == 4.0


def test_words_alone_are_counted_under_jeffreys_prior():
    wins = [choice("<answer>Image 1 is better") for _ in range(3)] + [choice("<answer>Image 2 is better")]
    reading = read("unifiedreward-think", *wins)
    assert reading.value == pytest.approx(logit(3.5 / 5))
    assert reading.agreement == 0.75 and reading.unread == 0 and math.isnan(reading.mass)
    assert read("unifiedreward-rank", choice("Image 2 is better.")).value == pytest.approx(logit(0.25))


def test_samples_with_log_probabilities_are_averaged_in_probability():
    at = [{1: logs(n1=p, n2=1 - p)} for p in (0.9, 0.6)]
    reading = read(
        "unifiedreward-think", *(choice("<answer>Image ", "1", " is better", alternatives=one) for one in at)
    )
    assert reading.value == pytest.approx(logit(0.75))


def test_samples_that_cannot_be_read_are_counted_and_too_many_are_no_reading():
    good, bad = choice("<answer>Image 1 is better"), choice("<answer>Image", finish_reason="length")
    reading = read("unifiedreward-think", good, good, bad)
    assert reading.unread == pytest.approx(1 / 3) and reading.value == pytest.approx(logit(2.5 / 3))
    lost = read("unifiedreward-think", good, bad, bad)
    assert math.isnan(lost.value)
    assert "'<answer>Image'" in lost.reason and "(2 of 3 samples)" in lost.reason
    assert "it was cut at max_tokens" in lost.reason


def test_pair_scores_have_log_odds_by_dimension():
    dims = "".join(
        f"{name} Score:\nImage 1: {x}\nImage 2: {1 - x}\n"
        for name, x in zip(("Alignment", "Coherence", "Style"), (0.75, 0.5, 1.0), strict=True)
    )
    reading = read("unifiedreward-pair-score", choice(dims))
    assert reading.value == pytest.approx(logit(0.75))
    assert reading.scores["Alignment"] == pytest.approx(math.log(3)) and reading.scores["Coherence"] == 0
    assert 16 < reading.scores["Style"] < 17


def test_a_choice_that_is_none_is_refused():
    for broken in ({}, {"message": None}, {"logprobs": {"content": [{}]}}):
        with pytest.raises(ProtocolError, match="not one of a chat completion"):
            read("plain", broken)


def test_the_opening_of_a_sentence_may_be_several_tokens():
    at = {0: logs(Im=0.6, Both=0.2), 3: logs(n1=0.9, n2=0.1)}
    reading = read("unifiedreward-rank", choice("Im", "age", " ", "1", " is better.", alternatives=at))
    assert reading.tie == pytest.approx(0.25) and reading.mass == pytest.approx(0.8)


def test_a_label_beside_which_nothing_is_listed_has_the_largest_log_odds():
    assert read("plain", choice("1", alternatives={0: {"1": 0.0}})).value == pytest.approx(LARGEST_LOG_ODDS)


def test_spellings_of_a_template_are_one_label():
    dialect = DIALECTS["vqascore"].answering("", ("Yes|True", "No|False"))
    given = choice(
        "Yes",
        alternatives={0: logs(Yes=0.3, true=0.3, No=0.1) | {" false": math.log(0.2), "FALSE": math.log(0.1)}},
    )
    assert read_answers(dialect, [given], BOUNDS).value == pytest.approx(math.log(0.6 / 0.4))
    assert dialect.parser("true.").label == 0


def test_the_label_of_a_dialect_can_be_another_token():
    dialect = replace(DIALECTS["plain"], labels=("A", "B"))
    given = choice("A", alternatives={0: logs(A=0.8, B=0.2)})
    assert read_answers(dialect, [given], BOUNDS).value == pytest.approx(math.log(4))
