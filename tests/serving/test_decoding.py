"""Images decoded ahead of the scorer: which, in what order, how many at once, and what is never decoded."""

import asyncio
import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from prefrm import media
from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec, contents
from prefrm.media import ImageLimits
from prefrm.winmatrix import FakeScorer, Group
from serving.errors import ExpiredError, FailedError, NotReadyError, OverloadedError
from serving.limits import Limits
from serving.observing.metrics import Metrics
from serving.queueing import decoding
from serving.queueing.batcher import Batcher, _Waiting
from serving.queueing.decoding import AheadDecoder
from tests.prefrm.judge.families import save_checkpoint
from tests.videos import clip, frames

MEGA = 10**6


def png(megapixels: float, name: int = 0) -> bytes:
    """A PNG of 1,000 columns by its header; no test here decodes it."""
    header = struct.pack(">IIBBBBB", 1000, int(megapixels * 1000), 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", b""), (b"IEND", b""))
    return (
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
        + name.to_bytes(4, "big")
    )


class Preparing:
    """Decodes an image when it is let, or at once if it is in `free`.

    A token is 1,000 pixels, and a group costs one more for each image.
    """

    pixels_per_token = 1000
    prepared_bytes = decoding.PREPARED_BYTES // 100

    def __init__(self) -> None:
        self.begun: list[bytes] = []
        self.scored: list[str] = []
        self.let = threading.Semaphore(0)
        self.failing: bytes | None = None
        self.free: tuple[bytes, ...] = ()
        self._inner = FakeScorer(lambda prompt, image: float(len(image)))

    def cost(self, group: Group) -> int:
        pixels = sum(
            struct.unpack(">II", i[16:24])[0] * struct.unpack(">II", i[16:24])[1] for i in group.candidates
        )
        return group.size + pixels // 1000

    def prepare(self, image: bytes) -> object:
        self.begun.append(image)
        assert image in self.free or self.let.acquire(timeout=30)
        if image == self.failing:
            raise ValueError("this image breaks the decoder")
        return image

    def score(self, groups):
        self.scored += [group.prompt for group in groups]
        return self._inner.score(groups)


@pytest.fixture
def scorer(monkeypatch):
    """One thread for each lane."""
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    scorer = Preparing()
    yield scorer
    scorer.let.release(1000)


def pair(megapixels: float, prompt: str = "x") -> Group:
    return Group(prompt=prompt, candidates=(png(megapixels, 1), png(megapixels, 2)))


def batcher(scorer, **limits) -> Batcher:
    return Batcher(scorer, Limits(**limits), Metrics().of_model("judge", "1"))


def asked(queue: Batcher, *groups: Group, seconds: float = 60.0):
    return asyncio.ensure_future(queue.submit(groups, expires=time.monotonic() + seconds))


async def when(condition) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it never came about"
        await asyncio.sleep(0.002)


def test_large_images_are_decoded_ahead_and_small_ones_are_not(scorer):
    ahead = AheadDecoder(scorer, ImageLimits(max_pixels=50 * MEGA), 64 * MEGA, lambda seconds: None)

    def of(*images):
        group = Group(prompt="", candidates=images)
        return [found.pixels for found in ahead.of(group, scorer.cost(group))]

    assert of(png(0.4), png(0.4, 1)) == []
    assert of(png(0.4), png(0.4), png(0.5)) == []
    assert of(png(0.5), png(0.5, 1)) == [MEGA // 2, MEGA // 2]
    assert of(png(3), png(4), png(3)) == [3 * MEGA, 4 * MEGA]
    # Beyond the limits, the guard refuses it without decoding it.
    assert of(png(60), png(4)) == [4 * MEGA]
    assert len(of(*(png(2, name) for name in range(200)))) == 100


def test_scans_of_a_jpeg_count():
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300)).save(buffer, "JPEG", progressive=True)
    once = buffer.getvalue()
    many = once[:-2] + once[once.rindex(b"\xff\xda") : -2] * (100 - once.count(b"\xff\xda")) + once[-2:]
    ahead = AheadDecoder(Preparing(), ImageLimits(), 64 * MEGA, lambda seconds: None)
    assert ahead.of(Group(prompt="", candidates=(once, None)), 10**6) == []
    (found,) = ahead.of(Group(prompt="", candidates=(many, None)), 10**6)
    assert (found.pixels, found.decoded_pixels) == (90_000, 9 * MEGA)


def test_frames_of_a_video_count():
    video = clip(frames(60, (320, 240)))
    ahead = AheadDecoder(Preparing(), ImageLimits(), 64 * MEGA, lambda seconds: None)
    (found,) = ahead.of(Group(prompt="", candidates=(video, None)), 10**6)
    # 16 frames that others refer to take half of RGB; four are decoded in the time of an image.
    assert (found.pixels, found.decoded_pixels) == (9 * 320 * 240, 60 // 4 * 320 * 240)


def test_small_requests_are_scored_while_large_images_are_decoded(scorer):
    scorer.free = pair(0.5).candidates

    async def main():
        queue = batcher(scorer, queued_cost=300_000)
        queue.start()
        large = [asked(queue, pair(64, f"large {n}")) for n in range(2)]
        await when(lambda: scorer.begun)
        with pytest.raises(OverloadedError, match="2 groups are waiting"):
            await asked(queue, pair(64, "too much"))
        # They keep no smaller one out of the queue, and hold none up.
        photo = asked(queue, pair(0.5, "photo"))
        small = [asked(queue, pair(0.1, "small")) for _ in range(20)]
        costs = [(await one).cost for one in small]
        await photo
        assert not any(one.done() for one in large)
        assert queue.queued_groups == 2 and queue.queued_cost == 2 * 128_002
        scorer.let.release(4)
        answers = await asyncio.gather(*large)
        assert all(waiting == _Waiting() for waiting in queue._waiting.values())
        await queue.drain(5)
        return costs, [answer.cost for answer in answers]

    costs, large = asyncio.run(main())
    assert costs == [202] * 20 and large == [128_002] * 2
    assert sorted(scorer.scored[:21]) == ["photo"] + ["small"] * 20
    assert scorer.scored[21:] == ["large 0", "large 1"]


def test_a_photograph_goes_beside_an_enormous_group_and_between_its_images(scorer):
    photos = pair(3, "photo")
    scorer.free = photos.candidates

    async def main():
        queue = batcher(scorer)
        queue.start()
        huge = asked(queue, Group(prompt="huge", candidates=tuple(png(20, name) for name in range(64))))
        await when(lambda: scorer.begun)
        large = asked(queue, pair(30, "large"))
        await asked(queue, photos)
        scorer.let.release(10)
        await large
        assert not huge.done()
        scorer.let.release(64)
        await huge
        await queue.drain(5)

    asyncio.run(main())
    assert scorer.scored == ["photo", "large", "huge"]


def test_pixels_decoded_at_once_and_prepared_images_are_bounded(scorer, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(decoding, "PREPARED_BYTES", 6 * scorer.prepared_bytes)
    gate = threading.Event()
    scorer._inner = FakeScorer(lambda prompt, image: float(gate.wait(30)))

    async def main():
        queue = batcher(scorer, decoding_pixels=64 * MEGA)
        queue.start()
        requests = [asked(queue, pair(30, str(n))) for n in range(5)]
        await when(lambda: len(scorer.begun) == 2)
        await asyncio.sleep(0.02)
        assert len(scorer.begun) == 2
        scorer.let.release(100)
        # Three groups fill what may be kept until the first of them is scored.
        await when(lambda: len(scorer.begun) == 6)
        await asyncio.sleep(0.02)
        assert len(scorer.begun) == 6
        gate.set()
        await asyncio.gather(*requests)
        await queue.drain(5)

    asyncio.run(main())
    assert len(scorer.begun) == 10


def test_the_turns_of_a_large_request_do_not_look_at_all_its_groups(scorer, monkeypatch):
    looks = []
    monkeypatch.setattr("serving.queueing.work.is_long", lambda images: looks.append(images))

    async def main():
        queue = batcher(scorer)
        queue.start()
        await asked(queue, *[pair(0.1)] * 50)
        await queue.drain(5)

    asyncio.run(main())
    assert len(looks) == 50


def test_what_was_cancelled_or_has_expired_is_not_decoded(scorer):
    async def main():
        queue = batcher(scorer)
        queue.start()
        first = asked(queue, pair(64, "first"))
        await when(lambda: scorer.begun)
        cancelled, expired = asked(queue, pair(63)), asked(queue, pair(62), seconds=0.03)
        last = asked(queue, pair(61, "last"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(ExpiredError):
            await expired
        first.cancel()
        scorer.let.release(3)
        assert len((await last).matrices) == 1
        assert all(waiting == _Waiting() for waiting in queue._waiting.values())
        await queue.drain(5)

    asyncio.run(main())
    assert scorer.scored == ["last"]
    assert scorer.begun == [png(64, 1), png(61, 1), png(61, 2)]


def test_a_decoder_that_fails_fails_its_request_alone(scorer, caplog):
    scorer.failing = png(20, 1)
    scorer.let.release(100)

    async def main():
        queue = batcher(scorer)
        queue.start()
        failing, sound = asked(queue, pair(20)), asked(queue, pair(21, "sound"))
        with pytest.raises(FailedError, match="breaks the decoder"):
            await failing
        assert len((await sound).matrices) == 1
        await queue.drain(5)

    asyncio.run(main())
    assert "decoding the images of a request failed" in caplog.text


def test_draining_finishes_what_is_decoded_or_gives_up_in_time(scorer):
    async def main(*, lets: int, timeout: float):
        queue = batcher(scorer)
        queue.start()
        accepted = asked(queue, pair(20), pair(0.1), pair(21))
        await when(lambda: scorer.begun)
        draining = asyncio.ensure_future(queue.drain(timeout))
        await asyncio.sleep(0)
        for _ in range(lets):
            scorer.let.release()
        await draining
        return len((await accepted).matrices)

    assert asyncio.run(main(lets=4, timeout=10)) == 3
    scorer.begun.clear()
    with pytest.raises(NotReadyError, match="the server stopped"):
        asyncio.run(main(lets=0, timeout=0.05))


def test_a_decoder_that_hangs_is_noticed_and_one_that_moves_is_not(scorer, monkeypatch):
    ahead_s = 0.0

    class Clock:
        monotonic = staticmethod(lambda: time.monotonic() + ahead_s)

    monkeypatch.setattr("serving.queueing.batcher.time", Clock)

    async def main():
        nonlocal ahead_s
        queue = batcher(scorer, hang_s=300)
        queue.start()
        request = asked(queue, *(pair(20, str(n)) for n in range(4)), seconds=10_000)
        for decoded in range(1, 7):
            await when(lambda decoded=decoded: len(scorer.begun) == decoded)
            ahead_s += 200
            assert not queue.is_hanging
            scorer.let.release()
        await when(lambda: len(scorer.begun) == 7)
        ahead_s += 310
        assert queue.is_hanging
        scorer.let.release(2)
        await request
        assert not queue.is_hanging
        await queue.drain(5)

    asyncio.run(main())


def test_the_engines_own_thread_decodes_no_large_image(tmp_path, monkeypatch):
    engine = Engine(
        Judge.from_base(JudgeSpec(base_model=str(save_checkpoint(tmp_path))), "cpu"), cache_bytes=0
    )
    images = []
    for shade in (40, 200):
        buffer = io.BytesIO()
        Image.new("RGB", (1500, 1400), (shade, 90, 30)).save(buffer, "PNG", compress_level=1)
        images.append(buffer.getvalue())
    group = Group(prompt="a red cube", candidates=(*images, b"no image"))
    (own,) = engine.score([group])
    threads = []

    def decode(*args):
        threads.append(threading.current_thread().name)
        return media.decode(*args)

    monkeypatch.setattr(contents, "decode", decode)

    async def main():
        metrics = Metrics()
        queue = Batcher(engine, Limits(), metrics.of_model("judge", "1"))
        queue.start()
        (matrix,) = (await asked(queue, group)).matrices
        await queue.drain(5)
        return matrix, metrics.registry.get_sample_value(
            "prefrm_decode_seconds_count", {"model": "judge", "version": "1"}
        )

    matrix, decoded = asyncio.run(main())
    assert np.array_equal(matrix.p, own.p, equal_nan=True)
    assert threads == ["decoder"] * 2 and decoded == 2
    # Nothing of what was prepared is kept; a thread may still be about to leave the call that had it.
    ends = time.monotonic() + 5
    while len(engine._encode._prepared) and time.monotonic() < ends:
        time.sleep(0.01)
    assert len(engine._encode._prepared) == 0
