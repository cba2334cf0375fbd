"""Options of the command line that commands of several packages share."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal

import typer

__all__ = ["AsJson", "Device", "Dtype", "HubName", "Private", "given_options", "with_options"]

AsJson = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]
Device = Annotated[str, typer.Option(help="auto (the first accelerator, or else the CPU), cpu, cuda:0, ...")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="of the backbone; auto is float32 on the CPU and bfloat16 elsewhere"),
]
HubName = Annotated[
    str,
    typer.Argument(metavar="ORG/NAME[@BRANCH]", help="a repository of the Hub, created if it does not exist"),
]
Private = Annotated[bool, typer.Option("--private", help="make the repository visible to its owners only")]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command in which each parameter that is a dataclass stands for options, one for each field."""
    own = inspect.signature(command)
    groups: dict[str, Any] = {
        one.name: one.annotation for one in own.parameters.values() if is_dataclass(one.annotation)
    }

    @functools.wraps(command)
    def with_groups(**arguments: Any) -> None:
        made = {
            name: kind(**{field.name: arguments.pop(field.name) for field in fields(kind)})
            for name, kind in groups.items()
        }
        command(**arguments, **made)

    options = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for kind in groups.values()
        for field in fields(kind)
    ]
    parameters = [*(one for one in own.parameters.values() if one.name not in groups), *options]
    # Typer reads both.
    with_groups.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_groups


def given_options(options: Any) -> str:
    """The options of such a dataclass that differ from their defaults, as they are typed; "" if none does."""
    names = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)
