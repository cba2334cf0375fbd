"""The application: one FastAPI server whose pages are views, drawn by gradio, and their HTTP endpoints.

The protocol of a view is `View`: a module such as `prefrm.app.trial` has one function that makes it from what
it needs (`trial_view(judges)`). No page loads anything from another machine.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefrm.errors import missing_extra

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

__all__ = ["API", "View", "create_application", "require_gradio"]

API = "/api"
"""Where the endpoints of views are: those of the view "Collect" are under `/api/collect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One page of the application.

    Attributes:
        name: in the navigation, such as "Try".
        build: called once, when the application is made: adds the page's components, with their events, to
            the `gradio.Blocks` that is open.
        router: endpoints without gradio, below `/api/NAME`: a page's own scripts and images call them there.
        head: HTML for the `<head>` of all pages, such as a script or a style, whose selectors must be the
            view's own.
    """

    name: str
    build: Callable[[], None]
    router: "APIRouter | None" = None
    head: str = ""

    @property
    def path(self) -> str:
        """The last part of the page's URL, unless it is the first view, which is at "/"."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())


def require_gradio() -> Any:
    """The module `gradio`. Raises `MissingExtraError` if it or what it needs is not installed."""
    try:
        import gradio
    except ImportError as error:
        raise missing_extra(error.name or "gradio", "app") from error
    return gradio


def create_application(views: Sequence[View], *, title: str = "prefrm") -> "FastAPI":
    """The ASGI application of some views, of which the first one is at "/".

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gradio = require_gradio()
    from fastapi import FastAPI

    first, *others = views
    pages = gradio.Blocks(title=title, analytics_enabled=False)
    with pages:
        gradio.Navbar(main_page_name=first.name, visible=len(views) > 1)
        first.build()
    for view in others:
        with pages.route(view.name, f"/{view.path}"):
            view.build()
    application = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None)
    for view in views:
        if view.router is not None:
            application.include_router(view.router, prefix=f"{API}/{view.path}")
    with warnings.catch_warnings():
        # It says that pages are not rendered on the server, which was not asked for.
        warnings.filterwarnings("ignore", message="SSR mode is not supported", category=UserWarning)
        return gradio.mount_gradio_app(  # type: ignore[no-any-return]
            application,
            pages,
            path="/",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            head="\n".join(view.head for view in views),
        )
