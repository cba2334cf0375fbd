"""An untrusted image or video is refused by its size and its headers, over a real wire, and the scorer never
has it.
"""

import io
import struct
import zlib
from contextlib import ExitStack

import pytest
from PIL import Image

from prefrm.client import connect
from prefrm.errors import RecordError
from prefrm.media import ImageLimits, VideoLimits, digest
from prefrm.winmatrix import FakeScorer, Group, Inputs
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.videos import claiming_frames, clip, frames

CLIP, LONGER = clip(frames(4)), clip(frames(5))
VIDEO_LIMITS = VideoLimits(max_bytes=2000, max_frames=4, max_pixels=64 * 48)
LIMITS = Limits(image=ImageLimits(max_bytes=2000, max_pixels=10**6, video=VIDEO_LIMITS))


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 5), "red").save(buffer, format=format)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""
    parts = b""
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ):
        parts += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return b"\x89PNG\r\n\x1a\n" + parts


REFUSED_IMAGES = {
    "too many bytes": (encoded("PNG") + bytes(2000), "the limit is 2000"),
    "too many pixels": (png_header(1001, 1000), "1001 x 1000 pixels; the limit is 1000000"),
    "a bomb": (png_header(100_000, 100_000), "pixels"),
    "another format": (encoded("TIFF"), "not a valid PNG or JPEG or WEBP image"),
    "no image": (b"<html>", "not a valid PNG or JPEG or WEBP image"),
}
REFUSED_VIDEOS = {
    "too many bytes": (CLIP + bytes(2000), "the limit is"),
    "too many frames": (LONGER, "more than 4 frames"),
    "too many pixels": (clip(frames(1, (64, 64))), "64 x 64 pixels; the limit is 3072"),
    "a bomb": (claiming_frames(10**9), "index has 1000000000 entries"),
    "another container": (clip(frames(1), format="mpegts"), "not a valid MP4 or WEBM video but MPEG-TS"),
    "truncated": (CLIP[:-1], "the video is truncated"),
    "no video": (b"<html>", "not a valid MP4 or WEBM video"),
}
REFUSED = {"image": REFUSED_IMAGES, "video": REFUSED_VIDEOS}
GOOD = {"image": (encoded("PNG"), encoded("JPEG")), "video": (CLIP, clip(frames(3)))}


class OfOneKind(FakeScorer):
    """Raises for all groups of a call if it does not read one of them.

    Attributes:
        received: digests of the candidates that it read.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(self._utility)
        self.received = set()
        self._inputs = Inputs(kinds=(kind,))

    def inputs(self) -> Inputs:
        return self._inputs

    def score(self, groups):
        if any(map(self._inputs.refusal, groups)):
            raise RecordError("this judge does not read one of the groups")
        return super().score(groups)

    def _utility(self, prompt: str, candidate: bytes) -> float:
        self.received.add(digest(candidate))
        return float(len(candidate))


@pytest.fixture(scope="module")
def recording():
    """By the kind of its candidates, a server with small limits, and its scorer."""
    with ExitStack() as servers:
        found = {}
        for kind in REFUSED:
            scorer = OfOneKind(kind)
            info = ModelInfo(name="judge", inputs=scorer.inputs())
            server = background(JudgeServer(scorer, info, limits=LIMITS))
            found[kind] = servers.enter_context(server), scorer
        yield found


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind in REFUSED for what in REFUSED[kind]])
def test_what_is_refused_never_reaches_the_scorer(recording, wire, kind, what):
    addresses, scorer = recording[kind]
    scorer.received.clear()
    good, (bad, reason) = GOOD[kind], REFUSED[kind][what]
    with connect(getattr(addresses, f"{wire}_url")) as judge:
        (matrix,) = judge.score([Group(prompt="p", candidates=(good[0], bad, good[1]))])
    assert scorer.received == {digest(image) for image in good}
    assert reason in matrix.errors[1]
    assert matrix.valid[0, 2]
    assert not matrix.valid[1].any()


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(
    ("kind", "bad", "other", "reasons"),
    [
        ("video", CLIP[:-1], "image", ("the video is truncated", "not a valid MP4 or WEBM video")),
        ("image", b"<html>", "video", ("not a valid PNG or JPEG or WEBP image",) * 2),
    ],
)
def test_a_group_left_with_candidates_of_another_kind_costs_no_other_group(
    recording, wire, kind, bad, other, reasons
):
    addresses, _ = recording[kind]
    good, hostile = GOOD[kind], (bad, GOOD[other][0])
    with connect(getattr(addresses, f"{wire}_url")) as judge:
        judged, refused, unread = judge.score(
            [Group(prompt="p", candidates=one) for one in (good, hostile, GOOD[other])]
        )
    assert judged.valid[0, 1] and not refused.valid.any() and not unread.valid.any()
    assert all(error.startswith(reason) for error, reason in zip(refused.errors, reasons, strict=True))
    assert set(unread.errors) == {f"the candidates are {other}s; this judge reads {kind}s"}
