"""A real server on loopback with a scorer that reads the images, and a scorer that waits to be let go."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence

import httpx
import numpy as np
import pytest
from PIL import Image

from prefrm.containers import is_video
from prefrm.media import decode
from prefrm.video import encode_video
from prefrm.winmatrix import FakeScorer, Group, WinMatrix
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import Addresses, JudgeServer


def brightness(prompt: str, candidate: bytes | str) -> float:
    """Of a text or a video, its length."""
    if isinstance(candidate, str) or is_video(candidate):
        return len(candidate) / 1000
    return float(np.asarray(decode(candidate)).mean()) / 50 + len(prompt) / 10


class GatedScorer:
    """Judges by brightness, but only once `gate` is set; `calls` holds the group prompts of each call."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls: list[list[str]] = []
        self._inner = FakeScorer(brightness)

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        self.calls.append([group.prompt for group in groups])
        if not self.gate.wait(30):
            raise RuntimeError("the test never opened the gate")
        if any(group.prompt == "poison" for group in groups):
            raise ValueError("this prompt breaks the judge")
        return self._inner.score(groups)


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """An encoded image of one shade, 0 to 255."""

    def make(shade: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (6, 5), (shade, shade // 2, 255 - shade)).save(buffer, format="PNG")
        return buffer.getvalue()

    return make


@pytest.fixture(scope="session")
def group(png: Callable[[int], bytes]) -> Callable[[str], Group]:
    """A group of two with the given prompt."""
    return lambda prompt: Group(prompt=prompt, candidates=(png(3), png(200)))


@pytest.fixture(scope="session")
def groups(png: Callable[[int], bytes]) -> list[Group]:
    """Three groups of four: whole, with a missing candidate, and with an unreadable one."""
    return [
        Group(prompt="a red cube", candidates=(png(10), png(90), png(200), png(90))),
        Group(prompt="zwei Äpfel \U0001f34e", candidates=(png(1), None, png(3), png(4))),
        Group(prompt="", candidates=(png(1), b"not an image\x00", png(30), png(255))),
    ]


@pytest.fixture(scope="session")
def every_kind(png: Callable[[int], bytes]) -> list[Group]:
    """Two groups each of edits, of clips and of texts, with and without a context and a criterion."""
    clips = tuple(encode_video([Image.new("RGB", (16, 16), shade)] * 3, 4) for shade in ("red", "navy"))
    return [
        Group(
            prompt="a hat", candidates=(png(10), None, png(200)), context=(png(7), png(8)), criterion="hue"
        ),
        Group(prompt="no hat", candidates=(png(30), png(4), png(20)), context=(png(7),)),
        Group(prompt="it spins", candidates=(*clips, None), criterion="motion"),
        Group(prompt="it rests", candidates=clips),
        Group(prompt="who?", candidates=("Äpfel", None, "nobody\0"), context=(png(9),), criterion="truth"),
        Group(prompt="why?", candidates=("because", "\U0001f34e")),
    ]


@pytest.fixture(scope="session")
def scorer() -> FakeScorer:
    return FakeScorer(brightness, first_bonus=0.3)


@pytest.fixture(scope="session")
def served(scorer: FakeScorer) -> Iterator[Addresses]:
    """The addresses of a server that judges by brightness."""
    model = ModelInfo(name="judge", facts={"base_model": "none"})
    with background(JudgeServer(scorer, model, limits=Limits(group_size=8, request_groups=4))) as addresses:
        yield addresses


@pytest.fixture
def gated() -> Iterator[GatedScorer]:
    scorer = GatedScorer()
    yield scorer
    scorer.gate.set()


@pytest.fixture(scope="session")
def metric() -> Callable[[Addresses, str], float]:
    """The value of a Prometheus sample such as 'prefrm_requests_in_flight'."""

    def read(addresses: Addresses, sample: str) -> float:
        lines = httpx.get(f"http://{addresses.metrics}/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(sample + " ")), 0.0)

    return read
