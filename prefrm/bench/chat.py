"""Questions a second that `ChatScorer` keeps an endpoint busy with, beside a bare loop with ready bodies.

The endpoint is a process that answers each question after a fixed delay, up to a concurrency limit, and
computes nothing: lost throughput is the client's. Both take turns, because machines are noisy; a
rate is the median of the rounds.
"""

import asyncio
import io
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection

import aiohttp
import numpy as np
from aiohttp import web
from PIL import Image

from prefrm.config import Bounded, Count, Positive
from prefrm.scorers.chat import ChatScorer
from prefrm.winmatrix import Group, Inputs

__all__ = ["ChatBench", "ChatReport", "bench_chat"]

MODEL = "paced"
SIDE = 512
"""Pixels along a side of a candidate."""
JPEG_QUALITY = 95
"""As the published clients encode images."""
START_S = 60.0
"""Until the endpoint's process listens."""
ANSWER = {"1": -0.2, "2": -1.7}


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBench(Bounded):
    """What is measured.

    Attributes:
        in_flight: questions at once, of the endpoint and of both clients.
        seconds: until a question is answered.
        groups: of a round.
        size: candidates of a group; it has `size * (size - 1)` questions.
        rounds: at least 1.
    """

    in_flight: Count = 32
    seconds: Positive = 0.5
    groups: Count = 16
    size: Count = 4
    rounds: Count = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReport:
    """Questions a second, by the bare loop and by `ChatScorer`, and their ratio in the median round."""

    settings: ChatBench
    bare: float
    scorer: float
    ratio: float
    question_bytes: int
    cores: int

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def to_text(self) -> str:
        """The report as a line."""
        return (
            f"{self.settings.in_flight} in flight, {self.question_bytes / 1e3:.0f} kB a question: "
            f"{self.bare:.1f} questions/s by a bare loop, {self.scorer:.1f} by ChatScorer, "
            f"ratio {self.ratio:.2f}\n"
        )


def bench_chat(settings: ChatBench) -> ChatReport:
    """Both rates, in rounds that alternate."""
    groups = _groups(settings)
    count = settings.groups * settings.size * (settings.size - 1)
    with _endpoint(settings) as port:
        body = _body(groups[0])
        rounds = []
        url = f"chat+http://127.0.0.1:{port}/v1?concurrency={settings.in_flight}&model={MODEL}"
        with ChatScorer.connect(url) as scorer:
            scorer.score(groups[:1])
            for _ in range(settings.rounds):
                start = time.perf_counter()
                asyncio.run(_ask_bare(port, body, count, settings.in_flight))
                middle = time.perf_counter()
                scorer.score(groups)
                rounds.append((count / (middle - start), count / (time.perf_counter() - middle)))
    return ChatReport(
        settings=settings,
        bare=statistics.median(bare for bare, _ in rounds),
        scorer=statistics.median(ours for _, ours in rounds),
        ratio=statistics.median(ours / bare for bare, ours in rounds),
        question_bytes=len(body),
        cores=os.cpu_count() or 1,
    )


def _groups(settings: ChatBench) -> list[Group]:
    rng = np.random.default_rng(0)
    return [
        Group(prompt=f"prompt {n}", candidates=tuple(_image(rng) for _ in range(settings.size)))
        for n in range(settings.groups)
    ]


def _image(rng: np.random.Generator) -> bytes:
    """A JPEG about as large as that of a photograph."""
    coarse = Image.fromarray(rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _body(group: Group) -> bytes:
    """The body of a question about a group's first two candidates, as the scorer makes it."""
    from prefrm.scorers.chat.dialects import get_dialect
    from prefrm.scorers.chat.showing import ShownGroup

    shown = ShownGroup.of(group, inputs=Inputs())
    messages = get_dialect("plain").wording.messages(
        group.prompt, [shown.contents[key] for key in shown.keys[:2]]
    )
    return json.dumps({"model": MODEL, "messages": messages, "max_completion_tokens": 1}).encode()


async def _ask_bare(port: int, body: bytes, count: int, in_flight: int) -> None:
    """Send the same body `count` times, and read each answer."""
    left = iter(range(count))
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work() -> None:
            for _ in left:
                async with session.post(url, data=io.BytesIO(body)) as response:
                    response.raise_for_status()
                    await response.read()

        await asyncio.gather(*(work() for _ in range(in_flight)))


@contextmanager
def _endpoint(settings: ChatBench) -> Iterator[int]:
    """The port of a paced endpoint in another process."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(theirs, settings.in_flight, settings.seconds), daemon=True)
    process.start()
    try:
        assert ours.poll(START_S), "the endpoint did not start"
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def _serve(ready: Connection, slots: int, seconds: float) -> None:
    async def run() -> None:
        room = asyncio.Semaphore(slots)

        async def complete(request: web.Request) -> web.Response:
            await request.read()
            async with room:
                await asyncio.sleep(seconds)
            return web.json_response(_completion())

        async def models(_: web.Request) -> web.Response:
            return web.json_response({"object": "list", "data": [{"id": MODEL, "owned_by": "prefrm"}]})

        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", complete)
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ready.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def _completion() -> dict[str, object]:
    token, logprob = max(ANSWER.items(), key=lambda one: one[1])
    alternatives = [{"token": one, "logprob": x} for one, x in ANSWER.items()]
    content = [{"token": token, "logprob": logprob, "top_logprobs": alternatives}]
    message = {"role": "assistant", "content": token}
    choice = {"index": 0, "message": message, "logprobs": {"content": content}, "finish_reason": "length"}
    return {"object": "chat.completion", "model": MODEL, "choices": [choice]}
