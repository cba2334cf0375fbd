"""The HTTP wire: routes of the Open Inference Protocol onto the data plane. Decides nothing.

Every answer other than 200 is `{"error": "..."}`, unknown routes included; OpenAI's routes have its form.
Bodies are read raw, since the stock clients send no usable Content-Type.
"""

import functools
import math
from collections.abc import Awaitable, Callable, Sequence, Set
from importlib.metadata import version as package_version
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException

from serving.dataplane import DataPlane, InferRequest, InferResponse
from serving.descriptions import to_triton_json
from serving.errors import (
    InvalidRequestError,
    NotReadyError,
    OverloadedError,
    ServingError,
    UnsupportedError,
)
from serving.inflight import Lease
from serving.observing import requests as observed
from serving.wire.chat_api import CHAT, answer_chat_error, chat_router, is_chat_path
from serving.wire.chat_dialects import DIALECTS, Dialect
from serving.wire.compression import compress
from serving.wire.docs_page import OPENAPI_PATH, complete_document, docs_router
from serving.wire.http_codec import json_size, parse_request, plain_parameters, read_object, render_response
from serving.wire.http_io import Leasing, lease_of, read_body, translated, unless_gone
from serving.wire.json_reading import shown
from serving.wire.protocol_schema import (
    GradientRequest,
    IndexRequest,
    InferenceRequest,
    InferenceResponse,
    JsonObject,
    Liveness,
    LoadRequest,
    ModelMetadata,
    ModelReadiness,
    ModelState,
    Readiness,
    ServerMetadata,
    describe_request,
    request_schemas,
)
from serving.wire.score_api import SCORE, score_router
from serving.wire.score_schema import ErrorAnswer

__all__ = ["answer_http_error", "create_app"]

DESCRIPTION = """
A preference judge: it compares the candidates of a group with each other; a candidate's *win rate* is its
reward.

`/v1/score` can be tried from this page. The Open Inference Protocol (KServe v2) is what prefrm's own client
and the stock `tritonclient` speak, with tensors in binary; gRPC has the same on a port of its own.
"""

PROTOCOL = "Open Inference Protocol"
TAGS = [
    {"name": SCORE, "description": "Plain JSON, with images and videos in base64."},
    {"name": CHAT, "description": "Two images at a time, for trainers that ask a generative judge."},
    {"name": PROTOCOL, "description": "Tensors, as KServe v2 and NVIDIA's Triton have them."},
]
Endpoint = Callable[..., Awaitable[Response]]
Answering = Callable[[InferRequest, observed.Request, Lease], Awaitable[InferResponse]]

UNSUPPORTED_PATHS = (
    "/v2/systemsharedmemory/{rest:path}",
    "/v2/cudasharedmemory/{rest:path}",
    "/v2/models/{model}/generate",
    "/v2/models/{model}/generate_stream",
    "/v2/models/{model}/trace/setting",
    "/v2/trace/setting",
    "/v2/logging",
)


def create_app(
    plane: DataPlane, open_paths: Set[str] | None = None, dialects: Sequence[Dialect] = DIALECTS
) -> FastAPI:
    """The ASGI application of one data plane.

    Args:
        plane: what the routes are mapped onto.
        open_paths: those that need no token, for the document; None if no path needs one.
        dialects: of the pairwise questions that are understood.
    """
    app = FastAPI(
        title="prefrm",
        version=package_version("prefrm"),
        description=DESCRIPTION,
        openapi_url=OPENAPI_PATH,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Without this, the document has FastAPI's own 422, which is never answered.
        responses={"default": {"model": ErrorAnswer, "description": "What went wrong."}},
    )
    app.add_exception_handler(ServingError, _on_serving_error)
    app.add_exception_handler(HTTPException, answer_http_error)
    app.add_exception_handler(Exception, _on_crash)
    app.add_middleware(Leasing, budget=plane.in_flight)
    app.include_router(score_router(plane))
    app.include_router(chat_router(plane, dialects))
    app.include_router(_protocol_router(_Routes(plane)))
    app.include_router(docs_router(app))
    complete_document(app, request_schemas(), open_paths)
    return app


def _protocol_router(wire: "_Routes") -> APIRouter:
    """The routes of the Open Inference Protocol. Each answers with a slash at its end, too."""
    router = APIRouter(tags=[PROTOCOL])

    def route(
        method: str, path: str, endpoint: Endpoint, summary: str, answer: Any = None, body: Any = None
    ) -> None:
        router.add_api_route(
            path,
            endpoint,
            methods=[method],
            summary=summary,
            response_model=answer,
            # Without an answer there is no body.
            response_class=Response if answer is None else JSONResponse,
            openapi_extra=describe_request(path, body),
        )
        router.add_api_route(f"{path}/", endpoint, methods=[method], include_in_schema=False)

    get, post = functools.partial(route, "GET"), functools.partial(route, "POST")
    get("/v2", wire.server_metadata, "Describe the server and its extensions of the protocol", ServerMetadata)
    get("/v2/health/live", wire.live, "Tell whether the server is alive", Liveness)
    get("/v2/health/ready", wire.ready, "Tell whether the server is ready for requests", Readiness)
    get("/v2/models/stats", wire.statistics, "Statistics of all models", JsonObject)
    post(
        "/v2/repository/index", wire.index, "List the models and their states", list[ModelState], IndexRequest
    )
    post("/v2/repository/models/{model}/load", wire.load, "Load a model", body=LoadRequest)
    post("/v2/repository/models/{model}/unload", wire.unload, "Unload a model")
    for path, which in (
        ("/v2/models/{model}", "the newest version of a model"),
        ("/v2/models/{model}/versions/{version:digits}", "a version of a model"),
    ):
        get(path, wire.model_metadata, f"Describe the inputs and outputs of {which}", ModelMetadata)
        get(f"{path}/ready", wire.model_ready, f"Tell whether {which} is ready", ModelReadiness)
        get(f"{path}/config", wire.model_config, f"Configuration of {which}", JsonObject)
        get(f"{path}/stats", wire.statistics, f"Statistics of {which}", JsonObject)
        scoring = f"Score groups, as tensors, with {which}"
        post(f"{path}/infer", wire.infer, scoring, InferenceResponse, InferenceRequest)
        differentiating = f"Utilities of pixels and their gradient, as tensors, by {which}"
        post(f"{path}/gradient", wire.gradient, differentiating, InferenceResponse, GradientRequest)
    for kind in ("system", "cuda"):
        # There are never regions: nothing is listed, and to unregister all of them is not a mistake.
        regions = f"/v2/{kind}sharedmemory"
        named = f"{regions}/region/{{region}}/unregister"
        status = f"List the regions of {kind} shared memory: none"
        get(f"{regions}/status", wire.no_regions, status, list[JsonObject])
        post(f"{regions}/unregister", wire.unregister, f"Unregister all regions of {kind} shared memory")
        post(named, wire.unregister, f"Unregister a region of {kind} shared memory")
    for path in UNSUPPORTED_PATHS:
        for each in (path, f"{path}/"):
            router.add_api_route(each, wire.unsupported, methods=["GET", "POST"], include_in_schema=False)
    return router


class _Digits(Convertor[str]):
    """A version in a path is a number; a path with anything else in its place is none that there is."""

    regex = "[0-9]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("digits", _Digits())


class _Routes:
    """One method for each route."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    async def live(self, _: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        if not self._plane.ready:
            raise NotReadyError("the server is not ready")
        return JSONResponse({"ready": True})

    async def no_regions(self, _: Request) -> Response:
        return JSONResponse([])

    async def unregister(self, _: Request) -> Response:
        return Response()

    async def server_metadata(self, _: Request) -> Response:
        return JSONResponse(self._plane.server_metadata())

    async def model_metadata(self, request: Request) -> Response:
        return JSONResponse(self._plane.model_metadata(*_model_of(request)))

    async def model_ready(self, request: Request) -> Response:
        model, version = _model_of(request)
        if not self._plane.model_ready(model, version):
            raise NotReadyError(f"the model {model!r} is not ready")
        return JSONResponse({"name": model, "ready": True})

    async def model_config(self, request: Request) -> Response:
        return JSONResponse(to_triton_json(self._plane.model_config(*_model_of(request))))

    async def statistics(self, request: Request) -> Response:
        return JSONResponse(self._plane.statistics(*_model_of(request)))

    async def index(self, request: Request) -> Response:
        fields = await self._fields(request)
        ready_only = fields.get("ready", False)
        if not isinstance(ready_only, bool):
            raise InvalidRequestError(f"'ready' must be true or false; received {shown(ready_only)}")
        return JSONResponse(self._plane.repository_index(ready_only=ready_only))

    async def load(self, request: Request) -> Response:
        parameters = (await self._fields(request)).get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidRequestError(f"'parameters' must be a JSON object; received {shown(parameters)}")
        await self._plane.load(_model_of(request)[0], plain_parameters(parameters))
        return Response()

    async def unload(self, request: Request) -> Response:
        await self._plane.models.unload(_model_of(request)[0])
        return Response()

    async def _fields(self, request: Request) -> dict[str, Any]:
        """A body of JSON that may be left out."""
        limits = self._plane.limits
        body = await read_body(request, limits) or b"{}"
        fields = await translated(read_object(body, len(body), limits), len(body))
        lease_of(request).keep(0)
        return fields

    async def unsupported(self, request: Request) -> Response:
        raise UnsupportedError(f"{request.url.path} is not supported")

    async def infer(self, request: Request) -> Response:
        return await self._answered(request, self._plane.infer)

    async def gradient(self, request: Request) -> Response:
        return await self._answered(request, self._plane.gradient)

    async def _answered(self, request: Request, answering: Answering) -> Response:
        """What the data plane answers to a request with tensors."""
        (model, version), plane, lease = _model_of(request), self._plane, lease_of(request)
        with plane.observed("http", request.headers.items()) as record:
            body = await read_body(request, plane.limits)
            # Raw tensors behind the JSON are not read here.
            size = json_size(len(body), request.headers.get("inference-header-content-length"))
            parsed, binary = await translated(
                parse_request(body, size, model=model, version=version, limits=plane.limits), size
            )
            work = answering(parsed, record, lease)
            # The body is freed once the data plane has taken the images out of it.
            del body, parsed
            answer = await unless_gone(request, work)
            size = sum(array.nbytes for array in answer.outputs.values())
            content, json_length = await translated(render_response(answer, binary), size)
        headers = {}
        if json_length is not None:
            headers["Inference-Header-Content-Length"] = str(json_length)
        accepted = request.headers.get("accept-encoding", "")
        content, content_encoding = await translated(compress(content, accepted), len(content))
        lease.keep(len(content))
        if content_encoding is not None:
            headers["Content-Encoding"] = content_encoding
        media_type = "application/json" if json_length is None else "application/octet-stream"
        return Response(content, media_type=media_type, headers=headers)


def _model_of(request: Request) -> tuple[str, str]:
    """Name and version from the path, each "" where it is not there."""
    return request.path_params.get("model", ""), request.path_params.get("version", "")


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, status_code=status, headers=headers)


async def _on_serving_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    headers = None
    if isinstance(error, OverloadedError):
        headers = {"Retry-After": str(math.ceil(error.retry_after))}
    if is_chat_path(request.url.path):
        return JSONResponse(answer_chat_error(error), status_code=error.http_status, headers=headers)
    return _error(error.http_status, str(error), headers)


async def answer_http_error(request: Request, error: Exception) -> Response:
    """Answer an unknown route or a method that it does not have, as `{"error": "..."}`."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return _error(error.status_code, message, dict(error.headers or {}))


async def _on_crash(_: Request, error: Exception) -> Response:
    return _error(500, f"internal error: {type(error).__name__}")
