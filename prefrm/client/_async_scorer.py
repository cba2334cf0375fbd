"""The asyncio form of the remote scorer: the same policy, driven by an event loop."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint, joint_url
from prefrm.client._parts import PARTS_PER_REPLICA, decoded, encoded, halves, listed, shared_out, unjudged
from prefrm.client._replicas import Replicas, Turn
from prefrm.client._retry import Attempts, Call, RetryPolicy
from prefrm.client._transport import LOOK_EVERY_S, LOOK_S, AsyncTransport, Setback, Unfit, gone
from prefrm.errors import DeadlineError
from prefrm.protocol import Part, reassemble
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["AsyncRemoteScorer"]

Answer = TypeVar("Answer")
Ask = Callable[[AsyncTransport, Endpoint, float], Awaitable[Answer]]


class AsyncRemoteScorer:
    """The asyncio form of `RemoteScorer`. Made by `prefrm.client.connect_async`.

    Tasks of one event loop may share it. In another event loop it opens new connections; close it in the
    loop that used it.
    """

    def __init__(self, endpoints: Sequence[Endpoint], policy: RetryPolicy, credentials: Credentials) -> None:
        self._endpoints = tuple(endpoints)
        self._policy = policy
        self._credentials = credentials
        self._connections: _Connections | None = None

    @property
    def url(self) -> str:
        """Where the judge is."""
        return joint_url(self._endpoints)

    async def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; groups may differ in size. Raises as `RemoteScorer.score`."""
        found = listed(groups)
        call = Call(self._policy)
        here = self._connected()
        parts = shared_out(found, here.replicas.awake())
        return reassemble(parts, await here.score_all(parts, call))

    async def identity(self) -> str:
        """As `RemoteScorer.identity`."""

        async def bundle(wire: AsyncTransport, endpoint: Endpoint, timeout: float) -> str | None:
            return await wire.bundle(timeout=timeout)

        return await self._connected().ask(bundle, Call(self._policy)) or self.url

    async def close(self) -> None:
        """Release the connections; scoring again would open new ones, and forget what was seen before."""
        here, self._connections = self._connections, None
        if here is not None and here.home == _home():
            await here.close()

    def _connected(self) -> "_Connections":
        if self._connections is None or self._connections.home != _home():
            self._connections = _Connections(self._endpoints, self._credentials)
        return self._connections

    async def __aenter__(self) -> "AsyncRemoteScorer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(
        self,
    ) -> tuple[type["AsyncRemoteScorer"], tuple[tuple[Endpoint, ...], RetryPolicy, Credentials]]:
        return AsyncRemoteScorer, (self._endpoints, self._policy, self._credentials)

    def __repr__(self) -> str:
        return f"AsyncRemoteScorer({self.url!r})"


class _Connections:
    """What one event loop has opened, and seen of the replicas."""

    def __init__(self, endpoints: Sequence[Endpoint], credentials: Credentials) -> None:
        self.home = _home()
        self.replicas = Replicas([endpoint.url for endpoint in endpoints])
        self._endpoints = endpoints
        self._credentials = credentials
        self._transports: dict[int, AsyncTransport] = {}

    async def score_all(self, parts: Sequence[Part], call: Call) -> list[list[WinMatrix]]:
        """The matrices of each request; the first failure cancels the others."""
        room = asyncio.Semaphore(PARTS_PER_REPLICA * len(self._endpoints))

        async def score(part: Part) -> list[WinMatrix]:
            async with room:
                return await self._score(part, call)

        tasks = [asyncio.ensure_future(score(part)) for part in parts]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, question: Ask[Answer], call: Call) -> Answer:
        """The answer of whichever replica gives one, with retries."""
        attempts = Attempts(call, self.replicas)
        while True:
            turn = attempts.next()
            if not isinstance(turn, Turn):
                await asyncio.sleep(turn)
                continue
            try:
                answer = await self._put(question, turn, attempts)
            except Setback as setback:
                attempts.set_back(turn, setback.error, setback.pause)
            except DeadlineError as error:
                if not attempts.has_time():
                    raise attempts.ran_out(turn, error) from error.__cause__
                # It gave up by a limit of its own.
                attempts.set_back(turn, error)
            except BaseException:
                attempts.end(turn)
                raise
            else:
                attempts.answered(turn)
                return answer

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.close()

    async def _put(self, question: Ask[Answer], turn: Turn, attempts: Attempts) -> Answer:
        """One attempt, given up when the server shows no life."""
        wire, endpoint = self._transport(turn.replica), self._endpoints[turn.replica]

        async def attempt() -> Answer:
            if turn.unknown:
                self.replicas.identify(turn, await wire.bundle(timeout=attempts.remaining()))
            return await question(wire, endpoint, attempts.remaining())

        work = asyncio.ensure_future(attempt())
        try:
            while not (await asyncio.wait({work}, timeout=LOOK_EVERY_S))[0]:
                # With less time than that, silence says little, and the deadline ends the attempt.
                timeout = min(LOOK_S, attempts.remaining())
                if not await wire.live(timeout=timeout) and timeout == LOOK_S:
                    await self._drop(turn.replica, wire)
                    raise gone(endpoint)
            return work.result()
        finally:
            if not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def _drop(self, replica: int, wire: AsyncTransport) -> None:
        # Its connection may be one whose other end is no more: the next attempt needs a new one.
        if self._transports.get(replica) is wire:
            del self._transports[replica]
        await wire.close()

    async def _score(self, part: Part, call: Call) -> list[WinMatrix]:
        async def infer(wire: AsyncTransport, endpoint: Endpoint, timeout: float) -> list[WinMatrix]:
            return decoded(await wire.infer(tensors, timeout=timeout), part, endpoint)

        try:
            tensors = encoded(part)
            return await self.ask(infer, call)
        except Unfit as error:
            if len(part.groups) == 1:
                return [unjudged(error, part.groups[0])]
        return [matrix for half in halves(part) for matrix in await self._score(half, call)]

    def _transport(self, replica: int) -> AsyncTransport:
        if replica not in self._transports:
            self._transports[replica] = _transport(self._endpoints[replica], self._credentials)
        return self._transports[replica]


def _home() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()


def _transport(endpoint: Endpoint, credentials: Credentials) -> AsyncTransport:
    if endpoint.wire == "grpc":
        from prefrm.client._grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(endpoint, credentials)
    from prefrm.client._http import AsyncHttpTransport

    return AsyncHttpTransport(endpoint, credentials)
