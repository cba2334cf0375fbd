"""What a body of `POST /v1/score` asks, and what is wrong with it.

Fetches nothing, and decodes no pixel: what images may be is the data plane's to say, as on the other wires.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from prefrm.errors import MediaError
from prefrm.media import URL, check_size
from prefrm.scoring import matrix_fields
from prefrm.winmatrix import Group, WinMatrix
from serving.encoding import decode_base64
from serving.errors import InvalidRequestError
from serving.inflight import Lease
from serving.limits import Limits
from serving.steps import Steps
from serving.wire.json_reading import LongString, read_json
from serving.wire.json_writing import write_json, write_list
from serving.wire.score_schema import ScoreRequest

__all__ = ["Scoring", "read_scoring"]

DATA_URL = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
# Each that pydantic describes takes a kilobyte.
MAX_DESCRIBED_ERRORS = 100
# Of an image's string, where a URL would begin.
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
    "greater_than": "is {received}; send a number above {gt:g}",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A request as the data plane takes it.

    Attributes:
        groups: an image that was too large to be decoded is missing here.
        refusals: why it is, for each image of each group; "" for the others.
        model: "" if the request named none.
        version: likewise.
        timeout: seconds, or None.
    """

    groups: list[Group]
    refusals: list[list[str]]
    model: str
    version: str
    timeout: float | None

    def answer(self, matrices: Sequence[WinMatrix], model: str, version: str) -> Steps[bytes]:
        """The answer as JSON, of the fields of `ScoreAnswer`, by a version of a model."""
        scores = yield from write_list(map(_score, matrices, self.refusals))
        named = json.dumps({"model": model, "version": version})
        return f'{named[:-1]}, "groups": {scores}}}'.encode()


def read_scoring(
    body: bytes | bytearray, model: type[ScoreRequest], limits: Limits, lease: Lease
) -> Steps[Scoring]:
    """What a body asks.

    Args:
        body: decompressed.
        model: describes it, with the server's limits.
        limits: of the server.
        lease: takes the bytes of each image before it is decoded.

    Raises:
        InvalidRequestError: it is not what `model` describes, or an image is no base64; names the field.
        OverloadedError: there is no room for the images.
    """
    value = yield from read_json(body, len(body), limits)
    try:
        request = model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(_described(error)) from None
    groups, refusals = [], []
    for g, group in enumerate(request.groups):
        yield
        images: list[bytes | None] = []
        reasons: list[str] = []
        for k, text in enumerate(group.images):
            image, reason = yield from _decoded(text, f"groups[{g}].images[{k}]", limits, lease)
            images.append(image)
            reasons.append(reason)
        prompt = _text(group.prompt, f"groups[{g}].prompt", limits)
        groups.append(Group(prompt=prompt, images=tuple(images)))
        refusals.append(reasons)
    return Scoring(
        groups=groups,
        refusals=refusals,
        model=request.model or "",
        version=request.version or "",
        timeout=request.timeout,
    )


def _score(matrix: WinMatrix, reasons: Sequence[str]) -> Steps[str]:
    errors = [ours or theirs for ours, theirs in zip(reasons, matrix.errors, strict=True)]
    return (yield from write_json(matrix_fields(matrix) | {"errors": errors}))


def _text(value: str | LongString, where: str, limits: Limits) -> str:
    try:
        text = value if isinstance(value, str) else value.text(limits.prompt_bytes)
        text.encode()
    except (InvalidRequestError, UnicodeEncodeError) as error:
        raise InvalidRequestError(f"{where}: {error}") from None
    return text


def _decoded(
    value: str | LongString | None, where: str, limits: Limits, lease: Lease
) -> Steps[tuple[bytes | None, str]]:
    """The image and "", or None and why it is not even decoded."""
    if value is None:
        return None, ""
    string = LongString.of(value) if isinstance(value, str) else value
    start = _base64_start(string, where)
    try:
        length = (yield from string.length()) - start
        padding = bytes(string.raw[-2:])
        size = length * 3 // 4 - len(padding) + len(padding.rstrip(b"="))
        check_size(size, limits.image)
        lease.add(size)
        return (yield from decode_base64(string.pieces(start))), ""
    except MediaError as error:
        return None, str(error)
    except ValueError as error:
        raise InvalidRequestError(
            f"{where} is no base64 ({str(error)[0].lower()}{str(error)[1:]}): send the encoded image in the "
            "standard alphabet, padded, without line breaks"
        ) from None


def _base64_start(string: LongString, where: str) -> int:
    """Where the base64 begins."""
    start, head = 0, bytes(string.raw[:HEAD_BYTES]).decode("latin-1")
    if found := DATA_URL.match(head):
        start = found.end()
        if not found.group().lower().endswith(";base64,"):
            raise InvalidRequestError(f"{where} is a data URL that is not in base64")
    elif URL.match(head):
        raise InvalidRequestError(f"{where} is a URL; nothing is fetched: send the image itself, in base64")
    if start == len(string.raw):
        raise InvalidRequestError(f"{where} is empty; send null for a missing image")
    return start


def _described(error: ValidationError) -> str:
    if (count := error.error_count()) > MAX_DESCRIBED_ERRORS:
        return f"{count} things are wrong with the request; /docs says what it should be"
    problems = error.errors(include_url=False)
    lines = [_mistake(problem) for problem in problems[:SHOWN_ERRORS]]
    more = len(problems) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _mistake(problem: Mapping[str, Any]) -> str:
    place = _place(problem["loc"])
    if (text := MISTAKES.get(problem["type"])) is None:
        return f"{place}: {problem['msg']}"
    received = problem["input"]
    size = len(received) if isinstance(received, list | str | LongString) else None
    return f"{place} {text.format(**problem.get('ctx', {}), received=_kind(received), size=size)}"


def _kind(received: object) -> str:
    """What it is, for people. Never a string itself: it may be an image of megabytes."""
    if isinstance(received, bool):
        return "true" if received else "false"
    if isinstance(received, int | float):
        return f"the number {received}" if not abs(received) > BIGGEST_SHOWN else "a number beyond all bounds"
    return KINDS.get(type(received), "something else")


def _place(location: Sequence[int | str]) -> str:
    place = ""
    for step in location:
        place += f"[{step}]" if isinstance(step, int) else f".{step[:SHOWN_CHARACTERS]}"
    return place.removeprefix(".") or "the request"
