"""`prefrm score`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import AsJson, Pairs, Target, open_scorer, require_judged
from prefrm.errors import ConfigError
from prefrm.options import with_options

__all__ = ["score"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@with_options
def score(
    target: Target,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE IMAGE ...", help="two image files or more")],
    prompt: Annotated[str, typer.Option(help="what the images answer")],
    plot: Annotated[Path | None, typer.Option(help="also draw the matrix into this file")] = None,
    pairs: Pairs = None,
    as_json: AsJson = False,
    *,
    local: Local,
    remote: Remote,
) -> None:
    """Compare image files with each other: the win matrix and the ranking, in the terminal.

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
        raise ConfigError("--prompt is empty; write what the images answer")
    group = Group.of(prompt, images)
    with open_scorer(target, pairs, remote, local) as scorer:
        (matrix,) = score_all(scorer, [group])
    labels = _names(images)
    if plot is not None:
        from prefrm.plots import win_matrix_figure

        win_matrix_figure(matrix, group.images, prompt, labels=labels).savefig(plot)
    if as_json:
        answer = {"prompt": prompt, "images": [str(image) for image in images], **matrix_to_json(matrix)}
        print(json.dumps(answer, indent=2, allow_nan=False))
    else:
        drawn = "--plot FILE draws it" if plot is None else f"{plot} shows it"
        Console().print(terminal_matrix(matrix, labels, elsewhere=f"--json prints it, and {drawn}"))
    require_judged(bool(matrix.judged.any()), "; ".join(unjudged_reasons(matrix, labels)))


def _require_plot(plot: Path) -> None:
    from prefrm.files import require_writable_file

    if plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot writes {', '.join(PLOT_SUFFIXES)} files; received {plot}")
    require_writable_file(plot, "--plot")


def _names(images: list[Path]) -> list[str]:
    """File names, or whole paths where two files have the same name."""
    names = [image.name for image in images]
    return names if len(set(names)) == len(names) else [str(image) for image in images]
