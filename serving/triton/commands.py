"""The command `prefrm export`. Imports torch and the server only when it runs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prefrm.errors import ConfigError, missing_extra
from prefrm.files import require_writable_folder
from prefrm.protocol import DEFAULT_MODEL

__all__ = ["export"]


def export(
    bundle: Annotated[
        Path, typer.Argument(help="The folder that a training run exported, or hf://org/name.")
    ],
    to: Annotated[
        Literal["merged", "triton"],
        typer.Option(
            help="merged: a bundle that needs no base model; triton: a model repository of Triton's."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; it must not exist.")],
    name: Annotated[
        str | None, typer.Option(help=f"The name that Triton's clients ask for; {DEFAULT_MODEL} by default.")
    ] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(help="Of merged weights; float32 by default, which loses nothing."),
    ] = None,
) -> None:
    """Write a bundle in another form: with its adapter merged, or as a model repository of Triton."""
    if to == "merged" and name is not None:
        raise ConfigError(f"--name {name} is for --to triton; a merged bundle has no name")
    if to == "triton" and dtype is not None:
        raise ConfigError(f"--dtype {dtype} is for --to merged; Triton gets the bundle as it is")
    if out.exists():
        raise ConfigError(f"--out {out} exists; name a folder that does not, or remove it")
    require_writable_folder(out, "--out")
    if to == "merged":
        from prefrm.bundle import merge_bundle

        manifest = merge_bundle(bundle, out, dtype or "float32")
    else:
        try:
            from serving.triton.repository import write_repository
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name), "serve") from error

        manifest = write_repository(bundle, out, name=name or DEFAULT_MODEL)
        if manifest.weights == "adapter":
            base = manifest.spec.base_model
            typer.echo(
                f"note: where Triton runs, the adapter needs its base model {base}; "
                "without it, export a merged bundle",
                err=True,
            )
    typer.echo(f"{out}: {manifest.describe()}")
