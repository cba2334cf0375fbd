"""`prefrm import`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from prefrm.display import one_line
from prefrm.errors import ConfigError

__all__ = ["import_published"]


def import_published(
    name: Annotated[str | None, typer.Argument(help="a published judge; --list shows them")] = None,
    source: Annotated[
        str | None,
        typer.Argument(
            help="its weights: a file, a folder or hf://org/name; by default where they are published"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the folder of the bundle to write")] = None,
    base: Annotated[
        str | None,
        typer.Option(help="a folder or hf://org/name with what the source lacks, such as the tokenizer"),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="a file with the wording of the prompt, for judges that need one")
    ] = None,
    uncertainty: Annotated[
        Literal["integrate", "ignore"] | None,
        typer.Option(
            help="hpsv3 alone: expectations over its uncertain utilities (the default), or their means"
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="print the published judges")] = False,
) -> None:
    """Turn a judge that others published into a bundle, which every command takes."""
    from prefrm.imports import PUBLISHED

    if listed:
        for judge in PUBLISHED.values():
            print(f"{judge.name:<20}  {judge.title} ({judge.kind}): {judge.source}")
        return
    if name is None or out is None:
        raise ConfigError("name a published judge and --out FOLDER; `prefrm import --list` prints the judges")
    from prefrm.imports.importing import import_judge

    manifest = import_judge(name, source, out, base=base, template=template, uncertainty=uncertainty)
    print(f"{out}: {manifest.describe()}")
    assert manifest.origin is not None
    print(f"licence of the weights: {one_line(manifest.origin.licence)}", file=sys.stderr)
