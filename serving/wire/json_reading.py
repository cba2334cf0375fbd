"""JSON bodies of untrusted clients, read in bounded steps and bounded memory.

`json` holds the interpreter's lock until it is done, and a string with one emoji takes four times its bytes.
So long strings are left where they stand in the body, undecoded, and only the rest is parsed by `json`. The
rest is bounded by what the largest request needs.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from serving.errors import InvalidRequestError
from serving.limits import Limits
from serving.steps import Steps

__all__ = ["LongString", "read_json", "shown"]

# Longer strings are left in the body; each takes the place of a NaN, which JSON itself does not have.
SHORT_BYTES = 256
PLACEHOLDER = "NaN"
# Commas and brackets, and strings, that a request may have besides those of its groups' candidates and
# context images.
SPARE_MARKS = 200
# The rest may have as many bytes for each of these.
BYTES_PER_MARK = 64
PIECE_BYTES = 2**16
# The longest escape of a byte of UTF-8, such as "\u0041".
ESCAPED_BYTES = 6
# Of a whole number; reading and writing one takes time that grows with the square of its digits.
MOST_DIGITS = 64
SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class LongString:
    """A JSON string in the body that it came in, neither checked nor decoded.

    Attributes:
        raw: what stands between the quotes.
        has_escapes: whether a backslash is in it.
    """

    raw: memoryview
    has_escapes: bool

    @classmethod
    def of(cls, text: str) -> "LongString":
        """A string that was decoded before."""
        return cls(raw=memoryview(text.encode("utf-8", "surrogatepass")), has_escapes=False)

    def __len__(self) -> int:
        return len(self.raw)

    def __str__(self) -> str:
        return f"a string of {len(self.raw)} bytes"

    def text(self, most: int) -> str:
        """The decoded string.

        Args:
            most: bytes of UTF-8 that are of use; a string that certainly has more is not decoded.

        Raises:
            InvalidRequestError: it is not valid JSON, or too long.
        """
        if len(self.raw) > ESCAPED_BYTES * most:
            raise InvalidRequestError(f"a text has {len(self.raw)} bytes; the limit is {most}")
        return _decoded(self.raw)

    def length(self) -> Steps[int]:
        """Bytes of the decoded string, which must be ASCII. Raises `ValueError` as `pieces`."""
        if not self.has_escapes:
            return len(self.raw)
        length = 0
        for piece in self.pieces():
            length += len(piece)
            yield
        return length

    def pieces(self, start: int = 0) -> Iterator[bytes]:
        """The decoded string from `start` on, in pieces, if it is ASCII. Raises `ValueError` if it is not."""
        at = start
        while at < len(self.raw):
            piece = bytes(self.raw[at : at + PIECE_BYTES])
            at += len(piece)
            if self.has_escapes and at < len(self.raw):
                # An escape may go on in the next piece.
                whole = piece.rfind(b"\\", len(piece) - ESCAPED_BYTES)
                at, piece = (at, piece) if whole < 0 else (at - len(piece) + whole, piece[:whole])
            yield _unescaped(piece) if self.has_escapes else piece


def read_json(body: bytes | bytearray, end: int, limits: Limits) -> Steps[object]:
    """The value of a JSON text, with a `LongString` for each string of more than `SHORT_BYTES`.

    Args:
        body: begins with the text.
        end: where the text ends.
        limits: bound the number of values.

    Raises:
        InvalidRequestError: it is not valid JSON, or, apart from long strings, larger than a request can be.
    """
    most = limits.request_groups * (limits.group_size + limits.context_images + SPARE_MARKS)
    rest, strings = yield from _lifted(body, end, most)
    if sum(map(rest.count, (b",", b"[", b"{"))) > most:
        raise _too_much(most)
    return _parsed(rest, strings)


def shown(value: object) -> str:
    """What a value is, for a message; a list or an object may be large, so it is not quoted."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return repr(str(value)[:SHOWN_CHARACTERS])


def _lifted(body: bytes | bytearray, end: int, most: int) -> Steps[tuple[bytearray, list[LongString]]]:
    """A JSON text with placeholders for its long strings, and those."""
    rest, strings, at, found = bytearray(), list[LongString](), 0, 0
    view = memoryview(body)
    while at < end:
        room = BYTES_PER_MARK * most - len(rest)
        start = body.find(b'"', at, min(end, at + room))
        gap = (start if start >= 0 else end) - at
        found += 1
        if gap > room or found > most:
            raise _too_much(most)
        rest += view[at : at + gap]
        at += gap
        if start >= 0:
            stop, has_escapes = yield from _string_end(body, start + 1, end)
            if stop - start <= SHORT_BYTES:
                rest += view[start : stop + 1]
            else:
                rest += PLACEHOLDER.encode()
                strings.append(LongString(raw=view[start + 1 : stop], has_escapes=has_escapes))
            at = stop + 1
        yield
    return rest, strings


def _string_end(body: bytes | bytearray, at: int, end: int) -> Steps[tuple[int, bool]]:
    """Where the quote is that ends the string from `at` on, and whether a backslash precedes it."""
    view, size, has_escapes = memoryview(body), SHORT_BYTES, False
    while at < end:
        piece = bytes(view[at : min(at + size, end)])
        if (escape := piece.find(b"\\")) >= 0:
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
                piece += view[at + len(piece) : min(at + len(piece) + 1, end)]
            piece = piece.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        if (quote := piece.find(b'"')) >= 0:
            return at + quote, has_escapes or 0 <= escape < quote
        has_escapes = has_escapes or escape >= 0
        at, size = at + len(piece), PIECE_BYTES
        yield
    raise InvalidRequestError("the request is no JSON: a string does not end")


def _parsed(rest: bytearray, strings: list[LongString]) -> object:
    lifted = iter(strings)

    def constant(name: str) -> LongString:
        # A NaN of the client's is one too many.
        if name != PLACEHOLDER or (string := next(lifted, None)) is None:
            raise ValueError(f"{name} is not a JSON value")
        return string

    try:
        return json.loads(rest.decode("utf-8"), parse_constant=constant, parse_int=_integer)
    # Deep nesting ends in a RecursionError.
    except (ValueError, RecursionError) as error:
        # Positions count the placeholders.
        reason = error.msg if strings and isinstance(error, json.JSONDecodeError) else error
        raise InvalidRequestError(f"the request is no JSON: {reason}") from None


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number has {len(text)} digits; {MOST_DIGITS} are allowed")
    return int(text)


def _unescaped(piece: bytes) -> bytes:
    text: str = json.loads(b'"' + piece + b'"')
    return text.encode("ascii")


def _decoded(raw: bytes | memoryview) -> str:
    try:
        text: str = json.loads('"' + str(raw, "utf-8") + '"')
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InvalidRequestError(f"the request is no JSON: {reason}") from None
    return text


def _too_much(most: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"the request has more than {most} commas and brackets, {most} strings, or "
        f"{BYTES_PER_MARK * most} bytes apart from its long strings"
    )
