"""A fake chat endpoint on loopback: it notes what it is asked, and answers or fails as a test says."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

WORDS = ("0", "1", "2", "3", "4", "5", "Both", "Image", "Edited", "Yes", "No")
VOCABULARY = {word: 15 + n for n, word in enumerate(WORDS)}
Alternatives = Mapping[str, float]


def choice(
    *tokens: str, alternatives: Mapping[int, Alternatives] | None = None, **more: Any
) -> dict[str, Any]:
    """A choice of these tokens; `alternatives` are log-probabilities by place, None if none are returned."""
    found: dict[str, Any] = {
        "message": {"role": "assistant", "content": "".join(tokens)},
        "finish_reason": "stop",
    }
    if alternatives is not None:
        found["logprobs"] = {
            "content": [
                {
                    "token": token,
                    "logprob": alternatives.get(n, {}).get(token, -0.01),
                    "bytes": list(token.encode()),
                    "top_logprobs": [
                        {"token": one, "logprob": x} for one, x in alternatives.get(n, {}).items()
                    ],
                }
                for n, token in enumerate(tokens)
            ]
        }
    return found | more


def shown(body: Mapping[str, Any]) -> list[bytes]:
    """The images of a question, in order."""
    items = [
        item for turn in body["messages"] if isinstance(turn["content"], list) for item in turn["content"]
    ]
    urls = [item["image_url"]["url"] for item in items if item["type"] == "image_url"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls]


def written(body: Mapping[str, Any]) -> str:
    """The texts of a question, with "[image]" for each image."""
    contents = [turn["content"] for turn in body["messages"]]
    items = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in contents]
    return "".join(item.get("text", "[image]") for some in items for item in some)


def token_ids(text: str) -> list[int]:
    """As Qwen's tokenizer: no token has a space before a digit or one of these words."""
    return [220, VOCABULARY[text.strip()]] if text.startswith(" ") else [VOCABULARY[text]]


@dataclass
class FakeEndpoint:
    """What one endpoint says: the statuses of `refusals` first, one for each question, then `answer`.

    `answer` maps the body of a question to its choices, or to a status with which it is refused. The first
    answers are held back until `hold` questions are in flight at once. `tokenizes` is the status of
    `/tokenize` and `listing` that of the list of models.
    """

    answer: Callable[[dict[str, Any]], list[dict[str, Any]] | int]
    owner: str = "vllm"
    model: str = "judge"
    other: str = ""
    listing: int = 200
    tokenizes: int = 200
    ids: Callable[[str], list[int]] = token_ids
    refusals: list[int] = field(default_factory=list)
    refusal: str = "that will not do"
    retry_after: str | None = None
    hold: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    in_flight: int = 0
    most_in_flight: int = 0
    url: str = ""

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.in_flight, self.most_in_flight)
        if self.in_flight >= self.hold:
            self.gate.set()
        await asyncio.wait_for(self.gate.wait(), 60)
        self.in_flight -= 1
        found = self.refusals.pop(0) if self.refusals else self.answer(body)
        if isinstance(found, int):
            after = {"Retry-After": self.retry_after} if self.retry_after else {}
            return web.json_response({"error": {"message": self.refusal}}, status=found, headers=after)
        choices = [{"index": n, **one} for n, one in enumerate(found)]
        return web.json_response({"object": "chat.completion", "model": body["model"], "choices": choices})

    async def models(self, request: web.Request) -> web.Response:
        names = filter(None, (self.model, self.other))
        found = {"object": "list", "data": [{"id": name, "owned_by": self.owner} for name in names]}
        return web.json_response(found, status=self.listing)

    async def tokenize(self, request: web.Request) -> web.Response:
        if self.tokenizes != 200:
            return web.json_response({"detail": "no"}, status=self.tokenizes)
        ids = self.ids((await request.json())["prompt"])
        return web.json_response({"tokens": ids, "count": len(ids)})


@contextmanager
def serving(endpoint: FakeEndpoint) -> Iterator[FakeEndpoint]:
    """The endpoint on a free port, until the block ends; its `url` is then that of a `ChatScorer`."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/v1/chat/completions", endpoint.complete)
        app.router.add_get("/v1/models", endpoint.models)
        app.router.add_post("/tokenize", endpoint.tokenize)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        endpoint.url = f"chat+http://127.0.0.1:{port}/v1?"
        return runner

    def work() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(start())
        # Not before: a stop of the loop that starts the server would be lost.
        loop.call_soon(ready.set)
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield endpoint
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
