"""`prefrm push`."""

from pathlib import Path
from typing import Annotated

import typer

from prefrm.options import HubName, Private

__all__ = ["push"]


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="the folder of a bundle")],
    name: HubName,
    private: Private = False,
    message: Annotated[str, typer.Option(help="of the commit")] = "Upload a judge",
) -> None:
    """Upload a bundle to the Hugging Face Hub, where `hf://org/name` names it for every command."""
    from prefrm.manifest import push_bundle, read_manifest

    pushed = push_bundle(bundle, name, private=private, message=message)
    print(f"{pushed}: {read_manifest(bundle).describe()}")
