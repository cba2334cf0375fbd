"""`prefrm score`."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import AsJson, Pairs, Target, open_scorer, require_judged
from prefrm.display import one_line
from prefrm.errors import ConfigError, MediaError
from prefrm.options import with_options

if TYPE_CHECKING:
    from prefrm.winmatrix import WinMatrix

__all__ = ["score"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@with_options
def score(
    target: Target,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE IMAGE ...", help="two image files or more")],
    prompt: Annotated[str, typer.Option(help="what the images answer")],
    best: Annotated[
        int | None,
        typer.Option(min=1, help="print only the N best files; unreadable files are named and left out"),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="also draw the matrix into this file")] = None,
    context: Annotated[
        list[Path] | None,
        typer.Option(help="an image that belongs to the prompt, such as the source of an edit"),
    ] = None,
    pairs: Pairs = None,
    as_json: AsJson = False,
    *,
    local: Local,
    remote: Remote,
) -> None:
    """Compare image files with each other: the win matrix and the ranking, or the best of them.

    The exit status is 1 if nothing could be judged.
    """
    from prefrm.heatmap import terminal_matrix
    from prefrm.scoring import matrix_to_json
    from prefrm.winmatrix import Group, score_all, unjudged_reasons

    local.require_bundle(target)
    remote.require_url(target)
    if plot is not None:
        _require_plot(plot)
    if not prompt.strip():
        raise ConfigError("--prompt is empty; give the prompt of the images")
    if folders := [image for image in images if image.is_dir()]:
        raise ConfigError(f"{folders[0]} is a folder; name its files: {folders[0] / '*'}")
    if best is not None:
        images = _readable(images)
    group = Group.of(prompt, images, context=context or ())
    with open_scorer(target, pairs, remote, local) as scorer:
        (matrix,) = score_all(scorer, [group])
    labels = _names(images)
    if plot is not None:
        from prefrm.plots import win_matrix_figure

        win_matrix_figure(matrix, group.encoded, prompt, labels=labels).savefig(plot)
    if as_json:
        answer = {"prompt": prompt, "images": [str(image) for image in images], **matrix_to_json(matrix)}
        if best is not None:
            answer["best"] = _best(matrix, images, best)
        print(json.dumps(answer, indent=2, allow_nan=False))
    elif best is not None:
        for one in _best(matrix, images, best):
            print(f"{one['rank']:>{len(str(best))}}  {one['win_rate']:.3f}  {one_line(str(one['image']))}")
        for reason in unjudged_reasons(matrix, labels):
            print(f"not judged: {one_line(reason)}", file=sys.stderr)
    else:
        drawn = "--plot FILE draws it" if plot is None else f"{plot} shows it"
        Console().print(terminal_matrix(matrix, labels, elsewhere=f"--json prints it, and {drawn}"))
    require_judged(bool(matrix.judged.any()), "; ".join(unjudged_reasons(matrix, labels)))


def _require_plot(plot: Path) -> None:
    from prefrm.files import require_writable_file

    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot writes {', '.join(PLOT_SUFFIXES)} files; received {plot}")
    require_writable_file(plot, "--plot")


def _readable(images: list[Path]) -> list[Path]:
    """The images that can be read, at least two; the others are named on standard error, a line each."""
    from prefrm import media

    found = []
    for image in images:
        try:
            media.decode(media.read(image))
            found.append(image)
        except MediaError as error:
            named = str(error) if str(image) in str(error) else f"{image}: {error}"
            print(f"left out: {one_line(named)}", file=sys.stderr)
    if len(found) < 2:
        raise ConfigError(f"--best ranks at least 2 images; of these {len(images)}, {len(found)} can be read")
    return found


def _best(matrix: "WinMatrix", images: list[Path], number: int) -> list[dict[str, object]]:
    """The files with the highest win rates, best first; equal win rates share a rank."""
    from prefrm.rewards import ranks

    rates = matrix.win_rate(on_missing="drop")
    return [
        {"rank": rank, "win_rate": round(float(rates[n]), 6), "image": str(images[n])}
        for n, rank in list(ranks(matrix).items())[:number]
    ]


def _names(images: list[Path]) -> list[str]:
    """File names, or whole paths where two files have the same name."""
    names = [image.name for image in images]
    return names if len(set(names)) == len(names) else [str(image) for image in images]
