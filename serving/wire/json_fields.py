"""Texts and images in the fields of a JSON request, and descriptions of what is wrong with a field.

Fetches nothing, and decodes no pixel: what images may be is the data plane's to say, as on the other wires.
"""

import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from prefrm.containers import is_video
from prefrm.errors import MediaError
from prefrm.media import URL, ImageLimits, VideoLimits, check_size
from serving.encoding import decode_base64
from serving.errors import InvalidRequestError
from serving.inflight import Lease
from serving.limits import Limits
from serving.steps import Steps
from serving.wire.json_reading import LongString

__all__ = ["describe_mistakes", "kind_of", "read_image", "read_text"]

DATA_URL = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
# Each that pydantic describes takes a kilobyte.
MAX_DESCRIBED_ERRORS = 100
# Of an image's string, where a URL would begin, and by which a video is told; a multiple of four.
HEAD_BYTES = 256
SHOWN_ERRORS = 3
SHOWN_CHARACTERS = 60
# Of pydantic's kinds of mistakes, those that a request can have. What was received is said and not quoted.
MISTAKES = {
    "missing": "is missing; send it, as /docs shows",
    "extra_forbidden": "is no field of a request; leave it out",
    "too_short": "has {size} of at least {min_length} items; send more",
    "too_long": "has {size} items, and this server takes {max_length} at most; send fewer",
    "string_too_long": "has {size} characters of at most {max_length}; send a shorter string",
    "string_unicode": "is not valid Unicode; send no half of a surrogate pair",
    "string_type": "is {received}; send a string",
    "float_type": "is {received}; send a number",
    "int_type": "is {received}; send a whole number",
    "bool_type": "is {received}; send true or false",
    "greater_than": "is {received}; send a number above {gt:g}",
    "greater_than_equal": "is {received}; send a number of at least {ge:g}",
    "less_than_equal": "is {received}; send a number of at most {le:g}",
    "finite_number": "is {received}; send a finite number",
    "list_type": "is {received}; send a list",
    "model_type": "is {received}; send an object",
}
KINDS: Mapping[type, str] = {
    type(None): "null",
    str: "a string",
    LongString: "a long string",
    list: "a list",
    dict: "an object",
}
BIGGEST_SHOWN = 2**63


def read_text(value: str | LongString, where: str, most: int) -> str:
    """A decoded text.

    Args:
        value: as it was received.
        where: the field's place, for errors.
        most: bytes of UTF-8 that are of use; a text that certainly has more is not decoded.

    Raises:
        InvalidRequestError: it is not valid Unicode, or too long to be decoded.
    """
    try:
        text = value if isinstance(value, str) else value.text(most)
        text.encode()
    except (InvalidRequestError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"{where}: {error}") from None
    return text


def read_image(
    value: str | LongString | None,
    where: str,
    limits: Limits,
    lease: Lease,
    *,
    absent: str = "leave it out",
) -> Steps[tuple[bytes | None, str]]:
    """An encoded image or video and "", or None and why it is not even decoded from base64; None and "" if
    missing.

    Args:
        value: base64, plain or as a `data:` URL; None for a missing image.
        where: the field's place, for errors.
        limits: of the server.
        lease: takes the bytes of the image before it is decoded.
        absent: what to do where there is no image, for errors.

    Raises:
        InvalidRequestError: it is another URL, empty or no base64.
        OverloadedError: there is no room for the image.
    """
    if value is None:
        return None, ""
    string = LongString.of(value) if isinstance(value, str) else value
    start = _base64_start(string, where, absent)
    try:
        length = (yield from string.length()) - start
        padding = bytes(string.raw[-2:])
        size = length * 3 // 4 - len(padding) + len(padding.rstrip(b"="))
        check_size(size, _bounds(string, start, size, limits.image))
        lease.add(size)
        return (yield from decode_base64(string.pieces(start))), ""
    except MediaError as error:
        return None, str(error)
    except ValueError as error:
        raise InvalidRequestError(
            f"{where} is no base64 ({str(error)[0].lower()}{str(error)[1:]}): send the encoded image in the "
            "standard alphabet, padded, without line breaks"
        ) from None


def _bounds(string: LongString, start: int, size: int, limits: ImageLimits) -> ImageLimits | VideoLimits:
    """The limits on an encoded image or video of that size, by its first bytes."""
    if size <= limits.max_bytes:
        return limits
    head = binascii.a2b_base64(next(string.pieces(start))[:HEAD_BYTES])
    return limits.video if is_video(head) else limits


def describe_mistakes(error: ValidationError) -> str:
    """What is wrong with a request, without quoting it: the first few fields, and how many more there are."""
    if (count := error.error_count()) > MAX_DESCRIBED_ERRORS:
        return f"{count} things are wrong with the request; /docs says what it should be"
    problems = error.errors(include_url=False)
    lines = [_mistake(problem) for problem in problems[:SHOWN_ERRORS]]
    more = len(problems) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def kind_of(received: object) -> str:
    """What a value is, for people. Never a string itself: it may be an image of megabytes."""
    if isinstance(received, bool):
        return "true" if received else "false"
    if isinstance(received, int | float):
        return f"the number {received}" if not abs(received) > BIGGEST_SHOWN else "a number beyond all bounds"
    return KINDS.get(type(received), "something else")


def _base64_start(string: LongString, where: str, absent: str) -> int:
    """Where the base64 begins."""
    start, head = 0, bytes(string.raw[:HEAD_BYTES]).decode("latin-1")
    if found := DATA_URL.match(head):
        start = found.end()
        if not found.group().lower().endswith(";base64,"):
            raise InvalidRequestError(f"{where} is a data URL that is not in base64")
    elif URL.match(head):
        raise InvalidRequestError(f"{where} is a URL; nothing is fetched: send the image itself, in base64")
    if start == len(string.raw):
        raise InvalidRequestError(f"{where} is empty; {absent}")
    return start


def _mistake(problem: Mapping[str, Any]) -> str:
    place = _place(problem["loc"])
    if (text := MISTAKES.get(problem["type"])) is None:
        return f"{place}: {problem['msg']}"
    received = problem["input"]
    size = len(received) if isinstance(received, list | str | LongString) else None
    return f"{place} {text.format(**problem.get('ctx', {}), received=kind_of(received), size=size)}"


def _place(location: Sequence[int | str]) -> str:
    place = ""
    for step in location:
        place += f"[{step}]" if isinstance(step, int) else f".{step[:SHOWN_CHARACTERS]}"
    return place.removeprefix(".") or "the request"
