"""One HTTP/1.1 connection: uvicorn's protocol over h11, with bounds on what a client may send and how slowly.

- The head of a request comes within `header_s`, and has at most `MAX_HEAD_BYTES` and `MAX_FIELDS`.
- A request is delimited in one unambiguous way (RFC 9112, sections 2.2, 5.1, 5.2, 6.1 and 6.3), or refused.
- The event loop parses at most `EVENTS_PER_TURN` pieces of one connection before it serves the others.
- A connection ends in a lingering close: what the client still sends is dropped unparsed, so that it reads
  the answer instead of a reset.
"""

import asyncio
import json
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HttpProtocol"]

MAX_HEAD_BYTES = 2**15
# Header fields of a request or its trailer section; h11 takes tens of microseconds for each.
MAX_FIELDS = 100
# Chunks of a body, and events of one connection between two turns of the loop: likewise.
FREE_CHUNKS, LEAST_CHUNK_BYTES = 1000, 64
EVENTS_PER_TURN = 8
# A client that still sends after its answer has so long to notice; meanwhile this much is read and dropped.
LINGER_S = 5.0
LINGER_BYTES_PER_S = 2**26
SHOWN_CHARACTERS = 200

SECTION_END = re.compile(rb"\n\r?\n")
BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
FOLDED_LINE = re.compile(rb"\n[ \t]")
DELIMITERS = (b"content-length", b"transfer-encoding")
# What precedes the trailer section: the unread rest of the line end after a chunk, and the last chunk.
LAST_CHUNK = re.compile(rb"\r?\n?0+[ \t]*(?:;[^\n]*)?\r\n")


class HttpProtocol(H11Protocol):
    """One connection.

    Args:
        header_s: as `serving.limits.Limits` has it.
        arguments: those of uvicorn's protocol.
    """

    conn: "_StrictConnection"

    def __init__(self, *, header_s: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.conn = _StrictConnection()
        self._header_s = header_s
        self._application, self.app = self.app, self._answer
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self._wire: asyncio.Transport | None = None
        self.is_behind = False
        self.is_lingering = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request's head."""
        self._wire = transport
        super().connection_made(_Lingering(transport, self))  # type: ignore[arg-type]
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
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()

    async def _answer(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """The application, whose answer ends the connection if it comes before the request's end."""

        async def announce(message: Any) -> None:
            if message["type"] == "http.response.start" and self.conn.their_state is h11.SEND_BODY:
                message = {**message, "headers": [*message.get("headers", ()), CLOSE_HEADER]}
            await send(message)

        await self._application(scope, receive, announce)


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


class _StrictConnection(h11.Connection):
    """h11's parser, which refuses ambiguous requests and those that take much work for few bytes.

    Attributes:
        events_left: of this turn; negative once an event was held back.
        refusal: why the request is refused, once it is.
    """

    def __init__(self) -> None:
        super().__init__(h11.SERVER, MAX_HEAD_BYTES)
        self.events_left = EVENTS_PER_TURN
        self.refusal: h11.RemoteProtocolError | None = None
        self._is_chunked = self._is_between_chunks = self._is_at_trailers = False
        self._chunks = self._chunk_bytes = 0

    def next_event(self) -> Any:
        """As h11 has it, but NEED_DATA when the turn is over."""
        self.events_left -= 1
        if self.events_left < 0:
            return h11.NEED_DATA
        try:
            self._check_ahead()
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._begin(event)
            elif isinstance(event, h11.Data) and self._is_chunked:
                self._count(event)
        except h11.RemoteProtocolError as error:
            self.refusal = error
            raise
        return event

    def _check_ahead(self) -> None:
        """Check the head or the trailer section that h11 is about to read."""
        if self.their_state is h11.IDLE:
            section = bytes(self.trailing_data[0])
            if end := SECTION_END.search(section):
                _check_lines(section[: end.end()])
                _check_delimiters(section[: end.end()])
        elif self._is_chunked and self.their_state is h11.SEND_BODY:
            section = bytes(self.trailing_data[0])
            if self._is_between_chunks and (last := LAST_CHUNK.match(section)):
                self._is_between_chunks, self._is_at_trailers = False, True
                section = section[last.end() :]
            if self._is_at_trailers and not section.startswith(b"\r\n"):
                end = SECTION_END.search(section)
                _check_lines(section[: end.end()] if end else section.removesuffix(b"\r"))

    def _begin(self, request: h11.Request) -> None:
        if request.http_version not in (b"1.0", b"1.1"):
            raise _refusal("the version of HTTP is neither 1.0 nor 1.1", 505)
        self._is_chunked = any(name == b"transfer-encoding" for name, _ in request.headers)
        if self._is_chunked and request.http_version == b"1.0":
            raise _refusal("HTTP/1.0 has no Transfer-Encoding")
        self._is_between_chunks, self._is_at_trailers = True, False
        self._chunks = self._chunk_bytes = 0

    def _count(self, data: h11.Data) -> None:
        self._is_between_chunks = data.chunk_end
        self._chunks += data.chunk_start
        self._chunk_bytes += len(data.data)
        if self._chunks > FREE_CHUNKS and self._chunk_bytes < LEAST_CHUNK_BYTES * self._chunks:
            raise _refusal(
                f"{self._chunks} chunks have {self._chunk_bytes} bytes in all; send at least "
                f"{LEAST_CHUNK_BYTES} bytes a chunk, or a Content-Length"
            )


def _refusal(reason: str, status: int = 400) -> h11.RemoteProtocolError:
    return h11.RemoteProtocolError(reason, error_status_hint=status)


def _check_lines(section: bytes) -> None:
    """Check a head or a trailer section: its size, that lines end in CRLF, and that no field is folded."""
    if len(section) > MAX_HEAD_BYTES or section.count(b"\n") > MAX_FIELDS + 2:
        raise _refusal(
            f"there are more than {MAX_FIELDS} header fields or {MAX_HEAD_BYTES} bytes of them", 431
        )
    if BARE_LINE_END.search(section):
        raise _refusal("a line ends in CR or LF alone; end it in CRLF")
    if FOLDED_LINE.search(section):
        raise _refusal("a header field continues on the next line; send it in one")


def _check_delimiters(head: bytes) -> None:
    """Check that at most one header field says where the body ends, and once."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    found = [(name.lower(), value.strip()) for name, _, value in lines if name.lower() in DELIMITERS]
    if len(found) > 1:
        raise _refusal("it has more than one Content-Length or Transfer-Encoding; send one of them, once")
    if any(name == b"content-length" and not value.isdigit() for name, value in found):
        raise _refusal("Content-Length is not a number")
