"""The remote scorers: split groups into requests, send each with retries, put the matrices in order.

A scorer is its endpoint and its policy; connections are made at the first use and again in every process
and event loop it finds itself in. So it can be pickled and sent to workers, and it survives a fork.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from prefrm.client._endpoint import Endpoint
from prefrm.client._retry import Attempts, RetryPolicy
from prefrm.client._transport import AsyncTransport, Transport
from prefrm.errors import OverloadedError, ProtocolError, ServerUnavailableError
from prefrm.protocol import Part, Tensors, decode_matrices, encode_groups, partition, reassemble
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["AsyncRemoteScorer", "RemoteScorer"]

Answer = TypeVar("Answer")


class RemoteScorer:
    """A judge behind a URL; satisfies `prefrm.winmatrix.Scorer`. Made by `prefrm.client.connect`.

    Threads may share it: requests of different threads are scored together where they meet.
    """

    def __init__(self, endpoint: Endpoint, policy: RetryPolicy) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._lock = threading.Lock()
        self._transport: Transport | None = None
        self._pid = 0

    @property
    def url(self) -> str:
        """Where the judge is."""
        return self._endpoint.url

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; groups may differ in size.

        Raises:
            ServerUnavailableError: nobody answered, or the server was not ready, for `patience` seconds.
            OverloadedError: the server was full until the deadline.
            DeadlineError: the deadline passed.
            RequestError: the server refused the request; its message says why.
            ProtocolError: a group cannot be sent, or the answer is no win matrix.
            ScoringError: the server failed while it scored.
        """
        attempts = Attempts(self._policy)
        parts = partition(groups)
        return reassemble(parts, [self._score_part(part, attempts) for part in parts])

    def identity(self) -> str:
        """What tells this judge from another, wherever it is served: the digest of its bundle.

        Of a server that names no bundle, the URL. Raises as `score`.
        """
        found = self._retried(lambda wire, timeout: wire.bundle(timeout=timeout), Attempts(self._policy))
        return found or self.url

    def close(self) -> None:
        """Release the connections; scoring again would open new ones."""
        with self._lock:
            transport, self._transport = self._transport, None
            if transport is not None and self._pid == os.getpid():
                transport.close()

    def _score_part(self, part: Part, attempts: Attempts) -> list[WinMatrix]:
        tensors = encode_groups(part.groups)
        answer = self._retried(lambda wire, timeout: wire.infer(tensors, timeout=timeout), attempts)
        return _decoded(answer, part, self._endpoint)

    def _retried(self, ask: Callable[[Transport, float], Answer], attempts: Attempts) -> Answer:
        while True:
            try:
                answer = ask(self._connected(), attempts.remaining())
                attempts.answered()
                return answer
            except (ServerUnavailableError, OverloadedError) as error:
                time.sleep(attempts.delay_after(error))

    def _connected(self) -> Transport:
        with self._lock:
            if self._transport is None or self._pid != os.getpid():
                self._transport, self._pid = _transport(self._endpoint), os.getpid()
            return self._transport

    def __enter__(self) -> "RemoteScorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type["RemoteScorer"], tuple[Endpoint, RetryPolicy]]:
        return RemoteScorer, (self._endpoint, self._policy)

    def __repr__(self) -> str:
        return f"RemoteScorer({self.url!r})"


class AsyncRemoteScorer:
    """The asyncio form of `RemoteScorer`. Made by `prefrm.client.connect_async`.

    Tasks of one event loop may share it. In another event loop it opens new connections; close it in the
    loop that used it.
    """

    def __init__(self, endpoint: Endpoint, policy: RetryPolicy) -> None:
        self._endpoint = endpoint
        self._policy = policy
        self._transport: AsyncTransport | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None

    @property
    def url(self) -> str:
        """Where the judge is."""
        return self._endpoint.url

    async def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; groups may differ in size. Raises as `RemoteScorer.score`."""
        attempts = Attempts(self._policy)
        parts = partition(groups)
        return reassemble(parts, [await self._score_part(part, attempts) for part in parts])

    async def close(self) -> None:
        """Release the connections; scoring again would open new ones."""
        transport, self._transport = self._transport, None
        if transport is not None and self._home == _here():
            await transport.close()

    async def _score_part(self, part: Part, attempts: Attempts) -> list[WinMatrix]:
        tensors = encode_groups(part.groups)
        while True:
            try:
                answer = await self._connected().infer(tensors, timeout=attempts.remaining())
                attempts.answered()
                return _decoded(answer, part, self._endpoint)
            except (ServerUnavailableError, OverloadedError) as error:
                await asyncio.sleep(attempts.delay_after(error))

    def _connected(self) -> AsyncTransport:
        if self._transport is None or self._home != _here():
            self._transport, self._home = _async_transport(self._endpoint), _here()
        return self._transport

    async def __aenter__(self) -> "AsyncRemoteScorer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> tuple[type["AsyncRemoteScorer"], tuple[Endpoint, RetryPolicy]]:
        return AsyncRemoteScorer, (self._endpoint, self._policy)

    def __repr__(self) -> str:
        return f"AsyncRemoteScorer({self.url!r})"


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()


# The wires are imported when one is first used, so that `import prefrm.client` stays quick.
def _transport(endpoint: Endpoint) -> Transport:
    if endpoint.wire == "grpc":
        from prefrm.client._grpc import GrpcTransport

        return GrpcTransport(endpoint)
    from prefrm.client._http import HttpTransport

    return HttpTransport(endpoint)


def _async_transport(endpoint: Endpoint) -> AsyncTransport:
    if endpoint.wire == "grpc":
        from prefrm.client._grpc import AsyncGrpcTransport

        return AsyncGrpcTransport(endpoint)
    from prefrm.client._http import AsyncHttpTransport

    return AsyncHttpTransport(endpoint)


def _decoded(answer: Tensors, part: Part, endpoint: Endpoint) -> list[WinMatrix]:
    try:
        return decode_matrices(answer, count=len(part.groups), size=part.groups[0].size)
    except ProtocolError as error:
        raise ProtocolError(f"{endpoint.url}: {error}") from error
