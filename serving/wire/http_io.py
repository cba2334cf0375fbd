"""What every route of the HTTP wire does with a request: read its body, and notice that the client left."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from serving.errors import ClientGoneError, SlowBodyError, TooLargeError
from serving.limits import Limits
from serving.wire.http_codec import decompress

__all__ = ["read_body", "unless_gone"]

Answer = TypeVar("Answer")

# Of a body that is too large, what is read and dropped at most: so many times the limit, and at least this.
DROPPED_TIMES, DROPPED_BYTES = 4, 2**24


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body behind its Content-Encoding.

    Raises:
        TooLargeError: it has more than `limits.request_bytes`, compressed or not.
        SlowBodyError: it did not come within `limits.deadline_s`.
        InvalidRequestError: it cannot be decompressed.
        ClientGoneError: the client left while it was sending.
    """
    limit = limits.request_bytes
    try:
        async with asyncio.timeout(limits.deadline_s):
            body = await _received(request, limit)
    except TimeoutError as error:
        raise SlowBodyError(f"the request's body did not come within {limits.deadline_s:g} s") from error
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return await asyncio.to_thread(decompress, body, encoding, limit=limit) if encoding else body


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


async def _received(request: Request, limit: int) -> bytes:
    # What is too large is still read, and dropped: a client that is cut off while it sends sees a broken
    # connection instead of the reason.
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size <= limit:
                chunks.append(chunk)
            elif size - limit > max(DROPPED_TIMES * limit, DROPPED_BYTES):
                break
            else:
                chunks.clear()
    except ClientDisconnect as error:
        raise ClientGoneError("the client left while it was sending") from error
    if size > limit:
        raise TooLargeError(f"the request has {size} bytes; the limit is {limit}")
    return b"".join(chunks)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
