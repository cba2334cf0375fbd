"""What a body of `POST /v1/score` asks, and what is wrong with it.

Fetches nothing, and decodes no pixel: what images may be is the data plane's to say, as on the other wires.
"""

import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import ValidationError

from prefrm.errors import MediaError
from prefrm.media import URL, check_size
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import InvalidRequestError
from serving.limits import Limits
from serving.wire.score_schema import ScoreRequest

__all__ = ["Scoring", "read_scoring"]

DATA_URL = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
# Commas and brackets that a group may have besides its images'. A body of nothing else takes thirty times its
# own size once it is parsed.
SPARE_PUNCTUATION = 1000
# Each that pydantic describes takes a kilobyte.
MAX_DESCRIBED_ERRORS = 100
CHUNK_BYTES = 2**20
SHOWN_ERRORS = 3
SHOWN_CHARACTERS = 60
# Of pydantic's kinds of mistakes, those that a request can have. What was received is said and not quoted.
MISTAKES = {
    "json_invalid": "is no JSON ({error}); send an object, as /docs shows",
    "missing": "is missing; send it, as /docs shows",
    "extra_forbidden": "is no field of a request; leave it out",
    "too_short": "has {size} of at least {min_length} items; send more",
    "too_long": "has {size} items, and this server takes {max_length} at most; send fewer",
    "string_too_long": "has {size} characters of at most {max_length}; send a shorter string",
    "string_type": "is {received}; send a string",
    "float_type": "is {received}; send a number",
    "greater_than": "is {received}; send a number above {gt:g}",
    "finite_number": "is {received}; send a finite number",
    "list_type": "is {received}; send a list",
    "model_type": "is {received}; send an object",
}
KINDS: Mapping[type, str] = {type(None): "null", str: "a string", list: "a list", dict: "an object"}
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

    def answer(self, matrices: Sequence[WinMatrix]) -> list[dict[str, Any]]:
        """The groups' scores as plain JSON, of the fields of `GroupScore`."""
        scores = []
        for matrix, reasons in zip(matrices, self.refusals, strict=True):
            score = matrix_to_json(matrix)
            errors = zip(reasons, score["errors"], strict=True)
            scores.append(score | {"errors": [ours or theirs for ours, theirs in errors]})
        return scores


def read_scoring(body: bytes, model: type[ScoreRequest], limits: Limits) -> Scoring:
    """What a body asks.

    Raises:
        InvalidRequestError: it is not what `model` describes, or an image is no base64; names the field.
    """
    most = limits.request_groups * (limits.group_size + SPARE_PUNCTUATION)
    if _punctuation(body) > most:
        raise InvalidRequestError(f"the request has more than {most} commas and brackets")
    try:
        request = model.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequestError(_described(error)) from None
    groups, refusals = [], []
    for g, group in enumerate(request.groups):
        images: list[bytes | None] = []
        reasons: list[str] = []
        for k, text in enumerate(group.images):
            image, reason = _decoded(text, f"groups[{g}].images[{k}]", limits)
            images.append(image)
            reasons.append(reason)
        groups.append(Group(prompt=group.prompt, images=tuple(images)))
        refusals.append(reasons)
    return Scoring(
        groups=groups,
        refusals=refusals,
        model=request.model or "",
        version=request.version or "",
        timeout=request.timeout,
    )


def _punctuation(body: bytes) -> int:
    # By numpy, which lets other threads run meanwhile.
    found = 0
    for start in range(0, len(body), CHUNK_BYTES):
        chunk = np.frombuffer(body, np.uint8, min(CHUNK_BYTES, len(body) - start), start)
        found += sum(int(np.count_nonzero(chunk == mark)) for mark in b",[{")
    return found


def _decoded(text: str | None, where: str, limits: Limits) -> tuple[bytes | None, str]:
    """The image and "", or None and why it is not even decoded."""
    if text is None:
        return None, ""
    start = 0
    if found := DATA_URL.match(text):
        start = found.end()
        if not found.group().lower().endswith(";base64,"):
            raise InvalidRequestError(f"{where} is a data URL that is not in base64")
    elif URL.match(text):
        raise InvalidRequestError(f"{where} is a URL; nothing is fetched: send the image itself, in base64")
    if start == len(text):
        raise InvalidRequestError(f"{where} is empty; send null for a missing image")
    size = (len(text) - start) * 3 // 4 - text.endswith("=") - text.endswith("==")
    try:
        check_size(size, limits.image)
    except MediaError as error:
        return None, str(error)
    try:
        return binascii.a2b_base64(text[start:], strict_mode=True), ""
    except ValueError as error:
        raise InvalidRequestError(
            f"{where} is no base64 ({str(error)[0].lower()}{str(error)[1:]}): send the encoded image in the "
            "standard alphabet, padded, without line breaks"
        ) from None


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
    size = len(received) if isinstance(received, list | str) else None
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
