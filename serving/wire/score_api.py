"""`POST /v1/score`: groups as JSON, images and videos in base64, on the data plane of the other wires."""

from fastapi import APIRouter, Request, Response

from serving.dataplane import DataPlane
from serving.wire.http_io import lease_of, read_body, translated, unless_gone
from serving.wire.json_routes import failures, json_body, only_model
from serving.wire.score_reading import read_scoring
from serving.wire.score_schema import ErrorAnswer, ScoreAnswer, request_model

__all__ = ["SCORE", "score_router"]

SCORE = "Score"
# Of the text of a win matrix's entry with its order gap, tie and validity.
TEXT_BYTES = 32


def score_router(plane: DataPlane) -> APIRouter:
    """The route, and what the OpenAPI document says of it."""
    model = request_model(plane.limits)
    router = APIRouter(tags=[SCORE])

    async def score(request: Request) -> Response:
        lease = lease_of(request)
        with plane.observed("http", request.headers.items()) as record:
            body = await read_body(request, plane.limits)
            asked = await translated(read_scoring(body, model, plane.limits, lease), len(body))
            # Its images and texts are copies.
            del body
            name = asked.model or only_model(plane)
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
        summary="Compare the candidates of each group with each other",
        description=(
            "Scores groups of any sizes in one request. Larger jobs are better sent as tensors, by prefrm's "
            "own client or any of the Open Inference Protocol's: base64 and JSON make them a third larger."
        ),
        response_model=ScoreAnswer,
        response_description="The groups' scores, in the order of the request.",
        responses=failures(ErrorAnswer),
        openapi_extra=json_body(model),
    )
    return router
