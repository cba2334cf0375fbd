"""The parser of HTTP/1.1 requests: h11's, which refuses ambiguous requests and those that take much work.

- The head of a request has at most `MAX_HEAD_BYTES` and `MAX_FIELDS`.
- A request is delimited in one unambiguous way (RFC 9112, sections 2.2, 5.1, 5.2, 6.1 and 6.3), or refused.
- One turn of the event loop parses at most `EVENTS_PER_TURN` pieces of a connection.
"""

import re
from typing import Any

import h11

__all__ = ["EVENTS_PER_TURN", "StrictConnection"]

MAX_HEAD_BYTES = 2**15
# Header fields of a request or its trailer section; h11 takes tens of microseconds for each.
MAX_FIELDS = 100
# Chunks of a body, and events of one connection between two turns of the loop: likewise.
FREE_CHUNKS, LEAST_CHUNK_BYTES = 1000, 64
EVENTS_PER_TURN = 8

SECTION_END = re.compile(rb"\n\r?\n")
BARE_LINE_END = re.compile(rb"(?<!\r)\n|\r(?!\n)")
FOLDED_LINE = re.compile(rb"\n[ \t]")
DELIMITERS = (b"content-length", b"transfer-encoding")
# What precedes the trailer section: the unread rest of the line end after a chunk, and the last chunk.
LAST_CHUNK = re.compile(rb"\r?\n?0+[ \t]*(?:;[^\n]*)?\r\n")


class StrictConnection(h11.Connection):
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
