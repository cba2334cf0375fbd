"""The JSON of `POST /v1/score`: its models, from which the OpenAPI document comes, and what groups it holds.

Fetches nothing, and decodes no pixel: what images may be is the data plane's to say, as on the other wires.
"""

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from prefrm.errors import MediaError
from prefrm.media import check_size
from prefrm.scoring import matrix_to_json
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import InvalidRequestError
from serving.limits import Limits

__all__ = [
    "ErrorAnswer",
    "GroupScore",
    "ScoreAnswer",
    "ScoreRequest",
    "Scoring",
    "read_scoring",
    "request_model",
]

# Two squares of 8 x 8 pixels, one red and one blue: an example that can be sent as it stands.
RED = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC"
BLUE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGNkYPjPgA0wYRUdtBIAy0MBD1YkjLoAAAAASUVORK5CYII="
)
EXAMPLE: dict[str, Any] = {"groups": [{"prompt": "a red square", "images": [RED, BLUE]}]}
EXAMPLE_SCORE: dict[str, Any] = {
    "win_rate": [0.9, 0.1],
    "ranking": [0, 1],
    "win_matrix": [[0.5, 0.9], [0.1, 0.5]],
    "order_gap": [[0, 0.02], [0.02, 0]],
    "tie": [[None, None], [None, None]],
    "valid": [[True, True], [True, True]],
    "errors": ["", ""],
}

URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
DATA_URL = re.compile(r"data:[^,]{0,200},", re.IGNORECASE)
# Commas and brackets that a group may have besides its images'. A body of nothing else takes thirty times its
# own size once it is parsed.
SPARE_PUNCTUATION = 1000
# Each that pydantic describes takes a kilobyte.
MAX_DESCRIBED_ERRORS = 100
CHUNK_BYTES = 2**20
SHOWN_ERRORS = 3
SHOWN_CHARACTERS = 60
NAME_LENGTH = 256

# What the document says of an image; `_decoded` checks it, and says better what is wrong.
BASE64 = "(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
IMAGE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 4, "pattern": f"^(?:data:[^,]*;base64,(?=.))?{BASE64}$"},
        {"type": "null"},
    ]
}

Image = Annotated[str | None, WithJsonSchema(IMAGE_SCHEMA)]
Matrix = list[list[float | None]]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ScoreRequest(_Model):
    """Groups to score. They may differ in size, and are answered in order."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    groups: Sequence[Any]
    model: Annotated[
        str | None,
        Field(
            max_length=NAME_LENGTH,
            description="The model that judges; may be left out where the server has only one.",
        ),
    ] = None
    version: Annotated[
        str | None,
        Field(max_length=NAME_LENGTH, description="Its version; the highest if left out.", examples=["1"]),
    ] = None
    timeout: Annotated[
        float | None,
        Field(
            gt=0,
            allow_inf_nan=False,
            description="Seconds that the answer may take; the server has a bound of its own.",
            examples=[60],
        ),
    ] = None


class GroupScore(_Model):
    """What the judge says of one group. A null is a number that is not known, and never a guess."""

    win_rate: Annotated[
        list[float | None],
        Field(description="For each image, its mean probability of beating another: the reward."),
    ]
    ranking: Annotated[
        list[int], Field(description="The indices of the images that have a win rate, best first.")
    ]
    win_matrix: Annotated[
        Matrix,
        Field(description="`win_matrix[i][j]` is P(image i beats image j), a tie counting half to each."),
    ]
    order_gap: Annotated[
        Matrix, Field(description="How much that changes when the two are shown the other way round.")
    ]
    tie: Annotated[Matrix, Field(description="P(tie), null if the judge does not model ties.")]
    valid: Annotated[
        list[list[bool]],
        Field(description="Whether the pair was judged; where not, a number was inferred from other pairs."),
    ]
    errors: Annotated[
        list[str], Field(description="For each image, why it could not be judged; empty where it could.")
    ]


class ScoreAnswer(_Model):
    """The groups' scores, in the order of the request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "judge", "version": "1", "groups": [EXAMPLE_SCORE]}]}
    )

    model: str
    version: str
    groups: list[GroupScore]


class ErrorAnswer(_Model):
    """Every answer other than 200."""

    error: Annotated[str, Field(description="What was wrong, what was received and what to do.")]


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


def request_model(limits: Limits) -> type[ScoreRequest]:
    """`ScoreRequest` with the bounds of one server on groups and their sizes."""
    images = Field(
        min_length=2,
        max_length=limits.group_size,
        description=(
            f"The encoded images (PNG, JPEG or WebP, at most {limits.image.max_bytes} bytes and "
            f"{limits.image.max_pixels} pixels each) in base64, plain or as a `data:` URL; null for one that "
            "is missing. No other URL is taken: nothing is ever fetched."
        ),
    )
    prompt = Field(description="What the images answer.")
    group = create_model(
        "ScoreGroup",
        __base__=_Model,
        __doc__="A prompt and the images that answer it.",
        prompt=(Annotated[str, prompt], ...),
        images=(Annotated[list[Image], images], ...),
    )
    groups = Field(min_length=1, max_length=limits.request_groups)
    return create_model(
        "ScoreRequest",
        __base__=ScoreRequest,
        __doc__=ScoreRequest.__doc__,
        groups=(Annotated[list[group], groups], ...),  # type: ignore[arg-type,valid-type]
    )


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
    # Never the input itself: it may be an image of megabytes.
    if (count := error.error_count()) > MAX_DESCRIBED_ERRORS:
        return f"{count} things are wrong with the request; /docs says what it should be"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems[:SHOWN_ERRORS]]
    more = len(problems) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _place(location: Sequence[int | str]) -> str:
    place = ""
    for step in location:
        place += f"[{step}]" if isinstance(step, int) else f".{step[:SHOWN_CHARACTERS]}"
    return place.removeprefix(".") or "the request"
