"""`prefrm explain`."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import (
    AsJson,
    Context,
    Target,
    hinting_at_texts,
    open_scorer,
    require_context,
    require_one_kind,
    require_readable,
)
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder, write_json
from prefrm.options import with_options

if TYPE_CHECKING:
    from prefrm.explain import Explanation
    from prefrm.winmatrix import Group

__all__ = ["explain"]


@with_options
def explain(
    target: Target,
    prompt: Annotated[str, typer.Argument(help="what the candidates answer")],
    first: Annotated[str, typer.Argument(metavar="A", help="a file of an image or a video, or a text")],
    second: Annotated[str, typer.Argument(metavar="B", help="another one of the same kind")],
    out: Annotated[Path, typer.Option(help="folder for explanation.png, .npz and .json")],
    text: Annotated[
        bool, typer.Option("--text", help="A and B are the candidates' texts themselves")
    ] = False,
    method: Annotated[
        Literal["occlusion", "gradient"],
        typer.Option(help="hide one part after another; or, for images, the gradient times the input"),
    ] = "occlusion",
    parts: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="of occlusion: cells along each side of an image, segments of a video, runs of words",
            show_default="8, 8 and 64",
        ),
    ] = None,
    context: Context = None,
    criterion: Annotated[str, typer.Option(help="what the candidates are compared by")] = "",
    as_json: AsJson = False,
    *,
    local: Local,
    remote: Remote,
) -> None:
    """Show where a verdict on two candidates comes from: over pixels, frames or words.

    Blue parts speak for the candidate that they are of, orange ones against it.
    """
    from prefrm import media
    from prefrm.winmatrix import Group

    local.require_bundle(target)
    remote.require_url(target)
    if not prompt.strip():
        raise ConfigError("PROMPT is empty; give the prompt of the candidates")
    if method == "gradient" and parts is not None:
        raise ConfigError("--parts is for --method occlusion")
    files = [] if text else [Path(first), Path(second)]
    with hinting_at_texts(files):
        candidates = tuple(map(media.read, files))
    group = Group(
        prompt=prompt,
        candidates=candidates or (first, second),
        context=tuple(map(media.read, context or ())),
        criterion=criterion,
    )
    require_context(context or [], group)
    require_one_kind(files, group)
    for path, content in zip(files, group.encoded, strict=False):
        require_readable(path, content or b"")
    require_writable_folder(out, "--out")
    found = _explained(target, group, method, parts, local, remote)
    names = ("A", "B") if text else (Path(first).name, Path(second).name)
    numbers = _write(found, names, out)
    if found.unjudged:
        print(f"{found.unjudged} parts not judged: grey in the picture", file=sys.stderr)
    if as_json:
        print(json.dumps(numbers, indent=2))
    else:
        print(f"P({names[0]} beats {names[1]}) = {found.win_probability:.3f}; see {out / 'explanation.png'}")


def _explained(
    target: str, group: "Group", method: str, parts: int | None, local: Local, remote: Remote
) -> "Explanation":
    from prefrm.explain import explain_by_gradient, explain_by_occlusion
    from prefrm.progress import track

    if method == "occlusion":
        with open_scorer(target, None, remote, local) as scorer:
            return explain_by_occlusion(scorer, group, parts=parts, progress=partial(track, "explaining"))
    from prefrm.engine import Engine
    from prefrm.engine.dual import DualEngine
    from prefrm.scorers.gradients import open_gradient

    with open_scorer(target, None, remote, local) as scorer:
        # The weights of a bundle are loaded once.
        if isinstance(scorer, Engine | DualEngine):
            gradient = scorer.differentiable(batch=2)
        else:
            gradient = open_gradient(target, device=local.device, connect=remote.gradient)
        return explain_by_gradient(scorer, gradient, group)


def _write(found: "Explanation", names: tuple[str, str], out: Path) -> dict[str, object]:
    """The picture, the arrays and the numbers; returns the numbers."""
    import numpy as np

    from prefrm.explain import credit
    from prefrm.plots import explanation_figure

    out.mkdir(parents=True, exist_ok=True)
    group, (first, second) = found.group, found.maps
    chances = (found.win_probability, 1 - found.win_probability)
    figure = explanation_figure(
        group.candidates,
        found.maps,
        found.parts,
        title=group.prompt,
        captions=[f"{name}, wins with {p:.2f}" for name, p in zip(names, chances, strict=True)],
        criterion=group.criterion,
        context=group.context,
    )
    figure.savefig(out / "explanation.png")
    np.savez_compressed(
        out / "explanation.npz", a=first, b=second, credit_a=credit(first), credit_b=credit(second)
    )
    numbers: dict[str, object] = {
        "prompt": group.prompt,
        "criterion": group.criterion,
        "kind": found.kind,
        "method": found.method,
        "candidates": list(names),
        "log_odds": found.log_odds,
        "win_probability": found.win_probability,
        "sums": [None if np.isnan(one).all() else float(np.nansum(one)) for one in found.maps],
        "unjudged_parts": found.unjudged,
        "parts": [list(one) for one in found.parts],
    }
    write_json(out / "explanation.json", numbers)
    return numbers
