"""Images and videos decoded ahead of the scorer, in threads that leave the scorer's own to small requests.

A group of `AHEAD_PIXELS` or more goes through one of two lanes: there is one thread for groups of up to
`SHORT_PIXELS`, and the others serve the longer ones, so that neither a crowd of large images nor a single
enormous group holds up a photograph. In a lane, groups take turns image by image, fair by pixels. A video is
an image here: its pixels are those of all its frames.
"""

import asyncio
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol, runtime_checkable

from prefrm.errors import MediaError
from prefrm.media import ImageLimits
from prefrm.video import probe_media
from prefrm.winmatrix import Group
from serving.queueing.fairness import FairQueue

__all__ = ["AheadDecoder", "Decoding", "Prepared", "Preparing", "is_long"]

AHEAD_PIXELS = 10**6
"""A group whose images have at least this many pixels, once for each scan of a JPEG, is decoded ahead: about
30 ms."""
SHORT_PIXELS = 16 * 10**6
"""A group that has more is a long one: about half a second."""
PREPARED_BYTES = 256 * 2**20
"""Of images that are decoded and not yet scored; a single group may have more."""
NICE = 10
"""Priority of the threads, below that of the event loop and of the scorer when cores are short."""


@runtime_checkable
class Preparing(Protocol):
    """A scorer that can decode images ahead of `score`, such as `prefrm.engine.Engine`.

    Attributes:
        pixels_per_token: how many pixels are decoded in the time of a token, the unit of `cost`.
        prepared_bytes: what the largest prepared image takes.
    """

    pixels_per_token: int
    prepared_bytes: int

    def prepare(self, image: bytes) -> object:
        """Decode an image, in any thread; `score` uses the result for as long as it is kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """An image to decode: its bytes, the pixels that are held meanwhile, and those that are decoded."""

    image: bytes
    pixels: int
    decoded_pixels: int


@dataclass(slots=True, eq=False)
class _Flow:
    """The images of a group that are decoded ahead, and those that are done."""

    images: deque[Decoding]
    done: "asyncio.Future[list[object]]"
    count: int = field(init=False)
    results: list[object] = field(default_factory=list)
    is_open: bool = False

    def __post_init__(self) -> None:
        self.count = len(self.images)

    def whole_cost(self) -> int | None:
        """Pixels of all its images until it is open."""
        if self.is_open or self.done.done():
            return None
        return sum(image.decoded_pixels for image in self.images)

    def next_cost(self) -> int | None:
        """Pixels of its next image."""
        return None if self.done.done() or not self.images else self.images[0].decoded_pixels


class Prepared:
    """The prepared images of a group, to be kept until it is scored and then released."""

    def __init__(self, images: list[object], release: Callable[[], None]) -> None:
        self._images = images
        self._release = release

    def release(self) -> None:
        """Free the images and make room for others."""
        self._images.clear()
        self._release()


class _Lane:
    """Threads that decode the images of some groups.

    Args:
        prepare: decodes an image.
        on_decoded: told of each image that was decoded, on the event loop, how many seconds it took.
        threads: how many.
        images: how many may be decoded and not yet released; a single group may have more.
        pixels: how many may be decoded at once; a single image may have more.
    """

    def __init__(
        self,
        prepare: Callable[[bytes], object],
        on_decoded: Callable[[float], None],
        *,
        threads: int,
        images: int,
        pixels: int,
    ) -> None:
        self._prepare = prepare
        self._on_decoded = on_decoded
        self._waiting: FairQueue[_Flow] = FairQueue(_Flow.whole_cost)
        self._decoding: FairQueue[_Flow] = FairQueue(_Flow.next_cost)
        self._images, self._open_images = images, 0
        self._pixels, self._pixels_now = pixels, 0
        self._threads = self._idle = threads
        self._inbox: SimpleQueue[tuple[_Flow, Decoding] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to work, on the running event loop. The threads are daemons: a busy one delays no exit."""
        self._loop = asyncio.get_running_loop()
        for _ in range(self._threads):
            threading.Thread(target=self._run, name="decoder", daemon=True).start()
        self._hand_out()

    def stop(self) -> None:
        """End each thread once it is idle."""
        for _ in range(self._threads):
            self._inbox.put(None)

    async def prepare(self, images: Sequence[Decoding]) -> Prepared:
        """Decode the images of a group. Cancelling this spares those that are not yet begun.

        Raises:
            Exception: as the scorer's `prepare`.
        """
        flow = _Flow(deque(images), asyncio.get_running_loop().create_future())
        self._waiting.add(flow)
        self._hand_out()
        try:
            return Prepared(await flow.done, lambda: self._release(flow))
        except BaseException:
            self._release(flow)
            raise

    def _release(self, flow: _Flow) -> None:
        if not flow.is_open:
            self._waiting.forget()
        else:
            flow.is_open = False
            self._open_images -= flow.count
            if flow.images:
                self._decoding.forget()
        # A queue may keep the flow until its turn, which must not keep its images.
        flow.images.clear()
        self._hand_out()

    def _hand_out(self) -> None:
        """Open groups as long as there is room for their images, and give images to idle threads."""
        while (flow := self._waiting.first()) is not None:
            if self._open_images and self._open_images + flow.count > self._images:
                break
            flow.is_open = True
            self._open_images += flow.count
            self._waiting.advance()
            self._decoding.add(flow)
        while self._idle and (flow := self._decoding.first()) is not None:
            pixels = flow.images[0].pixels
            if self._pixels_now and self._pixels_now + pixels > self._pixels:
                break
            image = flow.images.popleft()
            self._decoding.advance()
            self._idle -= 1
            self._pixels_now += pixels
            self._inbox.put((flow, image))

    def _run(self) -> None:
        if sys.platform == "linux":
            # Of this thread alone, which POSIX systems other than Linux cannot do.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while (item := self._inbox.get()) is not None:
            flow, image = item
            result: object
            started = time.monotonic()
            try:
                # The request may have ended since.
                result = None if flow.done.done() else self._prepare(image.image)
            except BaseException as error:
                result = error
            assert self._loop is not None
            # A loop that is closed has stopped without us, and nobody waits.
            with suppress(RuntimeError):
                seconds = time.monotonic() - started
                self._loop.call_soon_threadsafe(self._finish, flow, image, result, seconds)
            # Nothing of an image stays here until the next one comes.
            del item, flow, image, result

    def _finish(self, flow: _Flow, image: Decoding, result: object, seconds: float) -> None:
        self._idle += 1
        self._pixels_now -= image.pixels
        if not flow.done.done():
            self._on_decoded(seconds)
            if isinstance(result, BaseException):
                flow.done.set_exception(result)
            else:
                flow.results.append(result)
                if len(flow.results) == flow.count:
                    flow.done.set_result(flow.results)
        self._hand_out()


class AheadDecoder:
    """Decides which images of a group are decoded ahead, and decodes them.

    Args:
        scorer: whose `prepare` is called, from several threads.
        limits: what an encoded image may be; one beyond them is not decoded.
        pixels: how many may be decoded at once in the lane of long groups; a single image may have more.
        on_decoded: told of each image, on the event loop, how many seconds it took.
    """

    def __init__(
        self, scorer: Preparing, limits: ImageLimits, pixels: int, on_decoded: Callable[[float], None]
    ) -> None:
        self._limits = limits
        self._pixels_per_token = scorer.pixels_per_token
        self._images = max(2, PREPARED_BYTES // max(1, scorer.prepared_bytes))
        # Half of the cores are left to the event loop and the scorer.
        long = max(1, (os.cpu_count() or 1) // 2)
        self._lanes = [
            _Lane(scorer.prepare, on_decoded, threads=threads, images=self._images, pixels=pixels)
            for threads in (1, long)
        ]

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        for lane in self._lanes:
            lane.start()

    def stop(self) -> None:
        """End the threads, each once it is idle."""
        for lane in self._lanes:
            lane.stop()

    def of(self, group: Group, cost: int) -> list[Decoding]:
        """The images of a group of that cost in tokens that are to be decoded ahead; any thread may ask.

        No more than may be kept: if a judge's prepared images are large, the scorer decodes the others of a
        large group, between whose passes it can be interrupted.
        """
        if cost < AHEAD_PIXELS // self._pixels_per_token:
            return []
        found = []
        for image in {image: None for image in (*group.context, *group.encoded) if image}:
            with suppress(MediaError):
                info = probe_media(image, self._limits)
                found.append(
                    Decoding(image=image, pixels=info.held_pixels, decoded_pixels=info.decoded_pixels)
                )
        return found[: self._images] if _decoded_pixels(found) >= AHEAD_PIXELS else []

    def tokens(self, images: Sequence[Decoding]) -> int:
        """What decoding these images costs."""
        return _decoded_pixels(images) // self._pixels_per_token

    async def prepare(self, images: Sequence[Decoding]) -> Prepared:
        """Decode the images of a group, at least one. Raises as the scorer's `prepare`."""
        return await self._lanes[is_long(images)].prepare(images)


def is_long(images: Sequence[Decoding]) -> bool:
    """Whether a group with these images is decoded in the lane of long ones."""
    return _decoded_pixels(images) > SHORT_PIXELS


def _decoded_pixels(images: Sequence[Decoding]) -> int:
    return sum(image.decoded_pixels for image in images)
