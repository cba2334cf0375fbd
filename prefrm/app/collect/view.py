"""The view "Collect": the page on which a person compares two candidates, how far all are, and who answered
how."""

import math
from typing import TYPE_CHECKING

from prefrm.answers.annotators import AnnotatorReport, Share
from prefrm.app.application import API, View, require_gradio
from prefrm.app.collect.collection import Collection, Progress
from prefrm.app.markup import alert, escaped

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["annotator_table", "collect_view", "progress_line"]

NAME = "Collect"
PAGE = f"{API}/collect/page.html"
REFRESH_S = 5.0
FRAME = f'<iframe class="prefrm-collect" src="{PAGE}" title="Compare two candidates"></iframe>'
# Keys that are pressed beside the frame are answers, too, unless something else has the focus.
HEAD = """<style>
.prefrm-collect {
  width: 100%; height: max(540px, calc(100vh - 150px)); display: block;
  border: 1px solid var(--border-color-primary); border-radius: 12px;
}
.prefrm-annotators {
  width: 100%; margin: .5rem 0; border-collapse: collapse !important;
  font-size: .9rem; font-variant-numeric: tabular-nums;
}
.prefrm-annotators th, .prefrm-annotators td {
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important;
  text-align: right !important; padding: .4rem .7rem !important; white-space: nowrap;
}
.prefrm-annotators thead th { color: var(--body-text-color-subdued); font-weight: 400; }
.prefrm-annotators th:first-child { text-align: left !important; }
</style><script>
document.addEventListener("keydown", event => {
  const frame = document.querySelector(".prefrm-collect");
  const {key, repeat, ctrlKey, metaKey, altKey} = event;
  if (!frame || document.activeElement !== document.body || ctrlKey || metaKey || altKey) return;
  if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(key)) return;
  event.preventDefault();
  frame.focus();
  frame.contentDocument.dispatchEvent(new KeyboardEvent("keydown", {key, repeat}));
});
</script>"""


def collect_view(collection: Collection) -> View:
    """The page of a collection; its other addresses are for annotators who need no more than that page."""
    return View(name=NAME, build=lambda: _build(collection), router=_router(collection), head=HEAD)


def _router(collection: Collection) -> "APIRouter":
    from prefrm.app.collect.routes import collect_router

    return collect_router(collection)


def _build(collection: Collection) -> None:
    gradio = require_gradio()

    def report() -> str:
        return progress_line(collection.progress()) + annotator_table(collection.annotators())

    gradio.HTML(FRAME)
    with gradio.Accordion("Progress and annotators", open=False):
        gradio.HTML(report, every=gradio.Timer(REFRESH_S))


def progress_line(progress: Progress) -> str:
    """How far a collection is, as HTML."""
    listed = (
        ""
        if progress.listed == progress.groups
        else f"; {progress.listed:,} of {progress.groups:,} groups are listed so far"
    )
    line = (
        f"{progress.pairs:,} of {progress.of_pairs:,} pairs are answered by as many people as asked{listed}."
    )
    return f'<p class="prefrm-note">{line}</p>' + "".join(map(alert, progress.problems))


NOTE = (
    "Reliability: how often the answer is the true preference (0.5 is chance), from known pairs, repeats and "
    "pairs that several people answered. <code>prefrm data build collected</code> leaves unreliable ones out."
)
HEADER = (
    "Annotator",
    "Answers",
    "Reliability",
    "95% interval",
    "Known",
    "Repeats",
    "Left",
    "Ties",
    "Skipped",
    "Median time",
    "",
)


def annotator_table(reports: list[AnnotatorReport]) -> str:
    """What the answers say about each annotator, as an HTML table; "" without any."""
    if not reports:
        return ""
    head = "".join(f'<th scope="col">{name}</th>' for name in HEADER)
    rows = "".join(
        f'<tr><th scope="row">{escaped(report.name)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in _cells(report))
        + "</tr>"
        for report in reports
    )
    table = f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return (
        f'<div class="prefrm-scroll" tabindex="0"><table class="prefrm-annotators">{table}</table></div>'
        f'<p class="prefrm-note">{NOTE}</p>'
    )


def _cells(report: AnnotatorReport) -> tuple[str, ...]:
    return (
        f"{report.answers:,}",
        f"{report.reliability:.2f}",
        f"{report.low:.2f} to {report.high:.2f}",
        _share(report.known),
        _share(report.repeats),
        "" if math.isnan(report.left.value) else f"{report.left.value:.0%}",
        f"{report.ties:,}",
        f"{report.skipped:,}",
        "" if math.isnan(report.median_s) else f"{report.median_s:.1f} s",
        "<strong>unreliable</strong>" if report.unreliable else "",
    )


def _share(share: Share) -> str:
    return f"{share.count:,} of {share.total:,}" if share.total else ""
