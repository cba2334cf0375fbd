"""A real server on loopback, and a scorer that waits to be let go."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from prefrm.client import connect, connect_async
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer


def size_and_prompt(prompt: str, candidate: bytes | str) -> float:
    content = candidate.encode() if isinstance(candidate, str) else candidate
    return sum(content) % 1009 / 300 - len(prompt) / 7


class SlowScorer:
    """Judges once its gate is open; `calls` counts."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls = 0
        self._inner = FakeScorer(size_and_prompt)

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        self.calls += 1
        if not self.gate.wait(30):
            raise RuntimeError("the test never opened the gate")
        if any(group.prompt == "poison" for group in groups):
            raise ValueError("this prompt\nbreaks the judge")
        return self._inner.score(groups)


@pytest.fixture(scope="session")
def scorer() -> FakeScorer:
    return FakeScorer(size_and_prompt, first_bonus=0.25)


@pytest.fixture(scope="session")
def served(scorer: FakeScorer) -> Iterator[Addresses]:
    with background(JudgeServer(scorer, ModelInfo(name="judge"))) as addresses:
        yield addresses


@pytest.fixture
def slow() -> Iterator[SlowScorer]:
    scorer = SlowScorer()
    yield scorer
    scorer.gate.set()


@pytest.fixture(scope="session")
def ask() -> Callable[..., list[WinMatrix]]:
    """Score once over "grpc", "http", "grpc async" or "http async", through a scorer made for it."""

    def score(way: str, url: str, groups: Sequence[Group], **options: float) -> list[WinMatrix]:
        if not way.endswith("async"):
            with connect(url, **options) as judge:
                return judge.score(groups)

        async def main():
            async with connect_async(url, **options) as judge:
                return await judge.score(groups)

        return asyncio.run(main())

    return score


@pytest.fixture(scope="session")
def pair(png: Callable[..., bytes]) -> Group:
    return Group(prompt="pair", candidates=(png(1, 4, 4), png(2, 4, 4)))


@pytest.fixture(scope="session")
def mixed(png: Callable[..., bytes]) -> list[Group]:
    """Groups of three sizes in no order, with missing candidates; some of texts, of edits, by a criterion."""
    images = [png(n, 4, 4) for n in range(8)]
    return [
        Group(prompt="two", candidates=(images[0], images[1])),
        Group(prompt="fünf \U0001f34e", candidates=(images[2], None, images[3], images[4], images[0])),
        Group(prompt="", candidates=(images[5], images[6])),
        Group(prompt="three", candidates=(images[7], images[1], images[2]), criterion="hue"),
        Group(prompt="who?", candidates=("\U0001f34e", "nobody"), context=(images[0], images[3])),
        Group(prompt="edit", candidates=(images[5], None), context=(images[2],), criterion="fünf"),
        Group(prompt="why?", candidates=("because\0", None, "so"), criterion="truth"),
        Group(prompt="nobody", candidates=(None, None)),
        Group(prompt="five again", candidates=(images[7], images[1], images[2], images[3], None)),
    ]


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for a condition that another thread brings about."""

    def wait(condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "it never came about"
            time.sleep(0.01)

    return wait
