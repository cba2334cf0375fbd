"""The command line as a whole: which commands there are, and how one ends.

A user's mistake is printed as one line and ends with status 2; Ctrl-C ends with 130, and a command that could
judge nothing with 1. Commands that belong to other packages (`data`, `serve`) arrive through the entry point
group `prefrm.commands`, and further benchmarks through `prefrm.bench`.
"""

import io
import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from prefrm.cli.app import app as browser_app
from prefrm.cli.arena import arena
from prefrm.cli.bench import bench
from prefrm.cli.calibrate import calibrate
from prefrm.cli.check_trainer import check_trainer
from prefrm.cli.environment import env
from prefrm.cli.evaluate import evaluate
from prefrm.cli.explain import explain
from prefrm.cli.flow import flow
from prefrm.cli.importing import import_published
from prefrm.cli.label import label
from prefrm.cli.push import push
from prefrm.cli.quickstart import quickstart
from prefrm.cli.score import score
from prefrm.cli.train import train
from prefrm.display import one_line
from prefrm.errors import PrefrmError
from prefrm.quiet import quiet
from prefrm.shutdown import exit_process, open_closed_streams

__all__ = ["app", "main", "run"]

# What a shell reports of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130

app = typer.Typer(
    name="prefrm",
    help="Train vision-language preference judges, serve group win-rate matrices, turn them into rewards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"prefrm {version('prefrm')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """What stands before a command."""


def main() -> None:
    """Run the command line; the process's exit status is that of `run`."""
    open_closed_streams()
    # A name that the terminal's encoding lacks must not fail a command; standard error escapes it by default.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    exit_process(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line.

    Returns:
        The exit status: 0, 1 (nothing could be judged), 2 (a mistake) or 130 (interrupted).
    """
    try:
        with quiet():
            status = app(arguments, prog_name="prefrm", standalone_mode=False) or 0
    except Abort:
        status = INTERRUPTED
    except TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "prefrm")
        return _fail(f"{error.format_message()} See `{command} --help`.")
    except PrefrmError as error:
        return _fail(str(error))
    # A file where a folder should be, a folder that is read-only, a full disk.
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    if status == INTERRUPTED:
        print("prefrm: interrupted", file=sys.stderr)
    return int(status)


def _fail(message: str) -> int:
    print(f"prefrm: {one_line(' '.join(message.split()))}", file=sys.stderr)
    return 2


def _add_commands() -> None:
    app.command()(quickstart)
    app.command()(train)
    app.command(name="eval")(evaluate)
    app.command()(calibrate)
    app.command()(score)
    app.command()(label)
    app.command()(explain)
    app.command()(flow)
    app.command()(arena)
    app.command(name="app")(browser_app)
    app.command()(push)
    app.command(name="import")(import_published)
    app.command(name="check-trainer")(check_trainer)
    app.command()(env)
    app.add_typer(bench, name="bench")


def _add_plugins() -> None:
    """Mount what other packages offer: an app becomes a group of commands, a function a command."""
    for group, commands in (("prefrm.commands", app), ("prefrm.bench", bench)):
        for plugin in entry_points(group=group):
            loaded = plugin.load()
            if isinstance(loaded, typer.Typer):
                commands.add_typer(loaded, name=plugin.name)
            else:
                commands.command(name=plugin.name)(loaded)


_add_commands()
_add_plugins()
