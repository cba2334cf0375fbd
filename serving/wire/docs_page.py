"""The OpenAPI document, and `/docs`, which shows it with the server's own assets and loads nothing else."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

__all__ = ["DOCS_PATHS", "OPENAPI_PATH", "complete_document", "docs_router"]

OPENAPI_PATH = "/openapi.json"
# Files of the package fastapi-swagger, which carries the current Swagger UI.
ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}
DOCS_PATHS = frozenset({OPENAPI_PATH, "/docs", *(f"/docs/{name}" for name in ASSETS)})
"""What a browser asks for before it can be given a token. None of it says what is served."""
PROTOCOL = "Open Inference Protocol"
DAY_S = 86_400


def docs_router(title: str) -> APIRouter:
    """The page and its assets; none of them is in the document itself."""
    router = APIRouter(include_in_schema=False)
    # Relative to the page, so that they are found behind a proxy that puts a prefix before every path.
    script, style, icon = (f"docs/{name}" for name in ASSETS)

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=OPENAPI_PATH.removeprefix("/"),
            title=title,
            swagger_js_url=script,
            swagger_css_url=style,
            swagger_favicon_url=icon,
            # The validator that Swagger UI asks by default is on another server.
            swagger_ui_parameters={"validatorUrl": None, "defaultModelsExpandDepth": 0},
        )

    router.add_api_route("/docs", page, methods=["GET"])
    for name, media_type in ASSETS.items():
        router.add_api_route(f"/docs/{name}", _asset(name, media_type), methods=["GET"])
    return router


def complete_document(app: FastAPI) -> None:
    """Have the document name the protocol of the other routes, and the token that a server may want."""
    plain = app.openapi

    def completed() -> dict[str, Any]:
        document = plain()
        for operations in document["paths"].values():
            for operation in operations.values():
                operation.setdefault("tags", [PROTOCOL])
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}, {}]
        return document

    app.openapi = completed  # type: ignore[method-assign]


def _asset(name: str, media_type: str) -> Callable[[], Awaitable[Response]]:
    content = files("fastapi_swagger").joinpath("resources", name).read_bytes()

    async def asset() -> Response:
        return Response(content, media_type=media_type, headers={"Cache-Control": f"max-age={DAY_S}"})

    return asset
