"""One HTTP/1.1 connection: uvicorn's protocol over h11, with bounds on what a client may send and how slowly.

- The head of a request comes within `header_s`; `serving.wire.http_parser` bounds what it may be.
- The event loop parses a few pieces of one connection before it serves the others.
- An answer is sent no faster than its client reads it, and cut off if the client stops reading.
- A connection ends in a lingering close: what the client still sends is dropped unparsed, so that it reads
  the answer instead of a reset.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.wire.http_parser import EVENTS_PER_TURN, StrictConnection

__all__ = ["HttpProtocol"]

# A response is sent in pieces of this many bytes, each of which its client takes within this many seconds.
PIECE_BYTES = 2**16
READ_S = 30.0
# Of one port; further ones are closed at once. With gRPC's 512, the process stays within the 1024 file
# descriptors that it has by default.
CONNECTIONS = 384
# A client that still sends after its answer has so long to notice; meanwhile this much is read and dropped.
LINGER_S = 5.0
LINGER_BYTES_PER_S = 2**26
SHOWN_CHARACTERS = 200


class HttpProtocol(H11Protocol):
    """One connection.

    Args:
        header_s: as `serving.limits.Limits` has it.
        arguments: those of uvicorn's protocol.
    """

    conn: StrictConnection

    def __init__(self, *, header_s: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.conn = StrictConnection()
        self._header_s = header_s
        self._application, self.app = self.app, self._answer
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self.is_behind = False
        self.is_lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request's head, or close a connection too many."""
        self._wire = transport
        super().connection_made(_Lingering(transport, self))  # type: ignore[arg-type]
        if len(self.connections) > CONNECTIONS:
            self.is_lingering = True
            self._abort()
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all timers."""
        self.is_lingering = True
        super().connection_lost(exc)
        for timer in (self._head_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, or drop them after the connection's last answer."""
        if not self.is_lingering:
            super().data_received(data)
        elif self._wire is not None and not self._wire.is_closing():
            self._wire.pause_reading()
            self.loop.call_later(len(data) / LINGER_BYTES_PER_S, self._drop_more)

    def handle_events(self) -> None:
        """Parse some of what was received; the rest in later turns of the event loop, with reading paused."""
        if self.is_lingering:
            return
        assert self._wire is not None
        self.conn.events_left = EVENTS_PER_TURN
        super().handle_events()
        was_behind, self.is_behind = self.is_behind, self.conn.events_left < 0
        if self.is_behind:
            self._wire.pause_reading()
            self.loop.call_soon(self.handle_events)
        elif was_behind and not self.flow.read_paused:
            self._wire.resume_reading()
        self._watch_head()

    def send_400_response(self, msg: str) -> None:
        """Refuse what uvicorn calls invalid, with the parser's reason."""
        refusal = self.conn.refusal
        assert refusal is not None
        self._refuse(
            refusal.error_status_hint, f"the request is not valid HTTP: {refusal}"[:SHOWN_CHARACTERS]
        )

    def shutdown(self) -> None:
        """End the connection, once its response is complete."""
        if self.is_lingering:
            self._abort()
        else:
            super().shutdown()

    def linger(self) -> None:
        """Close once the client has read the answer, or has had its time to do so."""
        assert self._wire is not None
        if self.is_lingering:
            return
        self.is_lingering = True
        if self._has_all():
            self._wire.close()
        else:
            if self._wire.can_write_eof():
                self._wire.write_eof()
            self._wire.resume_reading()
        self._linger_on(None)

    def _has_all(self) -> bool:
        """Whether the client has no part of a request left to send."""
        state = self.conn.their_state
        if state is h11.IDLE:
            return not self.conn.trailing_data[0]
        return self.conn.refusal is None and state not in (h11.SEND_BODY, h11.ERROR)

    def _drop_more(self) -> None:
        if self._wire is not None and not self._wire.is_closing():
            self._wire.resume_reading()

    def _linger_on(self, unsent_before: int | None) -> None:
        # An answer that is still being read keeps its connection.
        assert self._wire is not None
        unsent = self._wire.get_write_buffer_size()
        if unsent_before is not None and (not unsent or unsent >= unsent_before):
            self._abort()
        else:
            self._linger_timer = self.loop.call_later(LINGER_S, self._linger_on, unsent)

    def _abort(self) -> None:
        assert self._wire is not None
        self._wire.abort()

    def _watch_head(self) -> None:
        if self._awaits_head() and not self.is_lingering:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self._header_s, self._on_late_head)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _awaits_head(self) -> bool:
        # Between two requests, the time limit of idle connections holds instead.
        is_idle = self.conn.their_state is h11.IDLE
        return is_idle and (self.cycle is None or bool(self.conn.trailing_data[0]))

    def _on_late_head(self) -> None:
        if self.conn.trailing_data[0]:
            self._refuse(408, f"the request's header fields did not come within {self._header_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = json.dumps({"error": message}).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                CLOSE_HEADER,
            ]
            reason = HTTPStatus(status).phrase.encode()
            for event in (
                h11.Response(status_code=status, headers=headers, reason=reason),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._disconnect()
        self.transport.close()

    def _disconnect(self) -> None:
        """Let the application know that nobody reads its answer."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    async def _answer(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """The application, whose answer ends the connection if it comes before the request's end."""

        async def announce(message: Any) -> None:
            if message["type"] == "http.response.start" and self.conn.their_state is h11.SEND_BODY:
                message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
            for piece in _pieces(message):
                await self._room()
                await send(piece)

        await self._application(scope, receive, announce)

    async def _room(self) -> None:
        """Wait until the client has read most of what was sent, and cut it off if that takes too long."""
        if not self.flow.write_paused:
            return
        try:
            async with asyncio.timeout(READ_S):
                await self.flow.drain()
        except TimeoutError:
            self._disconnect()
            self._abort()


def _pieces(message: Any) -> Iterator[Any]:
    """The messages of a response's start or of parts of its body, each of at most `PIECE_BYTES`."""
    body, more = message.get("body", b""), message.get("more_body", False)
    if len(body) <= PIECE_BYTES:
        yield message
        return
    for end in range(PIECE_BYTES, len(body) + PIECE_BYTES, PIECE_BYTES):
        piece = body[end - PIECE_BYTES : end]
        yield {"type": message["type"], "body": piece, "more_body": more or end < len(body)}


class _Lingering:
    """A transport that lingers before it closes, and stays paused while its protocol is behind."""

    def __init__(self, transport: asyncio.Transport, protocol: HttpProtocol) -> None:
        self._transport, self._protocol = transport, protocol

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._protocol.linger()

    def is_closing(self) -> bool:
        return self._protocol.is_lingering or self._transport.is_closing()

    def resume_reading(self) -> None:
        if not self._protocol.is_behind:
            self._transport.resume_reading()
