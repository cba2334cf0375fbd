"""Bearer tokens at the door of each wire: who has none is answered before the request is read.

A gRPC interceptor and an ASGI middleware ask the same `TokenFile`. Whether the server lives and is ready
may be asked without a token, so that probes and load balancers need none; and a browser has none to send
before it has the page that asks for it.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping, Set
from typing import Any

import grpc

from prefrm.access.tokens import TokenFile
from serving.wire.docs_page import DOCS_PATHS

__all__ = ["OPEN_PATHS", "TokenInterceptor", "TokenMiddleware"]

PROBES = ("/v2/health/live", "/v2/health/ready")
OPEN_PATHS = DOCS_PATHS | {*PROBES, *(f"{path}/" for path in PROBES)}
OPEN_METHODS = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    }
)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Ends every call without a known token in UNAUTHENTICATED, unknown methods included."""

    def __init__(self, tokens: TokenFile, on_refusal: Callable[[], None]) -> None:
        self._tokens = tokens
        self._on_refusal = on_refusal

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        """The method's handler, or one that refuses."""
        if handler_call_details.method in OPEN_METHODS:
            return await continuation(handler_call_details)
        metadata = handler_call_details.invocation_metadata
        refusal = self._tokens.refusal([v.encode() for key, v in metadata if key == "authorization"])
        if not refusal:
            return await continuation(handler_call_details)

        async def refuse(_: Any, context: Any) -> None:
            self._on_refusal()
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, refusal)

        # A stream in both directions, whatever the method is: its handler runs before a message is read.
        return grpc.stream_stream_rpc_method_handler(refuse)


class TokenMiddleware:
    """Answers every HTTP request without a known token with 401, unknown paths included.

    Args:
        app: what is behind the door.
        tokens: what opens it.
        on_refusal: called for each request that is turned away.
        open_paths: of `app`, what needs no token.
    """

    def __init__(
        self, app: App, tokens: TokenFile, on_refusal: Callable[[], None], open_paths: Set[str] = frozenset()
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._on_refusal = on_refusal
        self._open_paths = open_paths

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] == "http" and scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        headers = [value for name, value in scope["headers"] if name == b"authorization"]
        if refusal := self._tokens.refusal(headers):
            self._on_refusal()
            await _refuse(refusal, send)
        else:
            await self._app(scope, receive, send)


async def _refuse(refusal: str, send: Send) -> None:
    body = json.dumps({"error": refusal}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
