"""The view "Watch": the metrics of runs that are training, and the groups of their last steps.

The page asks for what has changed and keeps the rest, so that a person may read a group while the run goes
on. A group's candidates and matrix are loaded when it comes into sight.
"""

import hashlib
import html
import json
import re
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from prefrm.app.application import API, View, require_gradio
from prefrm.app.markup import alert, escaped, facts, heat_map, matrix_facts, not_judged
from prefrm.app.media import CACHING, media_type, thumbnail_of
from prefrm.app.runs import Points, Run, group_metrics, thinned
from prefrm.display import shortened
from prefrm.errors import DataError, PrefrmError
from prefrm.group_log import LoggedEntry
from prefrm.winmatrix import Candidate, Group, WinMatrix

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["charts", "watch_view"]

HERE = Path(__file__).parent
PAGE = """<div id="prefrm-watch" class="prefrm-watch">
<div class="prefrm-watch-bar">
<label>Run <select data-run></select></label>
<label><input type="checkbox" data-follow checked> refresh</label>
<p data-status role="status"></p>
</div>
<section aria-labelledby="prefrm-watch-metrics"><h2 id="prefrm-watch-metrics">Metrics</h2>
<div class="prefrm-charts" data-charts></div>
<details data-more hidden><summary>Other metrics</summary><div class="prefrm-charts"></div></details>
</section>
<section aria-labelledby="prefrm-watch-groups"><h2 id="prefrm-watch-groups">Groups of the last steps</h2>
<div class="prefrm-watch-bar">
<label>Step <select data-step><option value="">all</option></select></label>
<label>Prompt <input type="search" data-prompt placeholder="any"></label>
<p data-count></p>
</div>
<div class="prefrm-watch-groups" data-groups></div>
</section>
</div>"""
# Metrics with these prefixes share a chart, as curves that part are what a person looks for.
TOGETHER = ("eval/", "reward/")
# Of the other metrics, those that are drawn without being asked for, by the start of a part of their names.
SHOWN = ("loss", "reward", "groups", "validation", "order_gap", "win_rate", "kl", "accuracy", "invalid")
PLACE = re.compile("(context-)?([0-9]{1,6})")
FLAT = 1e-4  # of its largest value, the range of a metric that does not change
MOST_THUMBNAILS, KEPT_GROUPS = 2048, 8
PROMPT_CHARACTERS = 160


def watch_view(runs: Sequence[Run]) -> View:
    """The page and the endpoints for some runs."""

    def build() -> None:
        require_gradio().HTML(PAGE, padding=False)

    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("watch.css", "watch.js"))
    return View(
        name="Watch",
        build=build,
        router=_router([_Watched(run) for run in runs]),
        head=f"<style>{style}</style><script>{script}</script>",
    )


class _Watched:
    """A run, read by one request at a time."""

    def __init__(self, run: Run) -> None:
        self.name = run.name
        self._run = run
        self._lock = threading.Lock()
        self._entries: dict[str, LoggedEntry] = {}
        # The images of a group are asked for together.
        self._group = lru_cache(KEPT_GROUPS)(run.group)
        self._thumbnail = lru_cache(MOST_THUMBNAILS)(self._make_thumbnail)

    def state(self) -> dict[str, Any]:
        """Everything but the groups' content: `charts`, `groups`, and a `mistake` if some file is damaged."""
        mistake = ""
        with self._lock:
            try:
                self._entries = {entry.id: entry for entry in self._run.entries()}
            except PrefrmError as error:
                mistake = str(error)
            metrics = self._run.metrics()
        entries = list(self._entries.values())
        return {
            "charts": charts(metrics | group_metrics(entries)),
            "groups": [
                {
                    "id": entry.id,
                    "step": entry.step,
                    "evaluation": entry.evaluation,
                    "prompt": shortened(entry.prompt, PROMPT_CHARACTERS),
                    # Until the card is there, its place is kept.
                    "size": entry.size,
                }
                for entry in entries
            ],
            "changed": max([*(entry.time for entry in entries), self._run.changed()], default=0),
            "mistake": mistake,
        }

    def card(self, id: str, base: str) -> str:
        """A group as HTML. Raises `DataError` if it is no longer in the log."""
        with self._lock:
            if id not in self._entries:
                raise DataError("this group is no longer in the log, which keeps those of the last steps")
            entry = self._entries[id]
            # Texts stand in the page; images and videos are asked for by themselves.
            texts = self._group(id).candidates if entry.kind == "text" else ()
        return _card(entry, texts, base)

    def content(self, id: str, place: str) -> bytes:
        """A candidate, "3", or an image of the context, "context-0". Raises `DataError`."""
        with self._lock:
            group = self._group(id)
        return _content(group, place)

    def thumbnail(self, id: str, place: str) -> bytes:
        """The content as a small WebP. Raises `DataError`, or `MediaError` if it cannot be decoded."""
        return self._thumbnail(id, place)

    def _make_thumbnail(self, id: str, place: str) -> bytes:
        return thumbnail_of(self.content(id, place))


def charts(metrics: Mapping[str, Points]) -> list[dict[str, Any]]:
    """What is drawn, in order: each with a `title`, `series` of points by name, and whether it is `shown`.

    A metric that does not change is not shown unless it is asked for, as the mean win rate of groups.
    """
    found: list[dict[str, Any]] = []
    for prefix in TOGETHER:
        several = {name: points for name, points in metrics.items() if name.startswith(prefix)}
        if len(several) > 1:
            found.append(_chart(prefix.rstrip("/"), several, prefix))
    drawn = {name for chart in found for name in (f"{chart['title']}/{part}" for part in chart["series"])}
    found += [_chart(name, {name: points}) for name, points in metrics.items() if name not in drawn]
    return sorted(found, key=lambda chart: not chart["shown"])


def _chart(title: str, series: Mapping[str, Points], prefix: str = "") -> dict[str, Any]:
    values = [value for points in series.values() for _, value in points]
    parts = title.replace("/", " ").replace("eval_", " ").replace("train", " ").split()
    known = bool(prefix) or any(part.startswith(SHOWN) for part in parts)
    moves = max(values) - min(values) > FLAT * max(map(abs, values))
    return {
        "title": title,
        "series": {name.removeprefix(prefix): thinned(points) for name, points in series.items()},
        "shown": known and moves and not title.endswith("/std"),
    }


def _card(entry: LoggedEntry, texts: Sequence[Candidate], base: str) -> str:
    """A group as HTML: prompt, candidates from the highest advantage or reward on, and matrices.

    Args:
        entry: of the group.
        texts: its candidates, if they are texts.
        base: URL below which the group's images are.
    """
    order = _order(entry)
    labels = [f"candidate {place}" for place in range(entry.size)]
    # In a matrix, its number is the name of a picture.
    tiles = [_tile(entry, n, texts, base, "") for n in order]
    context = "".join(
        _linked(f"{base}/context-{n}", f"context image {n}") for n in range(entry.context_images)
    )
    known = [
        *([] if entry.step is None else [f"step {entry.step}"]),
        *(["evaluation"] if entry.evaluation else []),
        *([entry.criterion] if entry.criterion else []),
        f"best {'advantage' if entry.advantages is not None else 'reward'} first",
    ]
    candidates = "".join(
        f"<li>{_tile(entry, n, texts, base, label)}{_numbers(entry, n)}</li>"
        for n, label in zip(order, labels, strict=True)
    )
    matrices = "".join(
        f"<details{' open' if place == 0 else ''}><summary>win matrix: {escaped(name)}</summary>"
        f"{_matrix(matrix.permuted(order), tiles, labels)}</details>"
        for place, (name, matrix) in enumerate(entry.matrices.items())
    )
    return (
        f"<h3>{escaped(entry.prompt) or 'no prompt'}</h3>"
        f'<p class="prefrm-note">{escaped(" · ".join(known))}</p>'
        f"{f'<p class=prefrm-watch-context>{context}</p>' if context else ''}"
        f'<ol class="prefrm-strip" start="0" aria-label="candidates, best first">{candidates}</ol>'
        f"{matrices}"
    )


def _matrix(matrix: WinMatrix, tiles: Sequence[str], labels: Sequence[str]) -> str:
    # A name under each picture would repeat its number.
    unnamed = [""] * matrix.size
    return heat_map(matrix, unnamed, tiles) + facts(matrix_facts(matrix)) + not_judged(matrix, labels)


def _order(entry: LoggedEntry) -> list[int]:
    """The candidates from the highest advantage on, or the highest of the first reward; then the others."""
    values = next(iter(entry.rewards.values()), ()) if entry.advantages is None else entry.advantages
    known = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    known = np.concatenate([known, np.full(entry.size - len(known), np.nan)])
    return [int(n) for n in np.argsort(-known, kind="stable")]


def _numbers(entry: LoggedEntry, n: int) -> str:
    """The rewards of a candidate and its advantage; the name of a single reward is for readers alone."""
    hidden = ' class="prefrm-hidden"' if len(entry.rewards) == 1 else ""
    found = [
        f"<div><dt{hidden}>{escaped(name)}</dt><dd>{_shown(values, n, '.3f')}</dd></div>"
        for name, values in entry.rewards.items()
    ]
    if entry.advantages is not None:
        advantage = _shown(entry.advantages, n, "+.2f")
        kind = {"+": "up", "-": "down"}.get(advantage[0], "none")
        found.append(
            f'<div class="prefrm-{kind}"><dt class="prefrm-hidden">advantage</dt><dd>{advantage}</dd></div>'
        )
    return f'<dl class="prefrm-numbers">{"".join(found)}</dl>'


def _shown(values: Sequence[float | None], n: int, form: str) -> str:
    value = values[n] if n < len(values) else None
    return "none" if value is None or np.isnan(value) else format(value, form)


def _tile(entry: LoggedEntry, n: int, texts: Sequence[Candidate], base: str, label: str) -> str:
    if entry.kind == "text":
        text = str(texts[n] or "missing")
        return f'<span class="prefrm-tile prefrm-text" title="{escaped(text, 2000)}">{escaped(text)}</span>'
    return _linked(f"{base}/{n}", label) if label else _image(f"{base}/{n}", label)


def _linked(url: str, label: str) -> str:
    link = f'<a href="{html.escape(url)}" target="_blank" rel="noopener" aria-label="{label}, whole">'
    return f"{link}{_image(url, label)}</a>"


def _image(url: str, label: str) -> str:
    source = html.escape(f"{url}/thumbnail")
    return f'<img class="prefrm-tile" src="{source}" alt="{label}" loading="lazy" decoding="async">'


def _content(group: Group, place: str) -> bytes:
    found = PLACE.fullmatch(place)
    among: Sequence[Candidate] = group.context if found is not None and found[1] else group.candidates
    if found is None or (number := int(found[2])) >= len(among):
        raise DataError(f"a group of {group.size} candidates has no {place!r}")
    content = among[number]
    if not isinstance(content, bytes) or not content:
        raise DataError(f"candidate {number} is missing")
    return content


def _router(runs: Sequence[_Watched]) -> "APIRouter":
    from fastapi import APIRouter, HTTPException, Response
    from fastapi.responses import HTMLResponse, JSONResponse

    router = APIRouter()

    def found(number: int) -> _Watched:
        if not 0 <= number < len(runs):
            raise HTTPException(404, f"there are {len(runs)} runs")
        return runs[number]

    def names() -> JSONResponse:
        return JSONResponse([run.name for run in runs])

    def state(number: int, version: str = "") -> Response:
        body = json.dumps(found(number).state(), allow_nan=False).encode()
        now = hashlib.sha256(body).hexdigest()[:16]
        if version == now:
            return Response(status_code=204)
        return Response(body, media_type="application/json", headers={"x-version": now})

    def group(number: int, id: str) -> HTMLResponse:
        try:
            return HTMLResponse(found(number).card(id, f"{API}/watch/{number}/{quote(id, safe='')}"))
        except PrefrmError as error:
            return HTMLResponse(alert(str(error)), 404)

    def whole(number: int, id: str, place: str) -> Response:
        try:
            data = found(number).content(id, place)
        except PrefrmError as error:
            return Response(str(error), 404)
        return Response(data, media_type=media_type(data), headers=CACHING)

    def thumbnail(number: int, id: str, place: str) -> Response:
        try:
            data = found(number).thumbnail(id, place)
        except PrefrmError as error:
            return Response(str(error), 404)
        return Response(data, media_type="image/webp", headers=CACHING)

    router.add_api_route("/runs", names)
    router.add_api_route("/{number}/state", state)
    router.add_api_route("/{number}/{id}", group)
    router.add_api_route("/{number}/{id}/{place}", whole)
    router.add_api_route("/{number}/{id}/{place}/thumbnail", thumbnail)
    return router
