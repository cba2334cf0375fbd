"""The view "Try": a prompt and candidates, and what one judge or two say of them."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefrm.app.application import View, require_gradio
from prefrm.app.judges import Judges
from prefrm.app.markup import alert, escaped, facts, heat_map, matrix_facts, not_judged, ranking_strip, tile
from prefrm.app.media import MediaStore
from prefrm.app.trials import Answer, Trial, Trials
from prefrm.errors import DataError, PrefrmError
from prefrm.eval import kendall_tau
from prefrm.winmatrix import Inputs

if TYPE_CHECKING:
    from fastapi import APIRouter

__all__ = ["trial_view"]

NONE = "none"
FILES, TEXTS = "Images or videos", "Texts"
EMPTY = """<div class="prefrm-empty"><p>Give a prompt and two candidates or more, then compare them.</p>
<p>Drop or paste images here, or press <kbd>Ctrl</kbd> <kbd>Enter</kbd> to compare.</p></div>"""
# Pasted or dropped anywhere, images become candidates.
SCRIPT = """<script>
(() => {
  const add = files => {
    const input = document.querySelector("#prefrm-candidates input[type=file]");
    if (!input || !files.length) return false;
    const transfer = new DataTransfer();
    files.forEach(file => transfer.items.add(file));
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", {bubbles: true}));
    return true;
  };
  document.addEventListener("paste", event => {
    if (add([...(event.clipboardData?.files ?? [])])) event.preventDefault();
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    document.querySelector("#prefrm-compare")?.click();
  });
})();
</script>"""
SHOW_LINK = "name => { if (name) history.replaceState(null, '', `?trial=${name}`); }"


def trial_view(judges: Judges, trials: Trials, store: MediaStore) -> View:
    """The page on which a person gives a prompt and candidates to one judge or two."""
    return View(
        name="Try",
        about="What judges say of candidates that you choose",
        build=lambda: _build(judges, trials, store),
        router=_router(trials),
        head=SCRIPT,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Components:
    """The gradio components of the page, in the order in which `_draw` adds them."""

    prompt: Any
    criterion: Any
    first: Any
    second: Any
    reads: Any
    compare: Any
    kind: Any
    files: Any
    texts: Any
    context: Any
    result: Any
    shown: Any

    @property
    def given(self) -> list[Any]:
        """Those with a trial, in the order in which `_trial` takes what they hold."""
        return [
            *(self.prompt, self.kind, self.files, self.texts),
            *(self.context, self.criterion, self.first, self.second),
        ]

    @property
    def answered(self) -> list[Any]:
        """Those with the answers: their HTML, and the name of the trial that it is of."""
        return [self.result, self.shown]


def _build(judges: Judges, trials: Trials, store: MediaStore) -> None:
    gradio = require_gradio()
    page, events = _draw(judges.names), _Events(judges, trials, store)

    # Gradio passes the request to what is annotated with its class.
    def restore(request: gradio.Request) -> list[Any]:  # type: ignore[name-defined]
        return events.restore(request.query_params.get("trial"))

    gradio.on(None, restore, None, [*page.given, *page.answered], api_visibility="private").then(
        events.reproduce, page.shown, page.result, api_visibility="private"
    )
    gradio.on(
        None,
        events.describe,
        [page.first, page.second],
        [page.reads, page.kind, page.context, page.criterion],
        api_visibility="private",
    )
    page.kind.change(events.choose, page.kind, [page.files, page.texts], api_visibility="private")
    gradio.on(
        [page.compare.click, page.prompt.submit],
        events.compare,
        page.given,
        page.answered,
        api_visibility="private",
    ).then(None, page.shown, None, js=SHOW_LINK)


def _draw(names: Sequence[str]) -> _Components:
    """Add the components to the page that is open; `names` are those of the judges."""
    gradio = require_gradio()
    with gradio.Row(equal_height=False):
        with gradio.Column(scale=2, min_width=320):
            prompt = gradio.Textbox(label="Prompt", lines=2, placeholder="what the candidates answer")
            criterion = gradio.Textbox(label="Criterion", placeholder="such as alignment", visible=False)
            with gradio.Row():
                first = gradio.Dropdown(names, value=names[0], label="Judge", min_width=140)
                second = gradio.Dropdown([NONE, *names], value=NONE, label="Beside it", min_width=140)
            reads = gradio.HTML(padding=False)
            compare = gradio.Button("Compare", variant="primary", elem_id="prefrm-compare")
        with gradio.Column(scale=3, min_width=320):
            kind = gradio.Radio([FILES, TEXTS], value=FILES, label="Candidates", visible=False)
            files = _gallery(
                "Candidates: drop, paste or choose files", ["image", "video"], elem_id="prefrm-candidates"
            )
            texts = gradio.Textbox(
                label="Candidates: texts, with a line of --- between two", lines=8, visible=False
            )
            context = _gallery(
                "Context: images that belong to the prompt",
                ["image"],
                elem_id="prefrm-context",
                visible=False,
            )
    return _Components(
        prompt=prompt,
        criterion=criterion,
        first=first,
        second=second,
        reads=reads,
        compare=compare,
        kind=kind,
        files=files,
        texts=texts,
        context=context,
        result=gradio.HTML(EMPTY, padding=False),
        shown=gradio.Textbox(visible=False),
    )


class _Events:
    """What happens on the page: each takes what components hold and gives what others are to hold."""

    def __init__(self, judges: Judges, trials: Trials, store: MediaStore) -> None:
        self._judges, self._trials, self._store = judges, trials, store

    def describe(self, first: str, second: str) -> list[Any]:
        """What the judges read, and the fields for it; waits until they are open."""
        gradio = require_gradio()
        asked = [first, *([second] if second != NONE else [])]
        try:
            inputs = [self._judges.inputs(name) for name in asked]
        except PrefrmError as error:
            return [alert(str(error)), *[gradio.skip()] * 3]
        both = inputs[0] if len(inputs) == 1 else inputs[0].both(inputs[1])
        trained = [
            text if len(asked) == 1 else f"{name}: {text}"
            for name in asked
            if (text := self._judges.trained(name))
        ]
        return [
            f'<p class="prefrm-note">{escaped("; ".join(["ready", _reads(both), *trained]))}</p>',
            gradio.update(visible="text" in both.kinds),
            gradio.update(visible=both.context),
            gradio.update(visible=both.criterion),
        ]

    def choose(self, kind: str) -> list[Any]:
        """The field of the kind of candidates that was chosen."""
        gradio = require_gradio()
        return [gradio.update(visible=kind == FILES), gradio.update(visible=kind == TEXTS)]

    def compare(self, *fields: Any) -> tuple[str, str]:
        """The answers to the trial that the fields hold, and its name."""
        try:
            trial = _trial(*fields)
            name = self._trials.save(trial)
            return _result(name, trial, self._trials.answers(name), self._store), name
        except PrefrmError as error:
            return alert(str(error)), ""

    def restore(self, name: str | None) -> list[Any]:
        """The fields of the trial that the page's URL names, before its judges are asked again."""
        skip, names = require_gradio().skip(), self._judges.names
        if not name:
            return [skip] * 10
        try:
            trial = self._trials.load(name)
        except DataError as error:
            return [*[skip] * 8, alert(str(error)), ""]
        group = trial.group
        is_text = group.kind == "text"
        candidates, pictures = self._trials.files(name)
        return [
            group.prompt,
            TEXTS if is_text else FILES,
            candidates,
            "\n---\n".join(str(text) for text in group.candidates) if is_text else "",
            pictures,
            group.criterion,
            trial.judges[0] if trial.judges[0] in names else names[0],
            trial.judges[1] if trial.judges[1:] and trial.judges[1] in names else NONE,
            f'<p class="prefrm-note">asking {escaped(" and ".join(trial.judges))}</p>',
            name,
        ]

    def reproduce(self, name: str) -> Any:
        """The answers to a restored trial, once its judges are open."""
        if not name:
            return require_gradio().skip()
        return _result(name, self._trials.load(name), self._trials.answers(name), self._store)


def _gallery(label: str, kinds: Sequence[str], **options: Any) -> Any:
    return require_gradio().Gallery(
        label=label,
        interactive=True,
        type="filepath",
        file_types=list(kinds),
        height="auto",
        object_fit="contain",
        **options,
    )


def _trial(
    prompt: str,
    kind: str | None,
    files: Sequence[tuple[str, Any]] | None,
    texts: str | None,
    context: Sequence[tuple[str, Any]] | None,
    criterion: str | None,
    first: str,
    second: str,
) -> Trial:
    """The trial of what the page's fields hold, None of one that is hidden.

    Raises:
        DataError: they do not hold a trial.
    """
    if not prompt.strip():
        raise DataError("the prompt is empty; write what the candidates answer")
    asked = [first, *([second] if second not in (NONE, first) else [])]
    images = [path for path, _ in context or ()]
    if kind == TEXTS:
        return Trial.of_texts(prompt, texts or "", context=images, criterion=criterion or "", judges=asked)
    if len(files or ()) < 2:
        raise DataError("give two candidates or more: drop, paste or choose their files")
    paths = [path for path, _ in files or ()]
    return Trial.of_files(prompt, paths, context=images, criterion=criterion or "", judges=asked)


def _reads(inputs: Inputs) -> str:
    kinds = " or ".join(f"{kind}s" for kind in inputs.kinds) or "nothing that both read"
    more = [name for name in ("context", "criterion") if getattr(inputs, name)]
    also = f", with {' and '.join(more)}" if more else ""
    return f"reads {kinds}{also}"


def _result(name: str, trial: Trial, answers: Sequence[Answer], store: MediaStore) -> str:
    tiles = [
        tile(candidate, store, label)
        for candidate, label in zip(trial.group.candidates, trial.labels, strict=True)
    ]
    linked = [
        tile(candidate, store, label, linked=True)
        for candidate, label in zip(trial.group.candidates, trial.labels, strict=True)
    ]
    parts = [_card(name, n, answer, trial, tiles, linked) for n, answer in enumerate(answers)]
    agreement = _agreement(answers) if len(answers) > 1 else ""
    links = (
        f'<p class="prefrm-links"><a href="?trial={name}">Link to this trial</a>'
        f'<a href="/api/try/{name}.json" download="{name}.json">Download JSON</a></p>'
    )
    number = "one" if len(parts) == 1 else "two"
    cards = f'<div class="prefrm-cards prefrm-{number}">{"".join(parts)}</div>'
    return f'<div class="prefrm-result">{agreement}{cards}{links}</div>'


def _card(
    name: str, place: int, answer: Answer, trial: Trial, tiles: Sequence[str], linked: Sequence[str]
) -> str:
    head = f"<h2>{escaped(answer.judge)}</h2>"
    if answer.matrix is None:
        return f'<article class="prefrm-card">{head}{alert(answer.error)}</article>'
    matrix = answer.matrix
    png = f"/api/try/{name}/{place}.png"
    return (
        f'<article class="prefrm-card">{head}<div class="prefrm-body"><div class="prefrm-side">'
        f"{ranking_strip(matrix, trial.labels, linked)}{facts(matrix_facts(matrix))}"
        f"{not_judged(matrix, trial.labels)}"
        f'<p class="prefrm-links"><a href="{png}" download="{name}.png">Download PNG</a></p></div>'
        f"<div>{heat_map(matrix, trial.labels, tiles)}</div></div></article>"
    )


def _agreement(answers: Sequence[Answer]) -> str:
    """How far two judges agree on the group."""
    matrices = [answer.matrix for answer in answers if answer.matrix is not None]
    if len(matrices) < 2:
        return ""
    first, second = matrices
    pairs = [
        (i, j)
        for i in range(first.size)
        for j in range(i + 1, first.size)
        if first.known[i, j] and second.known[i, j]
    ]
    if not pairs:
        return ""
    apart = [abs(float(first.p[i, j]) - float(second.p[i, j])) for i, j in pairs]
    differ = sum((first.p[i, j] - 0.5) * (second.p[i, j] - 0.5) < 0 for i, j in pairs)
    i, j = pairs[apart.index(max(apart))]
    both = first.judged & second.judged
    tau = kendall_tau(*(matrix.win_rate(on_missing="drop")[both] for matrix in (first, second)))
    found = [
        ("verdicts that differ", f"{differ} of {len(pairs)} pairs"),
        ("furthest apart", f"{i} against {j}, by {max(apart):.2f}"),
        ("Kendall's tau of the rankings", "-" if tau != tau else f"{tau:.2f}"),
    ]
    return f'<section class="prefrm-agreement" aria-label="the two judges">{facts(found)}</section>'


def _router(trials: Trials) -> "APIRouter":
    from fastapi import APIRouter, HTTPException, Response
    from fastapi.responses import JSONResponse

    router = APIRouter()

    def as_json(name: str) -> JSONResponse:
        try:
            return JSONResponse(trials.as_json(name))
        except DataError as error:
            raise HTTPException(404, str(error)) from error

    def as_png(name: str, place: int) -> Response:
        try:
            trial, answers = trials.load(name), trials.answers(name)
            answer = answers[place]
        except (DataError, IndexError) as error:
            raise HTTPException(404, str(error)) from error
        if answer.matrix is None:
            raise HTTPException(409, answer.error)
        from prefrm.plots import win_matrix_figure

        title = f"{trial.group.prompt} ({answer.judge})"
        figure = win_matrix_figure(
            answer.matrix,
            trial.group.candidates,
            title,
            criterion=trial.group.criterion,
            context=trial.group.context,
            labels=trial.labels,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return Response(buffer.getvalue(), media_type="image/png")

    router.add_api_route("/{name}.json", as_json)
    router.add_api_route("/{name}/{place}.png", as_png)
    return router
