"""`POST /v1/chat/completions` and `GET /v1/models`: pairwise questions in OpenAI's form, on the data plane.

A trainer that asks a generative judge about two images at a time changes its URL and nothing else.
"""

import time
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serving.dataplane import DataPlane
from serving.errors import ServingError
from serving.wire.chat_dialects import DIALECTS, Dialect
from serving.wire.chat_reading import read_question
from serving.wire.chat_schema import ChatAnswer, ChatErrorAnswer, ChatRequest, ModelCard, ModelList
from serving.wire.chat_writing import write_completion
from serving.wire.http_io import lease_of, read_body, translated, unless_gone
from serving.wire.json_routes import failures, json_body, only_model

__all__ = ["CHAT", "answer_chat_error", "chat_router", "is_chat_path"]

CHAT = "OpenAI"
COMPLETIONS, MODELS = "/v1/chat/completions", "/v1/models"
# Of the text of a choice with the log-probabilities of its tokens.
CHOICE_BYTES = 2**11


def chat_router(plane: DataPlane, dialects: Sequence[Dialect] = DIALECTS) -> APIRouter:
    """The routes, and their part of the OpenAPI document.

    Args:
        plane: what the routes are mapped onto.
        dialects: of the questions that are understood.
    """
    router, started = APIRouter(tags=[CHAT]), int(time.time())

    async def complete(request: Request) -> Response:
        lease = lease_of(request)
        with plane.observed("http", request.headers.items()) as record:
            body = await read_body(request, plane.limits)
            asked = await translated(read_question(body, dialects, plane.limits, lease), len(body))
            # Its images are copies.
            del body
            name = asked.request.model or only_model(plane)
            (matrix,) = await unless_gone(request, plane.score(name, "", [asked.group], None, record, lease))
            answer = write_completion(asked, matrix, model=name, cost=record.cost)
            content = await translated(answer, (asked.request.n or 1) * CHOICE_BYTES)
        lease.keep(len(content))
        return Response(content, media_type="application/json")

    async def models() -> Response:
        cards = [ModelCard(id=name, created=started) for name in plane.models.names()]
        return JSONResponse(ModelList(data=cards).model_dump())

    async def model(model: str) -> Response:
        name = plane.models.get(model).info.name
        return JSONResponse(ModelCard(id=name, created=started).model_dump())

    router.add_api_route(
        COMPLETIONS,
        complete,
        methods=["POST"],
        summary="Tell which of two images is better, in the words of a generative judge",
        description=(
            "Takes the questions of UnifiedReward's clients and of Pref-GRPO, and answers in the form that "
            "they parse. Both presentation orders are judged. A pair that cannot be judged is an error."
        ),
        response_model=ChatAnswer,
        response_description="The verdict.",
        responses=failures(ChatErrorAnswer),
        openapi_extra=json_body(ChatRequest),
    )
    router.add_api_route(
        MODELS, models, methods=["GET"], summary="List the models in OpenAI's form", response_model=ModelList
    )
    router.add_api_route(
        f"{MODELS}/{{model}}",
        model,
        methods=["GET"],
        summary="Describe a model in OpenAI's form",
        response_model=ModelCard,
        responses={404: failures(ChatErrorAnswer)[404]},
    )
    return router


def is_chat_path(path: str) -> bool:
    """Whether errors of this path have OpenAI's form."""
    return path == COMPLETIONS or path.startswith(MODELS)


def answer_chat_error(error: ServingError) -> dict[str, Any]:
    """The body of an error in OpenAI's form."""
    status = error.http_status
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": None, "code": status}}
