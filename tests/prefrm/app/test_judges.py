"""The judges of an application, opened in the background."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from prefrm.app import Judges
from prefrm.errors import BundleError, ConfigError
from prefrm.winmatrix import FakeScorer, Group

GROUP = Group(prompt="longer", candidates=("aa", "a", "aaa"))


class Named(FakeScorer):
    def identity(self) -> str:
        return "by length"


def test_judges_open_in_the_background_and_close_at_the_end() -> None:
    closed = []

    @contextmanager
    def opener() -> Iterator[Named]:
        yield Named(lambda prompt, candidate: len(candidate))
        closed.append("length")

    with Judges({"length": opener}) as judges:
        (matrix,) = judges.score("length", [GROUP])
        assert judges.names == ["length"]
        assert judges.identity("length") == "by length" and judges.inputs("length").criterion
        assert matrix.p[2, 1] > matrix.p[0, 1] > 0.5
        assert not closed
    assert closed == ["length"]


def test_a_judge_that_cannot_be_opened_says_why_to_whoever_asks() -> None:
    @contextmanager
    def opener() -> Iterator[Named]:
        raise BundleError("no such bundle")
        yield

    judges = Judges({"absent": opener})
    for ask in (judges.inputs, judges.identity):
        with pytest.raises(BundleError, match="no such bundle"):
            ask("absent")
    with pytest.raises(BundleError, match="no such bundle"):
        judges.score("absent", [GROUP])
    with pytest.raises(ConfigError, match="no judge 'other'; there are absent"):
        judges.score("other", [GROUP])
