"""`prefrm app`."""

import functools
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import open_scorer
from prefrm.errors import ConfigError
from prefrm.options import with_options

__all__ = ["app"]

# Gradio's own.
PORT = 7860


@with_options
def app(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]SCORER...", help="judges, each as `prefrm score` takes one"),
    ] = None,
    host: Annotated[str, typer.Option(help="the interface to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port")] = PORT,
    *,
    local: Local,
    remote: Remote,
) -> None:
    """Try and audit judges, and collect preferences, on a page in a browser."""
    from prefrm.app import Judges
    from prefrm.app.application import View, create_application, require_gradio
    from prefrm.app.trial import trial_view

    local.require_bundle(*(targets or []))
    named = _named(targets or [])
    require_gradio()
    openers = {
        name: functools.partial(open_scorer, target, None, remote, local) for name, target in named.items()
    }
    with Judges(openers) as judges:
        views: list[View] = []
        if named:
            views.append(trial_view(judges))
        if not views:
            raise ConfigError("there is nothing to show: give a judge, `prefrm app SCORER`")
        application = create_application(views)
        import uvicorn

        listener = socket.create_server((host, port))
        where, number = listener.getsockname()[:2]
        print(f"ready: http://{where}:{number}/", flush=True, file=sys.stdout)
        uvicorn.Server(uvicorn.Config(application, log_level="warning")).run(sockets=[listener])


def _named(targets: list[str]) -> dict[str, str]:
    """The targets by name; one without a name has that of its last part."""
    found: dict[str, str] = {}
    for text in targets:
        name, equals, target = text.partition("=")
        if not equals or "/" in name or "://" in name:
            name, target = Path(text.rstrip("/")).name, text
        if name in found:
            raise ConfigError(f"two judges are called {name!r}; name them: {name}-2={target}")
        found[name] = target
    return found
