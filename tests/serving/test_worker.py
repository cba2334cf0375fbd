"""The scorer's thread: memory that runs out, and scorers that do not answer as they should."""

import gc
import weakref

import pytest

from prefrm.errors import OutOfMemoryError, ProtocolError
from prefrm.winmatrix import FakeScorer, Group, WinMatrix, score_each


class Small:
    """Has memory for so many candidates; `calls` holds how many each call had."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.calls: list[int] = []
        self._inner = FakeScorer(lambda prompt, image: float(len(image)))

    def score(self, groups):
        candidates = sum(group.size for group in groups)
        self.calls.append(candidates)
        if candidates > self.memory:
            raise OutOfMemoryError(f"no memory for {candidates}")
        return self._inner.score(groups)


def groups(*sizes: int) -> list[Group]:
    return [Group(prompt=str(n), candidates=(b"x", b"yy") + (b"z",) * (k - 2)) for n, k in enumerate(sizes)]


def test_what_does_not_fit_together_is_halved():
    scorer, wanted = Small(6), groups(2, 3, 2, 4, 2)
    outcomes = score_each(scorer, wanted)
    assert scorer.calls == [13, 5, 8, 2, 6]
    assert [outcome.equals(own) for outcome, own in zip(outcomes, Small(99).score(wanted), strict=True)] == [
        True
    ] * 5


def test_one_that_does_not_fit_alone_costs_the_others_nothing():
    outcomes = score_each(Small(4), groups(2, 2, 5, 2))
    assert [type(outcome) for outcome in outcomes] == [WinMatrix, WinMatrix, OutOfMemoryError, WinMatrix]
    assert str(outcomes[2]) == "no memory for 5"


def test_what_the_failed_attempt_held_is_gone_at_the_next():
    class Tensor:
        pass

    class Holding(Small):
        held = None

        def score(self, groups):
            if self.held is not None:
                gc.collect()
                assert self.held() is None
            mine = Tensor()
            self.held = weakref.ref(mine)
            return super().score(groups)

    assert len(score_each(Holding(2), groups(2, 2, 2))) == 3


def test_anything_else_is_raised():
    class Broken:
        def score(self, groups):
            return []

    with pytest.raises(ProtocolError):
        score_each(Broken(), groups(2))
