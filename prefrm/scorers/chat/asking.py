"""Questions to the endpoints: their bodies, the kind of the server, and a bounded number in flight."""

import asyncio
import json
import re
import secrets
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from prefrm.client import _portal
from prefrm.client._core import Connected, home
from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._policy import Call, RetryPolicy
from prefrm.client._transport import Unfit
from prefrm.errors import ConfigError, MediaError
from prefrm.questions import ImageQuestion
from prefrm.scorers.chat.dialects import Dialect
from prefrm.scorers.chat.parsing import spellings
from prefrm.scorers.chat.reading import without_tie
from prefrm.scorers.chat.servers import Server, server_of
from prefrm.scorers.chat.settings import SAMPLING_TEMPERATURE, ChatSettings
from prefrm.scorers.chat.showing import data_url
from prefrm.scorers.chat.transport import ChatTransport
from prefrm.scorers.chat.wording import Wording

__all__ = ["Answer", "Answers", "Asker", "Askers", "Question", "Served"]

Choices = list[Mapping[str, Any]]
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The choices of a chat completion.

    `untied` has a choice that continues each start of an answer without its tie
    (`prefrm.scorers.chat.reading.without_tie`), where the endpoint continues a message.
    """

    choices: Choices
    untied: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Answers = Sequence[Answer | Unfit]
"""Of questions, in order: their answers, or the endpoint's refusals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The prompt and the criterion of a group, and what is shown.

    Candidates are data URLs, or texts where the wording is for texts; images of the context are data URLs.
    A question is asked again, as its answer could not be used, with the next `attempt`: for other samples.
    """

    prompt: str
    candidates: tuple[str, ...]
    context: tuple[str, ...] = ()
    criterion: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The model that answers, the kind of its server, and token ids to read; () reads the likely ones."""

    model: str
    server: Server
    token_ids: tuple[int, ...] = ()


class Asker:
    """Asks the endpoints of one judge, in one event loop.

    Args:
        endpoints: replicas.
        policy: of each question.
        credentials: of each request.
        settings: of the judge.
        dialect: that the settings name, with the labels and the prefix of the wording.
        wording: of the questions.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        policy: RetryPolicy,
        credentials: Credentials,
        settings: ChatSettings,
        dialect: Dialect,
        wording: Wording,
    ) -> None:
        self._settings, self._dialect, self._wording = settings, dialect, wording
        self._policy, self._credentials = replace(policy, otherwise="lower concurrency"), credentials
        self._connected = Connected(
            endpoints, self._policy, credentials, lambda one, known: ChatTransport(one, known, settings.model)
        )
        self._room = asyncio.Semaphore(settings.concurrency)
        self._serving: asyncio.Task[Served] | None = None
        self._unknown: set[str] = set()
        self._mark = f"image-{secrets.token_hex(16)}-"

    @property
    def home(self) -> tuple[int, asyncio.AbstractEventLoop]:
        """The process and the event loop that its connections belong to."""
        return self._connected.home

    async def served(self) -> Served:
        """What the endpoint serves; asked once. Raises as a question."""
        if self._serving is None or (self._serving.done() and self._serving.exception() is not None):
            self._serving = asyncio.ensure_future(self._served())
        return await asyncio.shield(self._serving)

    async def ask_all(self, questions: Sequence[Question]) -> Answers:
        """The answers to questions, in order; the first failure cancels those in flight. Raises as `ask`."""
        return await _together([self.ask(question) for question in questions])

    async def ask_about(
        self, questions: Sequence[ImageQuestion], attempt: int = 0
    ) -> list[Answer | Unfit | MediaError]:
        """The answers to questions about single images, in order, or why an image cannot be shown.

        Raises as `ask`.
        """

        async def ask(one: ImageQuestion) -> Answer | Unfit | MediaError:
            async with room:
                try:
                    url = await asyncio.to_thread(data_url, one.image)
                except MediaError as error:
                    return error
                return await self.ask(Question(prompt=one.text, candidates=(url,), attempt=attempt))

        # No more images are decoded than there are questions in flight.
        room = asyncio.Semaphore(self._settings.concurrency)
        return await _together([ask(one) for one in questions])

    async def ask(self, question: Question) -> Answer | Unfit:
        """`n` answers to a question, or the endpoint's refusal of it.

        Where the judge names a tie, it is asked who would win without one.

        Raises:
            ScoringError: as `prefrm.client.RemoteScorer.score`.
        """
        served = await self.served()
        found: Choices = []
        async with self._room:
            try:
                # A server that ignores n returns one answer at a time.
                while (missing := self._settings.n - len(found)) > 0:
                    seed = self._settings.seed + question.attempt * self._settings.n + len(found)
                    sent = set(served.server.neutral) - self._unknown
                    try:
                        found += await self._complete(self._body(question, served, missing, seed))
                    except Unfit as error:
                        if not (refused := {name for name in sent if re.search(rf"\b{name}\b", str(error))}):
                            raise
                        self._unknown |= refused
            except Unfit as error:
                return Unfit(self._credentials.quoted(error))
            choices = found[: self._settings.n]
            return Answer(choices=choices, untied=await self._without_ties(question, served, choices))

    async def close(self) -> None:
        """Release the connections."""
        await self._connected.close()

    async def _without_ties(
        self, question: Question, served: Served, choices: Choices
    ) -> dict[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        if not served.server.continues:
            return found
        for start in dict.fromkeys(filter(None, (without_tie(self._dialect, one) for one in choices))):
            try:
                found[start] = (await self._complete(self._body(question, served, 1, continued=start)))[0]
            except Unfit:
                # Some chat templates change an answer that they are to continue, and the server notices.
                continue
        return found

    async def _complete(self, body: bytes) -> Choices:
        return await self._connected.ask(lambda wire: wire.complete(body), Call(self._policy))

    async def _served(self) -> Served:
        models = await self._connected.ask(lambda wire: wire.models(), Call(self._policy))
        names = {str(one.get("id")): str(one.get("owned_by")) for one in models}
        model = self._settings.model or (next(iter(names)) if len(names) == 1 else "")
        if not model:
            listed = f"it serves {', '.join(names)}" if names else "it lists no models"
            raise ConfigError(f"name the model of the endpoint with model=NAME: {listed}")
        server = server_of(self._settings.server, names.get(model, next(iter(names.values()), "")))
        if self._settings.read == "prefix" and not server.continues:
            raise ConfigError(
                f"read=prefix: a server of the kind {server.name} does not continue a message; use "
                "read=auto, or name its kind with server=vllm or server=sglang"
            )
        ids = await self._token_ids(model) if self._reads_tokens and server.token_ids else ()
        return Served(model=model, server=server, token_ids=ids)

    @property
    def _reads_tokens(self) -> bool:
        return self._settings.read != "text" and bool(self._dialect.labels)

    async def _token_ids(self, model: str) -> tuple[int, ...]:
        """The ids of every spelling of the labels that is one token; () where a label has none."""
        dialect = self._dialect
        branches = [dialect.tie, dialect.opening.split(" ")[0]] if dialect.tie and dialect.opening else []
        found: list[int] = []
        for label in (*dialect.labels, *branches):
            ids = [
                await self._tokenized(model, f"{space}{one}")
                for one in spellings(label)
                for space in ("", " ")
            ]
            single = [one[0] for one in ids if len(one) == 1]
            if not single:
                return ()
            found += single
        return tuple(dict.fromkeys(found))

    async def _tokenized(self, model: str, text: str) -> list[int]:
        return await self._connected.ask(lambda wire: wire.tokenize(model, text), Call(self._policy))

    def _body(
        self, question: Question, served: Served, samples: int, seed: int = 0, continued: str = ""
    ) -> bytes:
        """The request for a number of samples, or for one token that continues the start of an answer."""
        settings, dialect = self._settings, self._dialect
        if settings.read == "prefix":
            continued = dialect.prefix or ""
        texts = question.candidates if self._wording.kind == "text" else ()
        urls = (*question.context, *(() if texts else question.candidates))
        marks = [f"{self._mark}{n};" for n in range(len(urls))]
        shown = len(question.context)
        messages = self._wording.messages(
            question.prompt, texts or marks[shown:], marks[:shown], question.criterion
        )
        body: dict[str, Any] = {
            "model": served.model,
            "messages": messages,
            "n": samples,
            "temperature": settings.sampling_temperature
            or (SAMPLING_TEMPERATURE if question.attempt else 0.0),
            "top_p": settings.top_p,
            "seed": seed,
            "max_completion_tokens": settings.max_tokens or dialect.max_tokens,
            **{name: x for name, x in served.server.neutral.items() if name not in self._unknown},
            **settings.extra_fields,
        }
        if dialect.stop:
            body["stop"] = list(dialect.stop)
        if continued:
            messages.append({"role": "assistant", "content": continued})
            body |= {
                "add_generation_prompt": False,
                "continue_final_message": True,
                "max_completion_tokens": 1,
            }
        if self._reads_tokens:
            body["logprobs"] = True
            if served.token_ids:
                body["logprob_token_ids"] = list(served.token_ids)
            else:
                body["top_logprobs"] = settings.top_logprobs
        # JSON takes the long URLs as they are: they are base64.
        return re.sub(rf"{self._mark}(\d+);", lambda mark: urls[int(mark[1])], json.dumps(body)).encode()


class Askers:
    """The asker of a process: another one in a forked child, and after `close`.

    Args:
        make: makes an asker, in the portal's event loop.
    """

    def __init__(self, make: Callable[[], Asker]) -> None:
        self._make = make
        self._current: Asker | None = None

    def get(self) -> Asker:
        """The asker of this process, in the portal's event loop."""
        if self._current is None or self._current.home != home():
            self._current = self._make()
        return self._current

    def close(self) -> None:
        """Release the connections; asking again opens new ones."""
        # When the interpreter finalizes, the portal's thread no longer runs.
        if self._current is not None and not sys.is_finalizing():
            _portal.run(self._close)

    async def _close(self) -> None:
        here, self._current = self._current, None
        if here is not None and here.home == home():
            await here.close()


async def _together(calls: Sequence[Coroutine[Any, Any, Found]]) -> list[Found]:
    """What the calls return, in order; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
