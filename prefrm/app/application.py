"""The application: one FastAPI server whose pages are views, drawn by gradio, and their HTTP endpoints.

The protocol of a view is `View`: a module such as `prefrm.app.trial` has one function that makes it from what
it needs (`trial_view(judges)`). No page loads anything from another machine.
"""

import html
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm import media
from prefrm.app.media import MediaStore, media_router
from prefrm.errors import missing_extra

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

__all__ = ["API", "View", "create_application", "require_gradio"]

# Shades of the plots' blue, from the lightest on.
BLUE = (
    *("#f0f6fb", "#dcebf6", "#bdd9ee", "#a9cbe4", "#74a9d2", "#3f83bd", "#2b6cab"),
    *("#1d5896", "#17508f", "#123f73", "#0c2b50"),
)
# Gradio's files of the other weights have but a few letters.
FONT_WEIGHTS = (400, 700)
API = "/api"
"""Where the endpoints of views are: those of the view "Collect" are under `/api/collect`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One page of the application.

    Attributes:
        name: in the navigation, such as "Try".
        about: one line about it, below its name.
        build: called once, when the application is made: adds the page's components, with their events, to
            the `gradio.Blocks` that is open.
        router: endpoints without gradio, below `/api/NAME`: a page's own scripts and images call them there.
        head: HTML for the `<head>` of all pages, such as a script or a style, whose selectors must be the
            view's own.
    """

    name: str
    build: Callable[[], None]
    about: str = ""
    router: "APIRouter | None" = None
    head: str = ""

    @property
    def path(self) -> str:
        """The last part of the page's URL, unless it is the first view, which is at "/"."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower())


def require_gradio() -> Any:
    """The module `gradio`. Raises `MissingExtraError` if it or what it needs is not installed."""
    # It asks whether there is a newer gradio, and counts.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    try:
        import gradio
    except ImportError as error:
        raise missing_extra(error.name or "gradio", "app") from error
    return gradio


def create_application(views: Sequence[View], store: MediaStore, *, title: str = "prefrm") -> "FastAPI":
    """The ASGI application of some views, of which the first one is at "/".

    Args:
        views: at least one.
        store: of the images and videos that the pages show.
        title: of the pages.

    Raises:
        MissingExtraError: gradio is not installed.
    """
    gradio = require_gradio()
    from fastapi import FastAPI

    first = views[0]
    pages = gradio.Blocks(title=title, analytics_enabled=False)
    for view in views:
        with pages if view is first else pages.route(view.name, f"/{view.path}"):
            gradio.Navbar(main_page_name=first.name, visible=len(views) > 1)
            gradio.HTML(_heading(view), padding=False)
            view.build()
    application = FastAPI(title=title, openapi_url=None, docs_url=None, redoc_url=None)
    application.include_router(media_router(store))
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
            theme=_theme(gradio),
            css=(Path(__file__).parent / "style.css").read_text(encoding="utf-8"),
            head="\n".join([HEAD, *(view.head for view in views)]),
            allowed_paths=[str(store.folder)],
            max_file_size=media.VideoLimits().max_bytes,
            favicon_path=str(Path(__file__).parent / "icon.png"),
        )


# Gradio puts the button of an upload into another one, which no screen reader can tell apart.
HEAD = """<script>
new MutationObserver(() => {
  for (const outer of document.querySelectorAll("button:has(button)")) {
    outer.setAttribute("role", "group");
    outer.tabIndex = -1;
  }
}).observe(document, {childList: true, subtree: true});
</script>"""


def _heading(view: View) -> str:
    about = f"<p>{html.escape(view.about)}</p>" if view.about else ""
    return f'<header class="prefrm-heading"><h1>{html.escape(view.name)}</h1>{about}</header>'


def _theme(gradio: Any) -> Any:
    """The look of the plots, in fonts that gradio brings along."""
    sizes = gradio.themes.sizes
    return gradio.themes.Base(
        primary_hue=gradio.themes.Color(*BLUE),
        neutral_hue="slate",
        font=[gradio.themes.LocalFont("IBM Plex Sans", FONT_WEIGHTS), "system-ui", "sans-serif"],
        font_mono=[gradio.themes.LocalFont("IBM Plex Mono", FONT_WEIGHTS), "monospace"],
        text_size=sizes.text_md,
        radius_size=sizes.radius_md,
    ).set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0e1116",
        block_background_fill_dark="#171b22",
        block_label_text_color="#4b5563",
        block_label_text_color_dark="#c3c9d4",
        body_text_color_subdued="#4b5563",
        body_text_color_subdued_dark="#b3bac6",
        button_primary_background_fill="#17508f",
        button_primary_background_fill_hover="#123f73",
        button_primary_background_fill_dark="#2f6fb1",
        button_primary_background_fill_hover_dark="#2b6cab",
        button_primary_text_color="#ffffff",
    )
