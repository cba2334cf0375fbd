"""`prefrm score`."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from prefrm.cli.remote import Remote, with_remote
from prefrm.cli.shared import AsJson, Pairs, Target, open_scorer
from prefrm.errors import ConfigError

__all__ = ["score"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@with_remote
def score(
    target: Target,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE IMAGE ...", help="two image files or more")],
    prompt: Annotated[str, typer.Option(help="what the images answer")],
    plot: Annotated[Path | None, typer.Option(help="also draw the matrix into this file")] = None,
    pairs: Pairs = None,
    as_json: AsJson = False,
    *,
    remote: Remote,
) -> None:
    """Compare image files with each other: the win matrix, in the terminal."""
    from prefrm.heatmap import terminal_matrix
    from prefrm.scoring import matrix_to_json
    from prefrm.winmatrix import Group

    remote.require_url(target)
    if plot is not None and plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot writes {', '.join(PLOT_SUFFIXES)} files; received {plot}")
    if plot is not None and not plot.parent.is_dir():
        raise ConfigError(f"--plot {plot}: {plot.parent} is no folder; make it first")
    group = Group.of(prompt, images)
    with open_scorer(target, pairs, remote) as scorer:
        (matrix,) = scorer.score([group])
    labels = [image.name for image in images]
    if plot is not None:
        from prefrm.plots import win_matrix_figure

        win_matrix_figure(matrix, group.images, prompt, labels=labels).savefig(plot)
    if as_json:
        answer = {"prompt": prompt, "images": [str(image) for image in images], **matrix_to_json(matrix)}
        print(json.dumps(answer, indent=2, allow_nan=False))
        return
    Console().print(terminal_matrix(matrix, labels))
