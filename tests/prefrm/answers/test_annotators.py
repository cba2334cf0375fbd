"""Annotators' reliability, recovered from simulated annotators whose reliability is known."""

import math

import numpy as np
import pytest

from prefrm.answers import Answer, Question
from prefrm.answers.annotators import Share, assess_annotators


def answer(n: int, name: str, pair: int, verdict: str, *, swapped=False, known=None, repeat=False) -> Answer:
    """About the pair of candidates "a" and "b"; `known` is P(a is preferred)."""
    left, right = ("b", "a") if swapped else ("a", "b")
    question = Question(
        id=n,
        annotator=name,
        group=f"g{pair}",
        left=left,
        right=right,
        criterion="",
        purpose="known" if known is not None else "repeat" if repeat else "new",
        known=None if known is None else (1 - known if swapped else known),
        asked_at=0.0,
    )
    return Answer(question=question, verdict=verdict, response_s=float(n), answered_at=1.0)


def simulate(reliability: dict[str, float], *, pairs=60, seed=0, known=0, repeats=0) -> list[Answer]:
    """Every annotator answers every pair, the first `known` of which are known, and some a second time."""
    rng = np.random.default_rng(seed)
    truth = rng.random(pairs) < 0.5
    found = []
    for name, q in reliability.items():
        for number, pair in enumerate([*range(pairs), *range(repeats)]):
            swapped = bool(rng.random() < 0.5)
            right = rng.random() < q
            says_left = (truth[pair] == right) != swapped
            found.append(
                answer(
                    len(found),
                    name,
                    pair,
                    "left" if says_left else "right",
                    swapped=swapped,
                    known=float(truth[pair]) if pair < known else None,
                    repeat=number >= pairs,
                )
            )
    return found


GOOD = {f"good{n}": 0.7 + 0.025 * n for n in range(8)}


def test_the_reliability_of_each_is_recovered_from_agreement_alone() -> None:
    """Eight people, none of whose answers is known: the mean error is that of the binomial, about 0.04."""
    reports = {r.name: r for r in assess_annotators(simulate(GOOD, pairs=100))}
    errors = [reports[name].reliability - q for name, q in GOOD.items()]
    assert np.mean(np.abs(errors)) < 0.05
    assert sum(reports[name].low <= q <= reports[name].high for name, q in GOOD.items()) >= 7
    assert not any(r.unreliable for r in reports.values())


def test_the_intervals_hold_what_they_promise() -> None:
    """Over 40 draws, the 95% interval holds the truth in nine of ten cases at least."""
    held = [
        r.low <= q <= r.high
        for seed in range(40)
        for r, q in zip(
            assess_annotators(simulate({"a": 0.6, "b": 0.8, "c": 0.9}, pairs=50, seed=seed, known=10)),
            (0.6, 0.8, 0.9),
            strict=True,
        )
    ]
    assert np.mean(held) >= 0.9


def test_bad_annotators_are_found_and_no_other() -> None:
    bad = {"coin": 0.5, "against": 0.2}
    for seed in range(5):
        reports = assess_annotators(simulate(GOOD | bad, pairs=150, seed=seed))
        assert {r.name for r in reports if r.unreliable} == set(bad)


def test_someone_who_works_alone_is_found_by_known_pairs() -> None:
    (coin,) = assess_annotators(simulate({"coin": 0.45}, known=60))
    (good,) = assess_annotators(simulate({"good": 0.85}, known=60))
    assert coin.unreliable and not good.unreliable
    assert good.known.total == 60 and abs(good.known.value - good.reliability) < 0.05


def test_someone_who_works_alone_is_found_by_repeats() -> None:
    """A coin agrees with itself half of the time; one who is right with 0.9, with 0.82."""
    (coin,) = assess_annotators(simulate({"coin": 0.5}, pairs=100, repeats=100, seed=3))
    (good,) = assess_annotators(simulate({"good": 0.9}, pairs=100, repeats=100, seed=3))
    assert coin.reliability < 0.65 < 0.8 < good.reliability
    assert abs(coin.repeats.value - 0.5) < 0.15 and abs(good.repeats.value - 0.82) < 0.1


def test_the_key_for_left_held_down_shows_in_repeats_with_the_sides_exchanged() -> None:
    pairs = [answer(n, "left", n, "left") for n in range(80)]
    again = [answer(80 + n, "left", n, "left", swapped=True, repeat=True) for n in range(80)]
    (report,) = assess_annotators(pairs + again)
    assert report.left == Share(count=160, total=160)
    assert report.repeats == Share(count=0, total=80)
    assert report.unreliable


def test_one_side_alone_is_no_preference_however_few_pairs_are_checked() -> None:
    (report,) = assess_annotators([answer(n, "right", n, "right") for n in range(40)])
    (few,) = assess_annotators([answer(n, "right", n, "right") for n in range(5)])
    assert report.unreliable and not few.unreliable


def test_counts() -> None:
    verdicts = ["left", "right", "tie", "both_bad", "skip"]
    answers = [answer(n, "ada", n, verdict) for n, verdict in enumerate(verdicts, 1)]
    answers += [answer(6, "ada", 1, "left", repeat=True), answer(7, "ada", 9, "right", known=0.0)]
    (report,) = assess_annotators(answers)
    assert (report.answers, report.ties, report.skipped, report.median_s) == (7, 2, 1, 4.0)
    assert (report.known, report.repeats) == (Share(count=1, total=1), Share(count=1, total=1))
    assert report.left == Share(count=2, total=4)


def test_without_any_check_nothing_is_claimed() -> None:
    (report,) = assess_annotators([answer(n, "ada", n, ("left", "right")[n % 2]) for n in range(100)])
    assert report.low < 0.3 and report.high > 0.9 and not report.unreliable
    assert math.isnan(report.known.value)
    assert assess_annotators([]) == []


@pytest.mark.parametrize("seed", range(3))
def test_known_pairs_outweigh_a_majority_that_is_wrong(seed: int) -> None:
    reports = assess_annotators(simulate({"w1": 0.2, "w2": 0.2, "good": 0.9}, known=30, seed=seed))
    assert {r.name for r in reports if r.reliability > 0.5} == {"good"}
