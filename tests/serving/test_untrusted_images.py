"""An untrusted image or video is refused by its size and its headers, over a real wire, and the scorer never
has it.
"""

import io
import struct
import zlib

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
    "no video": (b"<html>", "not a valid PNG or JPEG or WEBP image"),
}
REFUSED = {"image": REFUSED_IMAGES, "video": REFUSED_VIDEOS}
GOOD = {"image": (encoded("PNG"), encoded("JPEG")), "video": (CLIP, clip(frames(3)))}


@pytest.fixture(scope="module")
def recording():
    """A server with small limits, and the digests of the images that its scorer received."""
    received = set()

    def utility(prompt: str, image: bytes) -> float:
        received.add(digest(image))
        return float(len(image))

    with background(JudgeServer(FakeScorer(utility), ModelInfo(name="judge"), limits=LIMITS)) as addresses:
        yield addresses, received


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(("kind", "what"), [(kind, what) for kind in REFUSED for what in REFUSED[kind]])
def test_what_is_refused_never_reaches_the_scorer(recording, wire, kind, what):
    addresses, received = recording
    received.clear()
    good, (bad, reason) = GOOD[kind], REFUSED[kind][what]
    with connect(getattr(addresses, f"{wire}_url")) as judge:
        (matrix,) = judge.score([Group(prompt="p", candidates=(good[0], bad, good[1]))])
    assert received == {digest(image) for image in good}
    assert reason in matrix.errors[1]
    assert matrix.valid[0, 2]
    assert not matrix.valid[1].any()


class OfOneKind(FakeScorer):
    """Raises for all groups of a call if it does not read one of them."""

    def __init__(self, kind: str) -> None:
        super().__init__(lambda prompt, candidate: float(len(candidate)))
        self._inputs = Inputs(kinds=(kind,))

    def inputs(self) -> Inputs:
        return self._inputs

    def score(self, groups):
        if any(map(self._inputs.refusal, groups)):
            raise RecordError("this judge does not read one of the groups")
        return super().score(groups)


@pytest.mark.parametrize("wire", ["grpc", "http"])
@pytest.mark.parametrize(
    ("kind", "other", "bad"), [("video", "image", CLIP[:-1]), ("image", "video", b"<html>")]
)
def test_a_group_left_with_candidates_of_another_kind_costs_no_other_group(wire, kind, other, bad):
    scorer = OfOneKind(kind)
    info = ModelInfo(name="judge", inputs=scorer.inputs())
    good, hostile = GOOD[kind], (bad, GOOD[other][0])
    with (
        background(JudgeServer(scorer, info, limits=LIMITS)) as addresses,
        connect(getattr(addresses, f"{wire}_url")) as judge,
    ):
        judged, refused = judge.score([Group(prompt="p", candidates=one) for one in (good, hostile)])
    assert judged.valid[0, 1] and not refused.valid.any()
    reason = "the video is truncated" if kind == "video" else "not a valid PNG"
    assert reason in refused.errors[0]
    assert refused.errors[1] == f"the candidates are {other}s; this judge reads {kind}s"
