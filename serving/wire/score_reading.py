"""Reading of the body of `POST /v1/score`.

Fetches nothing, and decodes no pixel: what images may be is the data plane's to say, as on the other wires.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from prefrm.scoring import matrix_fields
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import InvalidRequestError
from serving.inflight import Lease
from serving.limits import Limits
from serving.steps import Steps
from serving.wire.json_fields import describe_mistakes, read_image, read_text
from serving.wire.json_reading import read_json
from serving.wire.json_writing import write_json, write_list
from serving.wire.score_schema import ScoreRequest

__all__ = ["Scoring", "read_scoring"]


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
        raise InvalidRequestError(describe_mistakes(error)) from None
    groups, refusals = [], []
    for g, group in enumerate(request.groups):
        yield
        images: list[bytes | None] = []
        reasons: list[str] = []
        for k, text in enumerate(group.images):
            image, reason = yield from read_image(text, f"groups[{g}].images[{k}]", limits, lease)
            images.append(image)
            reasons.append(reason)
        prompt = read_text(group.prompt, f"groups[{g}].prompt", limits.prompt_bytes)
        groups.append(Group(prompt=prompt, candidates=tuple(images)))
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
