"""The command `prefrm`: thin commands over the library, one line for each mistake.

A user's mistake is printed as one line and ends with status 2; Ctrl-C ends with 130. Commands that
belong to other packages (`data`, `serve`) arrive through the entry point group `prefrm.commands`.
Heavy libraries are imported inside the commands, so that `prefrm --help` is quick.
"""

import sys
from importlib.metadata import entry_points

import typer
from typer.exceptions import Abort, TyperException

from prefrm.errors import PrefrmError

__all__ = ["app", "main"]

app = typer.Typer(
    name="prefrm",
    help="Train vision-language preference judges, serve group win-rate matrices, turn them into rewards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def main() -> None:
    """Run the command line; the process's exit status is 0, 2 (a mistake) or 130 (interrupted)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    try:
        return app(arguments, prog_name="prefrm", standalone_mode=False) or 0
    except (KeyboardInterrupt, Abort):
        print("prefrm: interrupted", file=sys.stderr)
        return 130
    except TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "prefrm")
        return _fail(f"{error.format_message()} See `{command} --help`.")
    except PrefrmError as error:
        return _fail(str(error))


def _fail(message: str) -> int:
    print(f"prefrm: {' '.join(message.split())}", file=sys.stderr)
    return 2


for _plugin in entry_points(group="prefrm.commands"):
    app.add_typer(_plugin.load(), name=_plugin.name)
