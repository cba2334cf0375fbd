"""The view "Audit": where a judge and the labels of a dataset are apart, and what a person does about it."""

import math
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefrm.app.application import View, require_gradio
from prefrm.app.auditing import Audit
from prefrm.app.findings import AuditedGroup, Finding, TagRow, by_tag, find
from prefrm.app.judges import Judges
from prefrm.app.markup import alert, data_attribute, escaped, tile
from prefrm.app.media import MediaStore
from prefrm.errors import DataError, PrefrmError
from prefrm.records import Correction, PreferenceGroup
from prefrm.rewards import criterion_name

if TYPE_CHECKING:
    from fastapi import APIRouter, Request, Response

__all__ = ["audit_view"]

GROUPS, SHOWN = 200, 24
ALL = "all"
# Titles of the kinds of findings, and what a page without any says.
TITLES = {
    "disagreement": ("Disagreements", "The judge prefers what the labels prefer in every judged pair."),
    "order gap": ("Order gaps", "No verdict depends on the presentation order."),
    "cycle": ("Cycles", "The verdicts of every group agree with a ranking."),
    "criteria": ("Criteria", "No two criteria contradict each other; the groups may have only one."),
}
SCRIPT = """<script>
document.addEventListener("click", async event => {
  const button = event.target.closest("[data-prefrm-audit]");
  if (!button) return;
  const {path, body} = JSON.parse(button.dataset.prefrmAudit);
  const card = button.closest(".prefrm-finding"), said = card.querySelector("[role=status]");
  const note = card.querySelector("input")?.value ?? "";
  const answer = await fetch(`/api/audit/${path}`, {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({...body, note}),
  });
  const found = await answer.json();
  said.textContent = answer.ok ? found.done : found.error;
  if (!answer.ok) return;
  for (const other of card.querySelectorAll(`[data-prefrm-group="${button.dataset.prefrmGroup}"]`))
    other.setAttribute("aria-pressed", String(other === button));
});
</script>"""


def audit_view(judges: Judges, audit: Audit, store: MediaStore) -> View:
    """The page on which a judge is held against the labels of a dataset."""
    return View(
        name="Audit",
        about="Where a judge and the labels of a dataset are apart",
        build=lambda: _build(judges, audit, store),
        router=_router(audit),
        head=SCRIPT,
    )


def _build(judges: Judges, audit: Audit, store: MediaStore) -> None:
    gradio = require_gradio()
    names = judges.names
    with gradio.Row(equal_height=True):
        judge = gradio.Dropdown(names, value=names[0], label="Judge", min_width=160)
        most = gradio.Number(
            min(GROUPS, len(audit.data)),
            label=f"Groups, of {len(audit.data)} in {audit.data.split}",
            minimum=1,
            precision=0,
            min_width=160,
        )
        start = gradio.Button("Audit", variant="primary", scale=0, min_width=140, elem_id="prefrm-audit")
    status = gradio.HTML(padding=False)
    with gradio.Row():
        kind = gradio.Radio(
            [(title, name) for name, (title, _) in TITLES.items()], value="disagreement", label="Findings"
        )
        tag = gradio.Dropdown([ALL], value=ALL, label="Tag", min_width=160)
    shown = gradio.HTML(padding=False)
    timer, seen = gradio.Timer(1.0), gradio.State("")
    skip = gradio.skip()

    def show(judge: str, kind: str, tag: str) -> tuple[str, str, Any]:
        progress = audit.progress(judge)
        if progress is None:
            return "", _empty("Choose a judge and press Audit: it judges the groups in the background."), skip
        groups = list(progress.groups)
        tags = [row.tag for row in by_tag(groups)[1:]]
        found = find(groups, kind, tag="" if tag == ALL else tag, most=SHOWN)
        cards = "".join(_card(audit, judge, finding, store) for finding in found)
        listed = f'<div class="prefrm-findings">{cards}</div>' if cards else _empty(TITLES[kind][1])
        table = _table(by_tag(groups)) if groups else ""
        return (
            _status(len(groups), progress.total, progress.error, progress.running),
            table + listed if groups else _empty("Waiting for the judge."),
            gradio.update(choices=[ALL, *tags]),
        )

    def begin(judge: str, most: float, kind: str, tag: str) -> list[Any]:
        audit.start(judge, int(most or GROUPS))
        return refresh(judge, kind, tag)

    def refresh(judge: str, kind: str, tag: str) -> list[Any]:
        return [*show(judge, kind, tag), _state(audit, judge)]

    def tick(judge: str, kind: str, tag: str, seen: str) -> list[Any]:
        # What is on the page is left alone, with its notes, unless there is news.
        return [skip] * 4 if seen == _state(audit, judge) else refresh(judge, kind, tag)

    outputs = [status, shown, tag, seen]
    chosen = [judge, kind, tag]
    quiet = {"show_progress": "hidden", "api_visibility": "private"}
    start.click(begin, [judge, most, kind, tag], outputs, **quiet)
    timer.tick(tick, [*chosen, seen], outputs, **quiet)
    # When the page is opened, and at each change.
    gradio.on(None, refresh, chosen, outputs, **quiet)


def _state(audit: Audit, judge: str) -> str:
    """Changes with the progress of a judge."""
    progress = audit.progress(judge)
    return f"{judge}: {'' if progress is None else (len(progress.groups), progress.running)}"


def _status(done: int, total: int, error: str, running: bool) -> str:
    bar = f'<span class="prefrm-bar" style="--share:{100 * done / max(1, total):.0f}%"></span>'
    words = "judging" if running else "stopped" if error else "judged"
    line = f'<p class="prefrm-note">{words}: {done} of {total} groups</p>{bar}'
    return f'<div role="status">{line}</div>{alert(error) if error else ""}'


def _empty(text: str) -> str:
    return f'<div class="prefrm-empty"><p>{escaped(text)}</p></div>'


def _table(rows: Sequence[TagRow]) -> str:
    """All groups and those of each tag, with the judge's agreement with the labels."""
    lines = "".join(
        f'<tr><th scope="row">{escaped(row.tag or "all groups")}</th>'
        f"<td>{row.groups}</td><td>{row.strict}</td>"
        f'<td class="prefrm-rate">{_share(row.agreement)}</td><td>{_number(row.order_gap)}</td>'
        f"<td>{row.cycles}</td></tr>"
        for row in rows
    )
    head = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("tag", "groups", "strict pairs", "agreement", "order gap", "cycles")
    )
    return (
        '<div class="prefrm-scroll" role="region" aria-label="by tag" tabindex="0">'
        '<table class="prefrm-tags">'
        f"<thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def _share(share: float) -> str:
    if math.isnan(share):
        return "-"
    return f'{share:.3f}<span class="prefrm-bar" style="--share:{100 * share:.1f}%"></span>'


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _card(audit: Audit, judge: str, finding: Finding, store: MediaStore) -> str:
    group = audit.record(finding.record)
    figures = "".join(_figure(group, finding, n, store) for n in finding.candidates)
    tags = " ".join(f'<span class="prefrm-tag">{escaped(f"{a}: {b}")}</span>' for a, b in group.tags.items())
    by = f"by {criterion_name(group.criterion)}: " if group.criterion else ""
    context = "".join(tile(image, store, "context", linked=True) for image in group.context)
    return (
        f'<article class="prefrm-card prefrm-finding" aria-label="{escaped(finding.record)}">'
        f"<h2>{escaped(by + group.prompt)}</h2>{context}"
        f'<div class="prefrm-pair">{figures}</div>'
        f'<p class="prefrm-text-line">{escaped(finding.text)}</p>'
        f'<p class="prefrm-note">{escaped(finding.record)} {tags}</p>'
        f"{_actions(audit, judge, finding)}</article>"
    )


def _figure(group: PreferenceGroup, finding: Finding, n: int, store: MediaStore) -> str:
    badges = []
    if len(finding.candidates) == 2:
        i, j = finding.candidates
        if n == i:
            badges.append('<span class="prefrm-badge prefrm-judge">judge</span>')
        label = _label(group, i, j)
        if label is not None and ((label > 0.5 and n == i) or (label < 0.5 and n == j)):
            badges.append('<span class="prefrm-badge prefrm-label">label</span>')
    image = tile(group.candidates[n], store, f"candidate {n}", linked=True)
    return f"<figure>{image}<figcaption>{n} {' '.join(badges)}</figcaption></figure>"


def _label(group: PreferenceGroup, i: int, j: int) -> float | None:
    for c in group.comparisons:
        if {c.i, c.j} == {i, j}:
            return c.p if c.i == i else 1 - c.p
    return None


def _actions(audit: Audit, judge: str, finding: Finding) -> str:
    asked: dict[str, Any] = {"judge": judge, "kind": finding.kind, "record": finding.record}
    keep = _button("Keep", "keep", asked | {"candidates": finding.candidates}, audit.is_kept(judge, finding))
    note = '<input type="text" aria-label="note" placeholder="note">'
    if len(finding.candidates) != 2:
        return f'<div class="prefrm-actions">{note}{keep}<span role="status"></span></div>'
    i, j = finding.candidates
    correction = audit.corrections.of(finding.record).get(frozenset((i, j)))
    p = None if correction is None or correction.p is None else correction.p
    if correction is not None and correction.first == j and p is not None:
        p = 1 - p
    choices = ((f"{i} is better", 1.0), ("tie", 0.5), (f"{j} is better", 0.0), ("no label", None))
    buttons = "".join(
        _button(
            text,
            "correct",
            {"record": finding.record, "first": i, "second": j, "p": value},
            correction is not None and p == value,
        )
        for text, value in choices
    )
    return (
        f'<div class="prefrm-actions">{note}{keep}'
        f'<span class="prefrm-choices" role="group" aria-label="correct the label">{buttons}</span>'
        '<span role="status"></span></div>'
    )


def _button(text: str, path: str, body: dict[str, Any], pressed: bool) -> str:
    asked = data_attribute({"path": path, "body": body})
    return (
        f'<button type="button" class="prefrm-button" data-prefrm-group="{path}" '
        f'aria-pressed="{str(pressed).lower()}" data-prefrm-audit="{asked}">{escaped(text)}</button>'
    )


def _router(audit: Audit) -> "APIRouter":
    from fastapi import APIRouter
    from fastapi.responses import FileResponse, JSONResponse
    from starlette.concurrency import run_in_threadpool

    router = APIRouter()

    def posted(act: Callable[[Audit, Any, str], str]) -> Callable[["Request"], Awaitable["Response"]]:
        async def answer(request: "Request") -> "Response":
            try:
                sent = await request.json()
                done = await run_in_threadpool(act, audit, sent, request.state.visitor)
                return JSONResponse({"done": done})
            except (PrefrmError, KeyError, TypeError, ValueError) as error:
                return JSONResponse({"error": str(error)}, 400)

        return answer

    def sent(path: Path) -> Callable[["Request"], "Response"]:
        return lambda request: FileResponse(path) if path.exists() else JSONResponse({}, 404)

    router.add_route("/keep", posted(_keep), methods=["POST"])
    router.add_route("/correct", posted(_correct), methods=["POST"])
    for path in (audit.findings, audit.corrections_file):
        router.add_route(f"/{path.name}", sent(path))
    return router


def _keep(audit: Audit, sent: dict[str, Any], by: str) -> str:
    progress = audit.progress(sent["judge"])
    groups: list[AuditedGroup] = [] if progress is None else progress.groups
    own = [group for group in groups if group.judged.id == sent["record"]]
    candidates = tuple(sent["candidates"])
    searched = groups if sent["kind"] == "criteria" else own
    for finding in find(searched, sent["kind"], most=sys.maxsize):
        if (finding.record, finding.candidates) == (sent["record"], candidates):
            audit.keep(sent["judge"], finding, str(sent.get("note", ""))[:1000], by)
            return f"kept in {audit.findings.name}"
    raise DataError("the judge has no such finding; audit again")


def _correct(audit: Audit, sent: dict[str, Any], by: str) -> str:
    group = audit.record(sent["record"])
    correction = Correction(
        record=sent["record"],
        first=int(sent["first"]),
        second=int(sent["second"]),
        p=None if sent["p"] is None else float(sent["p"]),
        note=str(sent.get("note", ""))[:1000],
        by=by,
    )
    for n in correction.pair:
        if n >= len(group.candidates) or not group.candidates[n]:
            raise DataError(f"record {group.id!r} has no candidate {n}")
    audit.corrections.add(correction)
    return f"written to {audit.corrections_file.name}"
