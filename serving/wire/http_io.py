"""What every route of the HTTP wire does: lease bytes, read the body, and notice that the client left."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from serving.errors import ClientGoneError, SlowBodyError, TooLargeError
from serving.inflight import InFlightBytes, Lease
from serving.limits import Limits
from serving.steps import Steps, finish, in_steps
from serving.wire.compression import decompress

__all__ = ["Leasing", "lease_of", "read_body", "translated", "unless_gone"]

Answer = TypeVar("Answer")
T = TypeVar("T")

# So many bytes are read or written at once, in less time than the way to another thread and back takes.
SMALL_BYTES = 2**13
# The key of a request's lease in its ASGI scope.
LEASE = "prefrm.lease"


class Leasing:
    """ASGI middleware: a request has a lease of bytes in flight until its answer is sent.

    Args:
        app: the application.
        budget: of the server.
    """

    def __init__(self, app: Any, budget: InFlightBytes) -> None:
        self._app, self._budget = app, budget

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request, as ASGI has it."""
        with self._budget.lease() as lease:
            await self._app({**scope, LEASE: lease}, receive, send)


def lease_of(request: Request) -> Lease:
    """The lease that `Leasing` gave the request."""
    lease: Lease = request.scope[LEASE]
    return lease


async def read_body(request: Request, limits: Limits) -> bytes | bytearray:
    """The body behind its Content-Encoding. The request's lease holds its bytes afterwards.

    Args:
        request: whose body was not yet read.
        limits: of one request.

    Raises:
        TooLargeError: it has more than `limits.request_bytes`, compressed or not.
        OverloadedError: the server has no room for it now.
        SlowBodyError: it did not come within `limits.deadline_s`.
        InvalidRequestError: it cannot be decompressed.
        ClientGoneError: the client left while it was sending.
    """
    limit, lease = limits.request_bytes, lease_of(request)
    if (length := request.headers.get("content-length")) is not None:
        _check_size(int(length), limit)
        lease.check(int(length))
    try:
        async with asyncio.timeout(limits.deadline_s):
            body = await _received(request, limit, lease)
    except TimeoutError as error:
        raise SlowBodyError(f"the request's body did not come within {limits.deadline_s:g} s") from error
    if not (encoding := request.headers.get("content-encoding", "").strip().lower()):
        return body
    content = await in_steps(decompress(body, encoding, limit=limit, lease=lease))
    lease.keep(len(content))
    return content


async def translated(work: Steps[T], size: int) -> T:
    """What is read from or written to `size` bytes: at once if they are few, else beside the event loop."""
    return finish(work) if size <= SMALL_BYTES else await in_steps(work)


async def unless_gone(request: Request, answer: Awaitable[Answer]) -> Answer:
    """The answer, unless the client hangs up first; then the work is cancelled."""
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGoneError("the client left before the answer was ready")
        return work.result()
    finally:
        work.cancel()
        gone.cancel()


async def _received(request: Request, limit: int, lease: Lease) -> bytearray:
    body = bytearray()
    try:
        async for chunk in request.stream():
            _check_size(len(body) + len(chunk), limit)
            lease.add(len(chunk))
            body += chunk
    except ClientDisconnect as error:
        raise ClientGoneError("the client left while it was sending") from error
    return body


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise TooLargeError(f"the request has {size} bytes or more; the limit is {limit}")


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
