"""Which pair comes next: what is learned from it, how many have answered it, and what measures an
annotator."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from prefrm.answers import Question
from prefrm.app.collect.queue import KnownPair, PairQueue, QueueSettings, Showing
from prefrm.errors import ConfigError
from prefrm.winmatrix import WinMatrix

NEW = QueueSettings(known=0, repeats=0)


def matrix(log_odds: float | np.ndarray) -> WinMatrix:
    """Of two candidates with these log-odds, or of a skew-symmetric [K, K]."""
    u = np.array([[0, log_odds], [-log_odds, 0]]) if np.isscalar(log_odds) else log_odds
    return WinMatrix.from_order_logits(u)


class Session:
    """A queue, its annotators and a clock; every pair is answered `left`, unless something else is said."""

    def __init__(self, queue: PairQueue) -> None:
        self.queue, self.now, self.asked = queue, 0.0, list[Question]()

    def show(self, name: str = "ada") -> Question | None:
        showing = self.queue.next(name, self.now)
        if showing is None:
            return None
        question = Question(id=len(self.asked), annotator=name, asked_at=self.now, **showing._asdict())
        self.asked.append(question)
        self.queue.shown(question)
        return question

    def answer(self, name: str = "ada", verdict: str = "left") -> Question | None:
        if question := self.show(name):
            self.queue.answered(question, verdict)
        return question


def session(groups: dict[str, list[WinMatrix]], settings: QueueSettings = NEW, known=()) -> Session:
    """Groups of candidates "a", "b", ... by id."""
    queue = PairQueue(settings, known)
    for group, matrices in groups.items():
        queue.add(group, "abcdefgh"[: matrices[0].size], matrices)
    return Session(queue)


def test_the_least_certain_pair_comes_first() -> None:
    asked = session({"sure": [matrix(4.0)], "unsure": [matrix(0.1)], "so so": [matrix(-1.0)]})
    assert [asked.answer().group for _ in range(3)] == ["unsure", "so so", "sure"]
    assert asked.answer() is None


def test_where_judges_disagree_comes_before_where_all_are_as_uncertain() -> None:
    """The mean of both is 1/2; only of the first do people's utilities have more than the prior's
    variance."""
    asked = session(
        {"both unsure": [matrix(0.0)] * 2, "dispute": [matrix(3.0), matrix(-3.0)], "agree": [matrix(3.0)] * 2}
    )
    assert [asked.answer().group for _ in range(3)] == ["dispute", "both unsure", "agree"]


def test_a_group_gives_way_to_others_once_it_was_asked_about() -> None:
    """Four equal candidates: every pair is as uncertain as those of another such group, until it is asked."""
    asked = session({"one": [matrix(np.zeros((4, 4)))], "two": [matrix(np.zeros((4, 4)))]})
    questions = [asked.answer() for _ in range(4)]
    assert Counter(q.group for q in questions) == {"one": 2, "two": 2}
    for name in ("one", "two"):
        assert {c for q in questions if q.group == name for c in q.pair[2:]} == set("abcd")


def test_every_pair_is_shown_to_as_many_people_as_asked_and_to_nobody_twice() -> None:
    asked = session({"g": [matrix(np.zeros((4, 4)))]}, replace(NEW, annotators=2))
    names = ["ada", "ben", "cem"]
    while any([asked.answer(name) for name in names]):
        pass
    assert Counter(q.pair for q in asked.asked) == dict.fromkeys({q.pair for q in asked.asked}, 2)
    assert len({(q.pair, q.annotator) for q in asked.asked}) == len(asked.asked) == 12
    assert asked.queue.progress() == (6, 6)


def test_a_pair_that_has_begun_is_finished_first() -> None:
    asked = session({"sure": [matrix(4.0)], "unsure": [matrix(0.1)]}, replace(NEW, annotators=2))
    assert [asked.answer(name).group for name in ("ada", "ben", "ada")] == ["unsure", "unsure", "sure"]


def test_a_pair_that_was_not_answered_goes_to_somebody_else_after_the_lease() -> None:
    asked = session({"g": [matrix(0.0)]})
    shown = asked.show("ada")
    assert asked.show("ben") is None
    asked.now = NEW.lease_s
    assert asked.show("ben").pair == shown.pair
    asked.queue.answered(shown, "left")
    assert asked.queue.progress() == (1, 1)


def test_a_pair_that_somebody_skipped_goes_to_somebody_else() -> None:
    asked = session({"g": [matrix(0.0)]})
    asked.answer("ada", "skip")
    assert asked.answer("ada") is None
    assert asked.answer("ben").group == "g"
    assert asked.queue.progress() == (1, 1)


def test_no_side_tells_anything() -> None:
    asked = session({f"g{n}": [matrix(0.0)] for n in range(200)})
    left = sum(asked.answer().left == "a" for _ in range(200))
    assert 70 < left < 130


def test_missing_and_identical_candidates_are_not_compared() -> None:
    queue = PairQueue(NEW)
    queue.add("g", ["a", None, "b", "a"])
    asked = Session(queue)
    assert asked.answer().pair == ("g", "", "a", "b")
    assert asked.answer() is None


KNOWN = [KnownPair(group=f"k{n}", criterion="", first="x", second="y", p=1.0) for n in range(10)]
MEASURED = QueueSettings(known=0.1, repeats=0.1)


def test_known_pairs_and_repeats_have_their_shares_and_come_once() -> None:
    asked = session({f"g{n}": [matrix(0.0)] for n in range(400)}, MEASURED, KNOWN)
    while asked.answer():
        pass
    purposes = Counter(q.purpose for q in asked.asked)
    assert purposes["new"] == 400 and purposes["known"] == 10 and 30 <= purposes["repeat"] <= 70
    known = [q for q in asked.asked if q.purpose == "known"]
    assert len({q.pair for q in known}) == 10
    assert {q.known for q in known} == {0.0, 1.0} and all((q.left == "x") == (q.known == 1.0) for q in known)


def test_a_repeat_has_its_sides_exchanged_and_comes_after_others() -> None:
    asked = session({f"g{n}": [matrix(0.0)] for n in range(200)}, MEASURED)
    while asked.answer():
        pass
    for question in (q for q in asked.asked if q.purpose == "repeat"):
        (first,) = (q for q in asked.asked if q.pair == question.pair and q.purpose == "new")
        assert (first.left, first.right) == (question.right, question.left)
        assert question.id - first.id >= MEASURED.gap
    assert len({q.pair for q in asked.asked if q.purpose == "repeat"}) == sum(
        q.purpose == "repeat" for q in asked.asked
    )


def test_an_annotator_is_not_kept_with_checks_once_nothing_is_left() -> None:
    asked = session({"g": [matrix(0.0)]}, replace(MEASURED, known=0.9, repeats=0.0), KNOWN)
    while (last := asked.answer()) and last.purpose == "known":
        pass
    assert last.purpose == "new" and asked.answer() is None


def test_a_session_that_is_resumed_goes_on_as_if_it_had_never_ended() -> None:
    """Whether groups are added before the questions of the first session are told, or after."""
    settings = replace(MEASURED, annotators=2)
    groups = {f"g{n}": [matrix(np.full((3, 3), 0.0) + 0)] for n in range(12)}
    whole = session(groups, settings, KNOWN)
    for _ in range(8):
        for name in ("ada", "ben", "cem"):
            whole.answer(name)
    for late in (False, True):
        queue = PairQueue(settings, KNOWN)
        for moment in (late, not late):
            if moment:
                for question in whole.asked:
                    queue.shown(question)
                    queue.answered(question, "left")
            else:
                for group, matrices in groups.items():
                    queue.add(group, "abc", matrices)
        assert queue.progress() == whole.queue.progress()
        for name in ("ada", "ben", "cem"):
            assert queue.next(name, 0.0) == whole.queue.next(name, 0.0)


def test_chance_chooses_from_all_pairs_alike() -> None:
    """Of 2 sure groups of 4 and 2 unsure ones, half of the first 12 pairs are of the sure ones, more or
    less."""
    u = np.arange(4) * 5.0
    groups = {"sure": [matrix(u[:, None] - u[None, :])], "unsure": [matrix(np.zeros((4, 4)))]}
    counts = Counter(
        asked.answer().group
        for seed in range(30)
        for asked in [session(groups, replace(NEW, order="random", seed=seed))]
        for _ in range(4)
    )
    assert 40 < counts["sure"] < 80


@pytest.mark.parametrize(
    "wrong", [{"annotators": 0}, {"known": -0.1}, {"known": 0.5, "repeats": 0.5}, {"order": "best"}]
)
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="received"):
        QueueSettings(**wrong)


def test_thousands_of_pairs_cost_little() -> None:
    rng = np.random.default_rng(0)
    asked = session({f"g{n}": [matrix(float(rng.normal()))] for n in range(2000)})
    while asked.answer():
        pass
    assert len(asked.asked) == 2000


def test_a_showing_has_the_fields_of_a_question() -> None:
    assert set(Showing._fields) <= set(Question.__dataclass_fields__)
