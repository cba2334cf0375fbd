"""The OpenAPI document, `/docs`, which shows it with the server's own assets, and `/`, which leads there."""

from collections.abc import Awaitable, Callable, Mapping, Set
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response

__all__ = ["DOCS_PAGE", "DOCS_PATHS", "OPENAPI_PATH", "complete_document", "docs_router"]

OPENAPI_PATH, DOCS_PAGE = "/openapi.json", "/docs"
# Files of the package fastapi-swagger, which carries the current Swagger UI.
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
DOCS_PATHS = frozenset({"/", OPENAPI_PATH, DOCS_PAGE, *(f"/docs/{name}" for name in ASSETS)})
"""The paths that a browser needs before it has a token. None of them names a model."""
DAY_S = 86_400


def docs_router(app: FastAPI) -> APIRouter:
    """The page, its assets and the directory at `/`; none of them is in the document itself."""
    router = APIRouter(include_in_schema=False)
    # Relative to the page, so that they are found behind a proxy that puts a prefix before every path.
    script, style, icon = (f"docs/{name}" for name in ASSETS)

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=OPENAPI_PATH.removeprefix("/"),
            title=f"{app.title} {app.version}: HTTP API",
            swagger_js_url=script,
            swagger_css_url=style,
            swagger_favicon_url=icon,
            # The validator that Swagger UI asks by default is on another server.
            swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0},
        )

    async def directory() -> Response:
        places = {
            "docs": DOCS_PAGE,
            "openapi": OPENAPI_PATH,
            "score": "/v1/score",
            "chat": "/v1/chat/completions",
            "protocol": "/v2",
        }
        return JSONResponse(
            {"name": app.title, "version": app.version, **places, "ready": "/v2/health/ready"}
        )

    router.add_api_route("/", directory, methods=["GET"])
    router.add_api_route(DOCS_PAGE, page, methods=["GET"])
    for name, media_type in ASSETS.items():
        router.add_api_route(f"/docs/{name}", _asset(name, media_type), methods=["GET"])
    return router


def complete_document(app: FastAPI, schemas: Mapping[str, Any], open_paths: Set[str] | None) -> None:
    """Add to the document what FastAPI does not know.

    Args:
        app: whose document it is.
        schemas: of requests that are read without FastAPI, by name.
        open_paths: those that need no token; None if no path needs one.
    """
    plain = app.openapi

    def completed() -> dict[str, Any]:
        document = plain()
        components = document["components"]
        components["schemas"].update(schemas)
        if open_paths is not None:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
            for path in open_paths & document["paths"].keys():
                for operation in document["paths"][path].values():
                    operation["security"] = []
        return document

    app.openapi = completed  # type: ignore[method-assign]


def _asset(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    content = files("fastapi_swagger").joinpath("resources", name).read_bytes()

    async def asset() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": f"max-age={DAY_S}"})

    return asset
