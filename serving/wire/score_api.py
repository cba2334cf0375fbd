"""`POST /v1/score`: groups as JSON, images in base64, on the data plane that the other wires use."""

from fastapi import APIRouter, Request, Response

from serving.dataplane import DataPlane
from serving.errors import InvalidRequestError
from serving.wire.http_io import lease_of, read_body, translated, unless_gone
from serving.wire.score_reading import read_scoring
from serving.wire.score_schema import ErrorAnswer, ScoreAnswer, request_model

__all__ = ["SCORE", "score_router"]

SCORE = "Score"
# Of the text of a win matrix's entry with its order gap, tie and validity.
TEXT_BYTES = 32

ERRORS = {
    400: "The request is malformed or breaks a limit; the field is named.",
    401: "The server wants a token: `Authorization: Bearer TOKEN`.",
    404: "No such model or version is served.",
    408: "The body did not come within the deadline.",
    413: "The body exceeds the limit on its bytes.",
    429: "The queue is full. `Retry-After` says when to come back, in seconds. By a setting, 503 instead.",
    500: "The judge failed.",
    503: "The server or the model is starting, stopping or hanging.",
    504: "There was no answer within the timeout.",
}


def score_router(plane: DataPlane) -> APIRouter:
    """The route, and what the OpenAPI document says of it."""
    model = request_model(plane.limits)
    router = APIRouter(tags=[SCORE])

    async def score(request: Request) -> Response:
        lease = lease_of(request)
        with plane.observed("http", request.headers.items()) as record:
            body = await read_body(request, plane.limits)
            asked = await translated(read_scoring(body, model, plane.limits, lease), len(body))
            # Its images are copies.
            del body
            name = asked.model or _only_model(plane)
            matrices = await unless_gone(
                request, plane.score(name, asked.version, asked.groups, asked.timeout, record, lease)
            )
            size = sum(group.size**2 for group in asked.groups) * TEXT_BYTES
            content = await translated(asked.answer(matrices, record.model, record.version), size)
        lease.keep(len(content))
        return Response(content, media_type="application/json")

    router.add_api_route(
        "/v1/score",
        score,
        methods=["POST"],
        summary="Compare the images of each group with each other",
        description=(
            "Scores groups of any sizes in one request. Larger jobs are better sent as tensors, by prefrm's "
            "own client or any of the Open Inference Protocol's: base64 and JSON make them a third larger."
        ),
        response_model=ScoreAnswer,
        response_description="The groups' scores, in the order of the request.",
        responses={code: {"model": ErrorAnswer, "description": text} for code, text in ERRORS.items()},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _inlined(model.model_json_schema())}},
            }
        },
    )
    return router


def _only_model(plane: DataPlane) -> str:
    names = plane.models.names()
    if len(names) != 1:
        listed = ", ".join(map(repr, names)) or "none"
        raise InvalidRequestError(f"model: this server has several or none; name one of {listed}")
    return names[0]


def _inlined(schema: dict[str, object]) -> dict[str, object]:
    """A JSON schema whose references are replaced, as only FastAPI's own models may have some."""
    definitions = schema.pop("$defs", {})
    assert isinstance(definitions, dict)

    def resolved(part: object) -> object:
        if isinstance(part, list):
            return [resolved(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return resolved(definitions[part["$ref"].rpartition("/")[2]])
        return {key: resolved(inner) for key, inner in part.items()}

    return {key: resolved(part) for key, part in schema.items()}
