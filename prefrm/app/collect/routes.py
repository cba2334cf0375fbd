"""The HTTP calls of the page: the next question, an answer, the contents, and how far everything is.

Every answer is one request with an idempotency key, and is on the disk before the reply to it, which shows
the next question. A client that got no reply repeats the request unchanged.
"""

from dataclasses import asdict
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict

from prefrm.answers import AnswerConflict, Verdict
from prefrm.app.collect.collection import Collection, Shown
from prefrm.app.media import CACHING, media_type
from prefrm.errors import DataError

__all__ = ["ANNOTATOR", "AnswerBody", "collect_router"]

ANNOTATOR = "x-annotator"
"""The header with the name of an annotator, percent-encoded, where the server has no tokens."""
UNNAMED = "me"
MAX_NAME = 100
PAGE = {"page.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


class AnswerBody(BaseModel):
    """The JSON of an answer; the fields are those of `Collection.answer`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: int
    key: str
    verdict: Verdict
    response_s: float | None = None


def collect_router(collection: Collection) -> APIRouter:
    """The endpoints of a collection."""
    router = APIRouter()

    @router.get("/next")
    def next_question(request: Request) -> dict[str, Any]:
        return _reply(collection, request)

    @router.post("/answers")
    def answer(body: AnswerBody, request: Request) -> dict[str, Any]:
        annotator = _annotator(request)
        try:
            recorded = collection.answer(
                annotator, body.question, key=body.key, verdict=body.verdict, response_s=body.response_s
            )
        except AnswerConflict as error:
            raise HTTPException(409, str(error)) from error
        except DataError as error:
            raise HTTPException(422, str(error)) from error
        return {"recorded": recorded, **_reply(collection, request)}

    @router.get("/contents/{digest}")
    def content(digest: str) -> Response:
        found = collection.content(digest)
        if found is None:
            raise HTTPException(404, "no candidate or context image has this digest")
        kind = "text/plain; charset=utf-8" if isinstance(found, str) else media_type(found)
        return Response(found, media_type=kind, headers=CACHING)

    @router.get("/progress")
    def progress() -> dict[str, Any]:
        return asdict(collection.progress())

    @router.get("/{name}")
    def page(name: str) -> Response:
        if name not in PAGE:
            raise HTTPException(404, f"there is no {name:.60}")
        text = (files("prefrm.app.collect") / "page" / name).read_text(encoding="utf-8")
        return Response(text, media_type=PAGE[name], headers={"cache-control": "no-cache"})

    return router


def _annotator(request: Request) -> str:
    """Who answers: the holder of the token, or, on a server without tokens, who says so."""
    if visitor := _visitor(request):
        return visitor
    name = unquote(request.headers.get(ANNOTATOR, UNNAMED)).strip()
    if not 0 < len(name) <= MAX_NAME:
        raise HTTPException(422, f"the name of an annotator has 1 to {MAX_NAME} characters")
    return name


def _visitor(request: Request) -> str:
    return getattr(request.state, "visitor", "")


def _reply(collection: Collection, request: Request) -> dict[str, Any]:
    """The next question, or why there is none, and how far everything is."""
    found = collection.next(_annotator(request))
    progress = collection.progress()
    return {
        "state": "question" if isinstance(found, Shown) else found,
        "question": asdict(found) if isinstance(found, Shown) else None,
        "pairs": progress.pairs,
        "of_pairs": progress.of_pairs,
        "by_name": not _visitor(request),
    }
