"""Reading of gRPC messages before a method sees them: malformed, missing and late ones end in a clear status.

Left to gRPC, a malformed message would end in UNKNOWN, and a call whose message never arrives would wait for
ever. A message of nothing but tiny fields would take a hundred times its own size once it is parsed, so the
fields of a large one are counted first.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

__all__ = ["UNREADABLE", "UNREADABLE_MESSAGE", "CarefulRegistrar", "count_fields"]

UNREADABLE = object()
"""What a method that reads a stream gets in the place of a message that cannot be parsed."""

# The largest request has an element for each image of each group; a small message cannot do harm.
MOST_FIELDS = 100_000
SMALL_BYTES = 2**16
UNREADABLE_MESSAGE = f"the message is none that this method takes, or has over {MOST_FIELDS} fields"

# https://protobuf.dev/programming-guides/encoding
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_UNPACKED = frozenset({FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES})


class CarefulRegistrar:
    """A server for the generated functions that add a servicer to one.

    A method of one request ends in INVALID_ARGUMENT if the request cannot be parsed, and in
    DEADLINE_EXCEEDED if it has not arrived in time.

    Args:
        server: of `grpc.aio`.
        deadline_s: seconds from the beginning of a call until its request must have arrived.
    """

    def __init__(self, server: Any, deadline_s: float) -> None:
        self._server = server
        self._deadline_s = deadline_s

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add them, each of their methods with that done to it."""
        careful = tuple(_CarefulHandlers(handler, self._deadline_s) for handler in handlers)
        self._server.add_generic_rpc_handlers(careful)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """The same, where a server knows its methods by name."""
        careful = {name: _careful(handler, self._deadline_s) for name, handler in handlers.items()}
        self._server.add_registered_method_handlers(service, careful)


class _CarefulHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, inner: grpc.GenericRpcHandler, deadline_s: float) -> None:
        self._inner = inner
        self._deadline_s = deadline_s
        self._known: dict[str, Any] = {}

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method
        if method not in self._known:
            handler = self._inner.service(handler_call_details)
            # What is no method is not kept: there is no end to their names.
            if handler is None:
                return None
            self._known[method] = _careful(handler, self._deadline_s)
        return self._known[method]


def count_fields(data: bytes, message: Descriptor, most: int) -> int:
    """How many fields a serialized message has, those of the messages in it and packed numbers included.

    Stops counting beyond `most`. What is malformed counts up to there.
    """
    view = memoryview(data)
    # Ranges that are still to be read, each with what it is.
    todo, count = [(0, len(view), message)], 0
    while todo and count <= most:
        at, end, kind = todo.pop()
        # A parser reads what stands before a mistake, so the ranges that are left count all the same.
        with suppress(IndexError):
            while at < end and count <= most:
                at, length, inner, packed = _field(view, at, kind)
                count += 1 + packed
                if inner is not None:
                    todo.append((at, min(at + length, end), inner))
                at += length
    return count


def _field(view: memoryview, at: int, kind: Descriptor) -> tuple[int, int, Descriptor | None, int]:
    """Where a field's content starts, its length, the message that it is if it is one, and packed numbers."""
    tag, at = _varint(view, at)
    wire = tag & 7
    if wire != LENGTH:
        end = _varint(view, at)[1] if wire == VARINT else at + {FIXED64: 8, FIXED32: 4}.get(wire, 0)
        return end, 0, None, 0
    length, at = _varint(view, at)
    field = kind.fields_by_number.get(tag >> 3)
    if field is None or field.type in _UNPACKED:
        return at, length, None, 0
    inner: Descriptor | None = field.message_type
    return at, length, inner, 0 if inner is not None else length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends. Raises `IndexError` if it does not."""
    value = shift = 0
    while shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise IndexError("the number is too long")


def _careful(handler: Any, deadline_s: float) -> Any:
    handler = handler._replace(request_deserializer=_careful_parser(handler.request_deserializer))
    # A method of one request becomes one of a stream: gRPC waits for a single request without a time limit.
    for kind in ("unary", "stream"):
        if (method := getattr(handler, f"unary_{kind}")) is not None:
            reading = {f"unary_{kind}": None, f"stream_{kind}": _reading(method, deadline_s)}
            handler = handler._replace(request_streaming=True, **reading)
    return handler


def _careful_parser(parse: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    # A generated class's FromString, whose `__self__` is the class.
    descriptor: Descriptor | None = getattr(getattr(parse, "__self__", None), "DESCRIPTOR", None)

    def attempt(data: bytes) -> Any:
        large = descriptor is not None and len(data) > SMALL_BYTES
        if large and count_fields(data, descriptor, MOST_FIELDS) > MOST_FIELDS:
            return UNREADABLE
        try:
            return parse(data)
        except DecodeError:
            return UNREADABLE

    return attempt


def _reading(
    method: Callable[[Any, Any], Awaitable[Any]], deadline_s: float
) -> Callable[..., Awaitable[Any]]:
    async def call(requests: AsyncIterator[Any], context: Any) -> Any:
        try:
            async with asyncio.timeout(deadline_s):
                # A client that ends its stream without a request gets what one with a malformed request does.
                request = await anext(requests, UNREADABLE)
        except TimeoutError:
            message = f"the request did not arrive within {deadline_s:g} s"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, message)
        if request is UNREADABLE:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, UNREADABLE_MESSAGE)
        return await method(request, context)

    return call
