"""The core of the remote scorers: groups split into requests, each sent with retries, and their matrices.

A wire is imported when it is first used, so that `import prefrm.client` stays quick.
"""

import asyncio
import math
import os
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._policy import Attempts, Call, Replicas, RetryPolicy, Turn
from prefrm.client._transport import Failure, TooLarge, Transport, Unfit, Wire
from prefrm.errors import DeadlineError, ProtocolError, ScoringError
from prefrm.protocol import (
    MAX_REQUEST_GROUPS,
    Part,
    Tensors,
    decode_matrices,
    encode_groups,
    partition,
    reassemble,
)
from prefrm.winmatrix import EVERYTHING, Group, Inputs, WinMatrix, with_refusals

__all__ = ["PARTS_PER_REPLICA", "Connected", "Connections", "home"]

Answer = TypeVar("Answer")
AnyWire = TypeVar("AnyWire", bound=Wire)

# Requests of one call that a replica has at a time: one to compute, one to have ready.
PARTS_PER_REPLICA = 2
# A request that takes longer is watched: so often the server is asked for a sign of life, and for so long. A
# machine that loses its power is silent, which looks like work. Keepalive of the wires is no substitute: a
# stock Triton refuses a client that pings more often than every five minutes, and the kernel answers TCP's
# keepalive for a process that is frozen.
LOOK_EVERY_S = 10.0
LOOK_S = 10.0
# Characters of a candidate's error that are kept.
LONGEST_ERROR = 2000

# Messages of OpenSSL, gRPC and the HTTP parser about a port that speaks another protocol.
_HINTS = {
    "Expected HTTP/": "; is this the gRPC port?",
    "before receiving SETTINGS frame": "; is this a gRPC port, and is it encrypted?",
    "WRONG_VERSION_NUMBER": "; is this port encrypted?",
}


def home() -> tuple[int, asyncio.AbstractEventLoop]:
    """The process and the event loop, to which connections belong."""
    return os.getpid(), asyncio.get_running_loop()


class Connected(Generic[AnyWire]):
    """The wires of one event loop, and the state of the replicas as it has seen it.

    Args:
        endpoints: of the replicas.
        policy: of each call.
        credentials: of each wire.
        open_wire: connects to one replica.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        policy: RetryPolicy,
        credentials: Credentials,
        open_wire: Callable[[Endpoint, Credentials], AnyWire],
    ) -> None:
        self.home = home()
        self._replicas = Replicas([endpoint.url for endpoint in endpoints])
        self._endpoints, self._policy, self._credentials = endpoints, policy, credentials
        self._open = open_wire
        self._transports: dict[int, AnyWire] = {}

    async def bundle(self) -> str | None:
        """The digest of the bundle that the replicas serve, or None if they name none."""
        return await self.ask(self._bundle, Call(self._policy))

    async def close(self) -> None:
        """Close every transport."""
        for transport in self._transports.values():
            await transport.close()

    async def ask(self, question: Callable[[AnyWire], Coroutine[Any, Any, Answer]], call: Call) -> Answer:
        """The answer of whichever replica gives one, with retries."""
        attempts = Attempts(call, self._replicas)
        while True:
            turn = attempts.next()
            if not isinstance(turn, Turn):
                await asyncio.sleep(turn)
                continue
            try:
                answer = await self._attempt(question, turn, call.left())
            except (Failure, ProtocolError, TimeoutError) as failure:
                error = self._error(failure, turn.replica, call)
                final = attempts.failed(turn, error, getattr(failure, "pause", None))
                try:
                    if final is not None:
                        raise final from failure
                finally:
                    # Its traceback refers to this frame, and would keep the images until a collection.
                    del error, final
            except BaseException:
                self._replicas.release(turn)
                raise
            else:
                attempts.answered(turn)
                return answer

    async def _attempt(
        self, question: Callable[[AnyWire], Coroutine[Any, Any, Answer]], turn: Turn, seconds: float
    ) -> Answer:
        """One attempt, given up at the deadline or when the server shows no sign of life."""
        wire = self._transport(turn.replica)

        async def ask() -> Answer:
            if turn.unknown:
                self._replicas.identify(turn, await self._bundle(wire))
            return await question(wire)

        asking = asyncio.ensure_future(ask())
        try:
            async with asyncio.timeout(seconds):
                while not (await asyncio.wait([asking], timeout=LOOK_EVERY_S))[0]:
                    if not await _alive(wire) and not asking.done():
                        await self._drop(turn.replica, wire)
                        lost = f"no sign of life for {LOOK_S:g} s while it was waited for"
                        raise Failure("UNAVAILABLE", lost)
                return asking.result()
        except BaseException:
            asking.cancel()
            # Its end may be another failure, which asyncio would log if nobody took it.
            await asyncio.gather(asking, return_exceptions=True)
            raise
        finally:
            # As above: its error's traceback refers to this frame.
            del asking

    async def _drop(self, replica: int, wire: AnyWire) -> None:
        """Close a transport whose other end may no longer exist; the next attempt opens another."""
        if self._transports.get(replica) is wire:
            del self._transports[replica]
        await wire.close()

    async def _bundle(self, wire: AnyWire) -> str | None:
        try:
            name = await wire.bundle()
        except Failure as failure:
            if failure.code != "UNIMPLEMENTED":
                raise
            return None
        return self._credentials.quoted(name) if name else None

    def _transport(self, replica: int) -> AnyWire:
        if replica not in self._transports:
            self._transports[replica] = self._open(self._endpoints[replica], self._credentials)
        return self._transports[replica]

    def _error(self, failure: Exception, replica: int, call: Call) -> ScoringError:
        """A failed attempt as its caller sees it."""
        url, reason = self._endpoints[replica].url, self._credentials.quoted(failure)
        if isinstance(failure, Failure):
            hints = "".join(hint for words, hint in _HINTS.items() if words in str(failure))
            # A server that is told the timeout may be the first to notice.
            if failure.kind is DeadlineError and not call.may_wait(0.0, silence=False):
                hints += f"; {call.policy.exceeded}"
            return failure.kind(f"{url} {failure.said}: {reason}{hints}")
        if isinstance(failure, ProtocolError):
            return ProtocolError(f"{url} sent an answer that cannot be read: {reason}")
        return DeadlineError(f"{url} timed out: {call.policy.exceeded}")


class Connections(Connected[Transport]):
    """The connections to servers of the Open Inference Protocol."""

    def __init__(self, endpoints: Sequence[Endpoint], policy: RetryPolicy, credentials: Credentials) -> None:
        super().__init__(endpoints, policy, credentials, _open)
        self._inputs: Inputs | None = None

    async def inputs(self, call: Call | None = None) -> Inputs:
        """What the replicas' judge reads; asked once, since another judge would have another bundle."""
        if self._inputs is None:
            self._inputs = await self.ask(_inputs, call or Call(self._policy))
        return self._inputs

    async def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; the first failure cancels the requests under way.

        A group that the judge does not read is not sent: another server might refuse its whole request.
        """
        call = Call(self._policy)
        inputs = await self.inputs(call) if any(map(Inputs().refusal, groups)) else EVERYTHING
        refusals = [inputs.refusal(group) for group in groups]
        accepted = [group for group, refusal in zip(groups, refusals, strict=True) if not refusal]
        return with_refusals(groups, refusals, await self._accepted(accepted, call))

    async def _accepted(self, groups: Sequence[Group], call: Call) -> list[WinMatrix]:
        share = math.ceil(len(groups) / max(1, len(self._replicas.awake())))
        parts = partition(groups, max_groups=min(MAX_REQUEST_GROUPS, max(1, share)))
        if len(parts) == 1:
            return reassemble(parts, [await self._score(parts[0], call)])
        room = asyncio.Semaphore(PARTS_PER_REPLICA * len(self._endpoints))

        async def score(part: Part) -> list[WinMatrix]:
            async with room:
                return await self._score(part, call)

        tasks = [asyncio.ensure_future(score(part)) for part in parts]
        try:
            return reassemble(parts, await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _score(self, part: Part, call: Call) -> list[WinMatrix]:
        """The matrices of one request, which is halved until each part is accepted or is a single group."""

        async def infer(wire: Transport) -> list[WinMatrix]:
            answer = await wire.infer(tensors, timeout=call.left())
            return decode_matrices(answer, count=len(part.groups), size=part.groups[0].size)

        try:
            tensors = _encoded(part)
            return [self._printable(matrix) for matrix in await self.ask(infer, call)]
        except Unfit as error:
            if len(part.groups) == 1:
                return [_unjudged(error, part.groups[0])]
        return [matrix for half in part.halves() for matrix in await self._score(half, call)]

    def _printable(self, matrix: WinMatrix) -> WinMatrix:
        """The matrix with errors that may be shown on a terminal."""
        shown = tuple(error and self._credentials.quoted(error, LONGEST_ERROR) for error in matrix.errors)
        return matrix if shown == matrix.errors else replace(matrix, errors=shown)


async def _inputs(wire: Transport) -> Inputs:
    try:
        return await wire.inputs()
    except Failure as failure:
        if failure.code != "UNIMPLEMENTED":
            raise
        return EVERYTHING


async def _alive(wire: Wire) -> bool:
    """Whether the server answers in time; a refusal is an answer."""
    try:
        async with asyncio.timeout(LOOK_S):
            await wire.live()
    except Failure as failure:
        return failure.code not in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED")
    except (TimeoutError, ProtocolError) as error:
        return isinstance(error, ProtocolError)
    return True


def _open(endpoint: Endpoint, credentials: Credentials) -> Transport:
    if endpoint.wire == "grpc":
        from prefrm.client._grpc import GrpcTransport

        return GrpcTransport(endpoint, credentials)
    from prefrm.client._http import HttpTransport

    return HttpTransport(endpoint, credentials)


def _encoded(part: Part) -> Tensors:
    """The input tensors of a request. Raises `Unfit` if no request can carry one of its groups."""
    try:
        return encode_groups(part.groups)
    except ProtocolError as error:
        raise Unfit(str(error)) from error


def _unjudged(error: Unfit, group: Group) -> WinMatrix:
    """The matrix of a single group that cannot be sent or is not accepted."""
    reason = str(error)
    if isinstance(error, TooLarge):
        reason += (
            f"; the group of {group.size} candidates has {group.content_bytes:,} bytes of content; send "
            "smaller or fewer candidates, or raise the server's limit"
        )
    return WinMatrix.missing([reason] * group.size)
