"""The application of the metrics port: `GET /metrics`, and `/`, which leads there."""

from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.exceptions import HTTPException
from starlette.routing import Route

from serving.wire.http import answer_http_error

__all__ = ["create_metrics_app"]

METRICS = "/metrics"


def create_metrics_app(registry: CollectorRegistry) -> FastAPI:
    """The ASGI application; every other path is 404 and every other method 405, as `{"error": "..."}`."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.add_exception_handler(HTTPException, answer_http_error)
    for path in (METRICS, f"{METRICS}/"):
        route = Route(path, _Exposition(registry))
        # GET alone, as on the HTTP port and as Triton has it.
        route.methods = {"GET"}
        app.router.routes.append(route)
    app.add_api_route("/", _lead_to_metrics, methods=["GET"])
    return app


class _Exposition:
    """Prometheus's own application, as an object, since Starlette takes a function for something else."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._app = make_asgi_app(registry)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)


async def _lead_to_metrics() -> RedirectResponse:
    # Relative, so that it holds behind a proxy that puts a prefix before every path.
    return RedirectResponse(METRICS.removeprefix("/"))
