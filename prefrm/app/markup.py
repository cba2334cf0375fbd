"""What the views show, as HTML: candidates, the heat map of a win matrix, the ranking, facts and mistakes.

All text is escaped here. The classes are those of `style.css`; every table and picture can be read without
colour, and by a screen reader.
"""

import html
import json
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from prefrm.app.media import MediaStore, media_url, thumbnail_url
from prefrm.containers import is_video
from prefrm.display import shortened, text_color
from prefrm.eval import intransitive_triples
from prefrm.plots.style import LOSS_TO_WIN
from prefrm.rewards import ranks
from prefrm.winmatrix import Candidate, Floats, WinMatrix, unjudged_reasons

__all__ = [
    "alert",
    "data_attribute",
    "escaped",
    "facts",
    "heat_map",
    "matrix_facts",
    "not_judged",
    "ranking_strip",
    "tile",
]

TEXT_CHARACTERS = 240


def escaped(text: str, most: int = 500) -> str:
    """An untrusted text on one line, cut at `most` characters, as HTML."""
    return html.escape(shortened(text, most))


def data_attribute(value: object) -> str:
    """A value as JSON, for an attribute between double quotes that a script reads."""
    return html.escape(json.dumps(value))


def tile(candidate: Candidate, store: MediaStore, label: str = "", *, linked: bool = False) -> str:
    """A candidate in a square: the thumbnail of an image or video, the start of a text, or a hatched box.

    Args:
        candidate: of a group; what is encoded is added to the store.
        store: the one that the application serves.
        label: for whoever does not see the picture; "" if the name stands beside it.
        linked: whether a click shows an image or video whole.
    """
    if not candidate:
        return f'<span class="prefrm-tile prefrm-missing" title="missing">{_hidden("missing")}</span>'
    if isinstance(candidate, str):
        shown = escaped(candidate, TEXT_CHARACTERS)
        return f'<span class="prefrm-tile prefrm-text" title="{escaped(candidate, 2000)}">{shown}</span>'
    digest = store.add(candidate)
    kind = " prefrm-clip" if is_video(candidate) else ""
    image = (
        f'<img class="prefrm-tile{kind}" src="{thumbnail_url(digest)}" alt="{escaped(label)}" loading="lazy" '
        'decoding="async" onerror="this.classList.add(\'prefrm-missing\')">'
    )
    if not linked:
        return image
    name = escaped(f"{label or 'candidate'}, whole")
    return f'<a href="{media_url(digest)}" target="_blank" rel="noopener" aria-label="{name}">{image}</a>'


def heat_map(matrix: WinMatrix, labels: Sequence[str], tiles: Sequence[str]) -> str:
    """The win matrix as a table: row beats column, with win rates right.

    Args:
        matrix: K x K. An inferred p is in italics in a smaller cell, a pair without one is hatched; what is
            known of a pair is in the cell's tooltip.
        labels: K names.
        tiles: K results of `tile`.
    """
    size = range(matrix.size)
    rates = matrix.win_rate(on_missing="drop")
    best = np.nanmax(rates) if np.isfinite(rates).any() else np.nan
    head = "".join(f'<th scope="col"><span class="prefrm-n">{n}</span>{tiles[n]}</th>' for n in size)
    rows = []
    for i in size:
        label = f'<span class="prefrm-name">{escaped(labels[i])}</span>'
        cells = "".join(_cell(matrix, i, j, labels) for j in size)
        name = f'<th scope="row"><span class="prefrm-n">{i}</span>{tiles[i]}{label}</th>'
        rows.append(f"<tr>{name}{cells}{_rate_cell(rates[i], rates[i] == best)}</tr>")
    return (
        '<div class="prefrm-scroll" role="region" aria-label="win matrix" tabindex="0">'
        '<table class="prefrm-matrix"><caption>P(row beats column)</caption>'
        f'<thead><tr><td></td>{head}<th scope="col" class="prefrm-rate">win rate</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="prefrm-legend"><span>row loses</span><span class="prefrm-scale" '
        f'style="background:linear-gradient(90deg,{",".join(LOSS_TO_WIN)})"></span><span>row wins</span>'
        f"{'<i>in italics: inferred from judged pairs</i>' if matrix.inferred.any() else ''}</p>"
    )


def ranking_strip(matrix: WinMatrix, labels: Sequence[str], tiles: Sequence[str]) -> str:
    """The candidates from the best on, with their win rates; those without a win rate are left out."""
    rates = matrix.win_rate(on_missing="drop")
    found = [
        f'<li><span class="prefrm-rank">{rank}</span>{tiles[n]}'
        f'<span class="prefrm-n" title="{escaped(labels[n])}">{n}</span><b>{rates[n]:.3f}</b></li>'
        for n, rank in ranks(matrix).items()
    ]
    if not found:
        return '<p class="prefrm-note">Nothing was judged, so there is no ranking.</p>'
    return f'<ol class="prefrm-ranking" aria-label="ranking, best first">{"".join(found)}</ol>'


def matrix_facts(matrix: WinMatrix) -> list[tuple[str, str]]:
    """What a matrix says beside its numbers: order gaps, ties, cycles, disagreement; names and values."""
    pairs = [(i, j) for i, j in combinations(range(matrix.size), 2) if matrix.valid[i, j]]
    found = [("pairs judged", f"{len(pairs)} of {matrix.size * (matrix.size - 1) // 2}")]
    for name, values in _measures(matrix).items():
        if known := [(float(values[i, j]), i, j) for i, j in pairs if np.isfinite(values[i, j])]:
            most, i, j = max(known)
            mean = sum(value for value, *_ in known) / len(known)
            found.append((name, f"{mean:.3f} on average, at most {most:.3f} ({i} against {j})"))
    cycles, triples = intransitive_triples([matrix])
    if triples:
        found.append(("cycles", f"{cycles} of {triples} triples"))
    return found


def _measures(matrix: WinMatrix) -> dict[str, Floats]:
    """What else is known of pairs, [K, K] each, NaN where it is not."""
    spread = {} if matrix.spread is None else {"spread": matrix.spread}
    return {"order gap": matrix.order_gap, "P(tie)": matrix.tie, **spread}


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and values as a list of terms."""
    terms = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="prefrm-facts">{terms}</dl>'


def not_judged(matrix: WinMatrix, labels: Sequence[str]) -> str:
    """Why pairs have no number: a line for each reason, "" where all have one."""
    reasons = unjudged_reasons(matrix, labels)
    if not reasons:
        return ""
    lines = "".join(f"<li>{escaped(reason)}</li>" for reason in reasons)
    return f'<section class="prefrm-not-judged"><h3>Not judged</h3><ul>{lines}</ul></section>'


def alert(message: str) -> str:
    """A mistake, or why there is no answer, which a screen reader reads at once."""
    return f'<p class="prefrm-alert" role="alert">{escaped(message, 2000)}</p>'


def _cell(matrix: WinMatrix, i: int, j: int, labels: Sequence[str]) -> str:
    if i == j:
        return '<td class="prefrm-self"></td>'
    between = f"{labels[i]} against {labels[j]}"
    if not matrix.known[i, j]:
        reason = escaped(f"{between}: {matrix.reason(i, j)}")
        return f'<td class="prefrm-missing" title="{reason}">{_hidden("not judged")}</td>'
    p = float(matrix.p[i, j])
    details = [f"{between}: {p:.3f}"]
    for name, values in _measures(matrix).items():
        if np.isfinite(values[i, j]):
            details.append(f"{name} {values[i, j]:.3f}")
    inferred = bool(matrix.inferred[i, j])
    details += ["inferred"] * inferred
    color = _color(p)
    style = f"background:rgb({','.join(str(round(255 * c)) for c in color)});color:{text_color(color)}"
    number = f"{p:.2f}".removeprefix("0")
    shown = f'<i style="{style}">{number}</i>' if inferred else number
    own = ' class="prefrm-inferred"' if inferred else f' style="{style}"'
    return f'<td{own} title="{escaped("; ".join(details))}">{shown}</td>'


def _rate_cell(rate: float, best: bool) -> str:
    if not np.isfinite(rate):
        return '<td class="prefrm-rate">not judged</td>'
    bar = f'<span class="prefrm-bar" style="--share:{100 * float(rate):.1f}%"></span>'
    number = f"<b>{rate:.3f}</b>" if best else f"{rate:.3f}"
    return f'<td class="prefrm-rate">{number}{bar}</td>'


def _color(p: float) -> tuple[float, float, float]:
    """Red, green and blue in [0, 1] of the figures' scale at p."""
    stops = [[int(stop[k : k + 2], 16) / 255 for k in (1, 3, 5)] for stop in LOSS_TO_WIN]
    places = np.linspace(0, 1, len(stops))
    red, green, blue = (float(np.interp(p, places, channel)) for channel in zip(*stops, strict=True))
    return red, green, blue


def _hidden(text: str) -> str:
    return f'<span class="prefrm-hidden">{text}</span>'
