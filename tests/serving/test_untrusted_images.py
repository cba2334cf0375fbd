"""An untrusted image is refused by its size and its header, over a real wire, and the scorer never has it."""

import io
import struct
import zlib

import pytest
from PIL import Image

from prefrm.client import connect
from prefrm.media import ImageLimits, digest
from prefrm.winmatrix import FakeScorer, Group
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

LIMITS = Limits(image=ImageLimits(max_bytes=2000, max_pixels=10**6))


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


REFUSED = {
    "too many bytes": (encoded("PNG") + bytes(2000), "the limit is 2000"),
    "too many pixels": (png_header(1001, 1000), "1001 x 1000 pixels; the limit is 1000000"),
    "a bomb": (png_header(100_000, 100_000), "pixels"),
    "another format": (encoded("TIFF"), "not a valid PNG or JPEG or WEBP image"),
    "no image": (b"<html>", "not a valid PNG or JPEG or WEBP image"),
}


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
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_image_never_reaches_the_scorer(recording, wire, kind):
    addresses, received = recording
    received.clear()
    bad, reason = REFUSED[kind]
    good = [encoded("PNG"), encoded("JPEG")]
    with connect(getattr(addresses, f"{wire}_url")) as judge:
        (matrix,) = judge.score([Group(prompt="p", candidates=(good[0], bad, good[1]))])
    assert received == {digest(image) for image in good}
    assert reason in matrix.errors[1]
    assert matrix.valid[0, 2]
    assert not matrix.valid[1].any()
