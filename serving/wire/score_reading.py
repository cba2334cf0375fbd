"""Reading of the body of `POST /v1/score`.

Fetches nothing, and decodes no pixel: what images may be is the data plane's to say, as on the other wires.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from prefrm.scoring import matrix_fields
from prefrm.winmatrix import Group, WinMatrix
from serving.errors import InvalidRequestError
from serving.inflight import Lease
from serving.limits import Limits
from serving.steps import Steps
from serving.wire.json_fields import describe_mistakes, read_image, read_text
from serving.wire.json_reading import LongString, read_json
from serving.wire.json_writing import write_json, write_list
from serving.wire.score_schema import ScoreRequest

__all__ = ["Scoring", "read_scoring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """A request as the data plane takes it.

    Attributes:
        groups: an image that was too large to be decoded is missing here; with such a context image, all
            candidates are.
        refusals: why it is, for each candidate of each group; "" for the others.
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
    for g, fields in enumerate(request.groups):
        yield
        group, reasons = yield from _group(fields, f"groups[{g}]", limits, lease)
        groups.append(group)
        refusals.append(reasons)
    return Scoring(
        groups=groups,
        refusals=refusals,
        model=request.model or "",
        version=request.version or "",
        timeout=request.timeout,
    )


def _group(fields: Any, where: str, limits: Limits, lease: Lease) -> Steps[tuple[Group, list[str]]]:
    """A group, and why each candidate is missing that was sent."""
    if bool(fields.images) == bool(fields.texts):
        received = "both" if fields.images else "neither"
        raise InvalidRequestError(f"{where} needs one of images and texts; received {received}")
    candidates, reasons = yield from _images(
        fields.images, f"{where}.images", limits, lease, absent="send null for a missing image"
    )
    context, context_reasons = yield from _images(
        fields.context, f"{where}.context", limits, lease, absent="leave it out"
    )
    texts = [
        text and read_text(text, f"{where}.texts[{k}]", limits.text_bytes)
        for k, text in enumerate(fields.texts)
    ]
    group = Group(
        prompt=read_text(fields.prompt, f"{where}.prompt", limits.prompt_bytes),
        candidates=(*candidates, *texts),
        context=tuple(image for image in context if image),
        criterion=read_text(fields.criterion, f"{where}.criterion", limits.prompt_bytes),
    )
    for n, reason in enumerate(context_reasons):
        if reason:
            nothing = replace(group, candidates=(None,) * group.size, context=())
            return nothing, [f"context image {n}: {reason}"] * group.size
    return group, reasons or [""] * group.size


def _images(
    values: Sequence[str | LongString | None], where: str, limits: Limits, lease: Lease, *, absent: str
) -> Steps[tuple[list[bytes | None], list[str]]]:
    images, reasons = list[bytes | None](), list[str]()
    for k, value in enumerate(values):
        image, reason = yield from read_image(value, f"{where}[{k}]", limits, lease, absent=absent)
        images.append(image)
        reasons.append(reason)
    return images, reasons


def _score(matrix: WinMatrix, reasons: Sequence[str]) -> Steps[str]:
    errors = [ours or theirs for ours, theirs in zip(reasons, matrix.errors, strict=True)]
    return (yield from write_json(matrix_fields(matrix) | {"errors": errors}))
