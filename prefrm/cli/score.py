"""`prefrm score`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from prefrm import media
from prefrm.cli.criteria import ByCriteria
from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import (
    AsJson,
    Context,
    Pairs,
    Target,
    hinting_at_texts,
    open_scorer,
    require_context,
    require_judged,
    require_one_kind,
    require_readable,
)
from prefrm.display import one_line
from prefrm.errors import ConfigError, MediaError
from prefrm.options import with_options
from prefrm.rewards import Criteria, criterion_name, ranks
from prefrm.winmatrix import Group, WinMatrix, score_all, unjudged_reasons

__all__ = ["score"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@with_options
def score(
    target: Target,
    prompt: Annotated[str, typer.Option(help="what the candidates answer")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE FILE ...", help="two image files or more, or as many videos"),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option(help="a candidate, instead of files; given two times or more")
    ] = None,
    best: Annotated[
        int | None,
        typer.Option(min=1, help="print only the N best; unreadable files are named and left out"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="also draw the matrix into this file")] = None,
    context: Context = None,
    pairs: Pairs = None,
    as_json: AsJson = False,
    *,
    by: ByCriteria,
    local: Local,
    remote: Remote,
) -> None:
    """Compare images, videos or texts with each other: the win matrix and the ranking, or the best of them.

    With several criteria, a matrix for each and the combined one. The exit status is 1 if nothing could be
    judged.
    """
    from prefrm.heatmap import terminal_matrix
    from prefrm.progress import waiting
    from prefrm.scoring import matrix_to_json

    local.require_bundle(target)
    remote.require_url(target)
    if plot is not None:
        _require_plot(plot)
    if not prompt.strip():
        raise ConfigError("--prompt is empty; give the prompt of the candidates")
    _require_files_or_texts(files or [], text or [])
    criteria = by.criteria() or Criteria(names=("",))
    if best is not None and files:
        files = _readable(files)
    group = _group(prompt, files or [], text or [], context or [])
    require_context(context or [], group)
    require_one_kind(files or [], group)
    with (
        open_scorer(target, pairs, remote, local) as scorer,
        waiting(f"scoring {group.size} {group.kind}s"),
    ):
        matrices = score_all(scorer, criteria.groups([group]))
    (by_criterion,), (matrix,) = criteria.answers(matrices), criteria.combined(matrices)
    # A single criterion's matrix is the whole.
    parts = by_criterion if len(by_criterion) > 1 else {}
    shown = [str(file) for file in files] if files else list(text or [])
    labels = _names(files) if files else shown
    if plot is not None:
        from prefrm.plots import win_matrix_figure

        (single, *others) = criteria.names
        win_matrix_figure(
            matrix,
            group.candidates,
            prompt,
            criterion=criteria.describe() if others else single,
            context=group.context,
            labels=labels,
        ).savefig(plot)
    ranked = [] if best is None else _best(matrix, parts, shown, best)
    if as_json:
        answer = {"prompt": prompt, "candidates": shown, **matrix_to_json(matrix)}
        if by.criterion:
            answer["criteria"] = {name: matrix_to_json(part) for name, part in by_criterion.items()}
        if best is not None:
            answer["best"] = ranked
        print(json.dumps(answer, indent=2, allow_nan=False))
    elif best is not None:
        _print_best(ranked, list(parts))
        for reason in unjudged_reasons(matrix, labels):
            print(f"not judged: {one_line(reason)}", file=sys.stderr)
    else:
        elsewhere = f"--json prints it, and {'--plot FILE draws it' if plot is None else f'{plot} shows it'}"
        for name, part in parts.items():
            print(one_line(f"by {criterion_name(name)}"))
            Console().print(terminal_matrix(part, labels, elsewhere=elsewhere))
        if parts:
            print(f"together, by {criteria.combination.describe()}")
        Console().print(terminal_matrix(matrix, labels, elsewhere=elsewhere))
    require_judged(bool(matrix.judged.any()), "; ".join(unjudged_reasons(matrix, labels)))


def _group(prompt: str, files: list[Path], texts: list[str], context: list[Path]) -> Group:
    if texts:
        return Group(prompt=prompt, candidates=tuple(texts), context=tuple(map(media.read, context)))
    with hinting_at_texts(files):
        return Group.of(prompt, files, context=context)


def _require_files_or_texts(files: list[Path], texts: list[str]) -> None:
    if bool(files) == bool(texts):
        raise ConfigError("give two files or more, or --text two times or more")
    if folders := [file for file in files if file.is_dir()]:
        raise ConfigError(f"{folders[0]} is a folder; name its files: {folders[0] / '*'}")


def _require_plot(plot: Path) -> None:
    from prefrm.files import require_writable_file

    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot writes {', '.join(PLOT_SUFFIXES)} files; received {plot}")
    require_writable_file(plot, "--plot")


def _readable(files: list[Path]) -> list[Path]:
    """The files that can be read, at least two; the others are named on standard error, a line each."""
    found = []
    for file in files:
        try:
            require_readable(file, media.read(file))
            found.append(file)
        except MediaError as error:
            print(f"left out: {one_line(str(error))}", file=sys.stderr)
    if len(found) < 2:
        raise ConfigError(f"--best ranks at least 2 files; of these {len(files)}, {len(found)} can be read")
    return found


def _best(
    matrix: WinMatrix, parts: Mapping[str, WinMatrix], shown: list[str], number: int
) -> list[dict[str, object]]:
    """The candidates with the highest win rates, best first; equal win rates share a rank.

    `parts` are the matrices of several criteria, in each of which a candidate has a win rate as well.
    """
    rates = _rates(matrix)
    by_criterion = {name: _rates(part) for name, part in parts.items()}
    return [
        {
            "rank": rank,
            "win_rate": rates[n],
            **({"criteria": {name: own[n] for name, own in by_criterion.items()}} if parts else {}),
            "candidate": shown[n],
        }
        for n, rank in list(ranks(matrix).items())[:number]
    ]


def _rates(matrix: WinMatrix) -> list[float | None]:
    rates = matrix.win_rate(on_missing="drop")
    return [None if rate != rate else round(float(rate), 6) for rate in rates]


def _print_best(best: Sequence[Mapping[str, Any]], criteria: Sequence[str]) -> None:
    """A line for each: rank, win rate, the win rate by each of several criteria, the candidate."""
    width = len(str(len(best)))
    names = ["whole", *(one_line(criterion_name(name)) for name in criteria)]
    if criteria:
        print("  ".join([" " * width, *(f"{name:>5}" for name in names)]))
    for one in best:
        rates = zip(names, [one["win_rate"], *one.get("criteria", {}).values()], strict=False)
        cells = [f"{'-' if rate is None else f'{rate:.3f}':>{max(5, len(name))}}" for name, rate in rates]
        print("  ".join([f"{one['rank']:>{width}}", *cells, one_line(one["candidate"])]))


def _names(files: list[Path]) -> list[str]:
    """File names, or whole paths where two files have the same name."""
    names = [file.name for file in files]
    return names if len(set(names)) == len(names) else [str(file) for file in files]
