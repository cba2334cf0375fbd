"""The remote scorer: split groups into requests, send each with retries, put the matrices in order.

A scorer is its endpoints, credentials and policy; connections are made at the first use and again in every
process it finds itself in. So it can be pickled and sent to workers, and it survives a fork.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TypeVar

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint, joint_url
from prefrm.client._parts import PARTS_PER_REPLICA, decoded, encoded, halves, listed, shared_out, unjudged
from prefrm.client._replicas import Replicas, Turn
from prefrm.client._retry import Attempts, Call, RetryPolicy
from prefrm.client._threads import side_by_side, watched
from prefrm.client._transport import LOOK_EVERY_S, LOOK_S, Setback, Transport, Unfit, gone
from prefrm.errors import DeadlineError
from prefrm.protocol import Part, reassemble
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["RemoteScorer"]

Answer = TypeVar("Answer")
Sleep = Callable[[float], object]
Ask = Callable[[Transport, Endpoint, float], Answer]


class RemoteScorer:
    """A judge behind a URL; satisfies `prefrm.winmatrix.Scorer`. Made by `prefrm.client.connect`.

    Threads may share it: requests of different threads are scored together where they meet.
    """

    def __init__(self, endpoints: Sequence[Endpoint], policy: RetryPolicy, credentials: Credentials) -> None:
        self._endpoints = tuple(endpoints)
        self._policy = policy
        self._credentials = credentials
        self._lock = threading.Lock()
        self._connections: _Connections | None = None

    @property
    def url(self) -> str:
        """Where the judge is."""
        return joint_url(self._endpoints)

    @property
    def concurrency(self) -> int:
        """How many calls at once keep every replica busy: one is computed and the next is ready."""
        return PARTS_PER_REPLICA * len(self._endpoints)

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; groups may differ in size.

        In a group that cannot be sent, or that the server does not take, nothing is judged: its matrix holds
        the reason in `errors`, and the other groups are judged.

        Raises:
            ServerUnavailableError: nobody answered, or no server was ready, for `patience` seconds.
            OverloadedError: every server was full until the deadline.
            DeadlineError: the deadline passed.
            RequestError: a server refused the request as such: no right to it, an unknown model.
            RecordError: the argument is not a list of groups.
            ProtocolError: the answer is not a valid win matrix.
            ScoringError: a server failed while it scored.
            ConfigError: the replicas serve different judges, or one serves another judge than before.
        """
        found = listed(groups)
        call = Call(self._policy)
        here = self._connected()
        parts = shared_out(found, here.replicas.awake())
        if len(parts) == 1:
            return reassemble(parts, [here.score(parts[0], call, time.sleep)])

        def score(part: Part, over: threading.Event) -> list[WinMatrix]:
            return here.score(part, call, over.wait)

        return reassemble(parts, side_by_side(score, parts, at_once=self.concurrency))

    def identity(self) -> str:
        """What tells this judge from another, wherever it is served: the digest of its bundle.

        Of a server that names no bundle, the URL. Raises as `score`.
        """

        def bundle(wire: Transport, endpoint: Endpoint, timeout: float) -> str | None:
            return wire.bundle(timeout=timeout)

        return self._connected().ask(bundle, Call(self._policy), time.sleep) or self.url

    def close(self) -> None:
        """Release the connections; scoring again would open new ones, and forget what was seen before."""
        with self._lock:
            here, self._connections = self._connections, None
            if here is not None and here.pid == os.getpid():
                here.close()

    def _connected(self) -> "_Connections":
        with self._lock:
            if self._connections is None or self._connections.pid != os.getpid():
                self._connections = _Connections(self._endpoints, self._credentials)
            return self._connections

    def __enter__(self) -> "RemoteScorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(
        self,
    ) -> tuple[type["RemoteScorer"], tuple[tuple[Endpoint, ...], RetryPolicy, Credentials]]:
        return RemoteScorer, (self._endpoints, self._policy, self._credentials)

    def __repr__(self) -> str:
        return f"RemoteScorer({self.url!r})"


class _Connections:
    """What one process has opened, and seen of the replicas."""

    def __init__(self, endpoints: Sequence[Endpoint], credentials: Credentials) -> None:
        self.pid = os.getpid()
        self.replicas = Replicas([endpoint.url for endpoint in endpoints])
        self._endpoints = endpoints
        self._credentials = credentials
        self._lock = threading.Lock()
        self._transports: dict[int, Transport] = {}

    def score(self, part: Part, call: Call, sleep: Sleep) -> list[WinMatrix]:
        """The matrices of one request, which is halved until each part is taken or is a single group."""

        def infer(wire: Transport, endpoint: Endpoint, timeout: float) -> list[WinMatrix]:
            return decoded(wire.infer(tensors, timeout=timeout), part, endpoint)

        try:
            tensors = encoded(part)
            return self.ask(infer, call, sleep)
        except Unfit as error:
            if len(part.groups) == 1:
                return [unjudged(error, part.groups[0])]
        return [matrix for half in halves(part) for matrix in self.score(half, call, sleep)]

    def ask(self, question: Ask[Answer], call: Call, sleep: Sleep) -> Answer:
        """The answer of whichever replica gives one, with retries."""
        attempts = Attempts(call, self.replicas)
        while True:
            turn = attempts.next()
            if not isinstance(turn, Turn):
                sleep(turn)
                continue
            try:
                answer = self._put(question, turn, attempts)
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

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()

    def _put(self, question: Ask[Answer], turn: Turn, attempts: Attempts) -> Answer:
        """One attempt, given up when the server shows no life."""
        wire, endpoint = self._transport(turn.replica), self._endpoints[turn.replica]

        def attempt() -> Answer:
            if turn.unknown:
                self.replicas.identify(turn, wire.bundle(timeout=attempts.remaining()))
            return question(wire, endpoint, attempts.remaining())

        def look() -> None:
            # With less time than that, silence says little, and the deadline ends the attempt.
            timeout = min(LOOK_S, attempts.remaining())
            if not wire.live(timeout=timeout) and timeout == LOOK_S:
                self._drop(turn.replica, wire)
                raise gone(endpoint)

        return watched(attempt, look, every=LOOK_EVERY_S)

    def _drop(self, replica: int, wire: Transport) -> None:
        # Its connection may be one whose other end is no more: the next attempt needs a new one.
        with self._lock:
            if self._transports.get(replica) is wire:
                del self._transports[replica]
        wire.close()

    def _transport(self, replica: int) -> Transport:
        with self._lock:
            if replica not in self._transports:
                self._transports[replica] = _transport(self._endpoints[replica], self._credentials)
            return self._transports[replica]


# The wires are imported when one is first used, so that `import prefrm.client` stays quick.
def _transport(endpoint: Endpoint, credentials: Credentials) -> Transport:
    if endpoint.wire == "grpc":
        from prefrm.client._grpc import GrpcTransport

        return GrpcTransport(endpoint, credentials)
    from prefrm.client._http import HttpTransport

    return HttpTransport(endpoint, credentials)
