"""Images that take seconds to decode: pairs of 64 megapixels, and progressive JPEGs of 100 scans.

Sixteen requests are open at any time, over gRPC and HTTP alternately.
"""

import io
import itertools
import threading
import time

from PIL import Image

from prefrm.client import connect
from prefrm.errors import ScoringError
from prefrm.winmatrix import Group
from tests.serving.attacks.target import Target

AT_ONCE = 16
SIDE = 8000
SCANS = 100


def attack(target: Target, until: float) -> int:
    """Send large images from sixteen threads, each request with pixels that no cache has."""
    sent = itertools.count()
    blank, scanned = blank_png(SIDE), many_scans(SIDE // 2)

    def send(scheme: str, address: str) -> None:
        with connect(
            f"{scheme}://{address}/judge", token=target.token or None, deadline=until - time.monotonic()
        ) as scorer:
            while time.monotonic() < until:
                number = next(sent)
                whole = scanned if number % 4 == 3 else blank
                # What follows an image's end is not decoded, and makes it one that no cache has.
                images = tuple(whole + n.to_bytes(4, "big") for n in (2 * number, 2 * number + 1))
                try:
                    scorer.score([Group(prompt="x", candidates=images)])
                except ScoringError:
                    time.sleep(0.05)

    wires = itertools.cycle((("grpc", target.grpc), ("http", target.http)))
    threads = [threading.Thread(target=send, args=next(wires)) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next(sent)


def blank_png(side: int) -> bytes:
    """A PNG of one colour: of 64 megapixels, a file of 200 KB."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, "PNG")
    return buffer.getvalue()


def many_scans(side: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(buffer, "JPEG", progressive=True)
    once = buffer.getvalue()
    more = SCANS - once.count(b"\xff\xda")
    return once[:-2] + once[once.rindex(b"\xff\xda") : -2] * more + once[-2:]
