"""`prefrm app`."""

import functools
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from prefrm.cli.collect import Collecting
from prefrm.cli.local import Local
from prefrm.cli.remote import TOKEN_VARIABLE, Connection
from prefrm.cli.shared import Split, inspected, open_scorer
from prefrm.display import one_line
from prefrm.errors import ConfigError, PrefrmError, ScoringError
from prefrm.options import with_options
from prefrm.shutdown import in_daemon_thread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefrm.access.exposure import Door
    from prefrm.app import Judges
    from prefrm.app.application import View
    from prefrm.app.collect.collection import Collection
    from prefrm.app.media import MediaStore
    from prefrm.app.runs import Run
    from prefrm.data import LoadedGroups

__all__ = ["app"]

# Gradio's own.
PORT = 7860


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exposure:
    """Where the pages are served, and what a browser must show, as options of a command."""

    host: Annotated[str, typer.Option(help="the interface to listen on")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port")] = PORT
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="tokens with which people sign in, one a line (docs/security.md); the token for a judge's "
            f"server is that of the variable {TOKEN_VARIABLE}"
        ),
    ] = None
    no_token: Annotated[
        bool, typer.Option("--no-token", help="let other machines use the pages without a token")
    ] = False
    tls_cert: Annotated[Path | None, typer.Option(help="serve https: the certificate chain, a PEM file")] = (
        None
    )
    tls_key: Annotated[Path | None, typer.Option(help="its private key, a PEM file")] = None
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="require client certificates signed by this CA (mutual TLS)")
    ] = None

    def door(self) -> "Door":
        """The tokens and certificates. Raises `ConfigError` if the options contradict each other."""
        from prefrm.access.exposure import open_door

        return open_door(
            self.host,
            token_file=self.token_file,
            no_token=self.no_token,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            tls_client_ca=self.tls_client_ca,
        )


@with_options
def app(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME=]SCORER...", help="judges, each as `prefrm score` takes one"),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="audit the judges on this dataset: its folder or hf://org/name"),
    ] = None,
    split: Split = "test",
    state: Annotated[
        Path | None,
        typer.Option(help="folder that keeps trials, findings and corrections; by default a temporary one"),
    ] = None,
    watch: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="output of a running `prefrm train` or `prefrm flow`, or of TRL; may be given several times",
        ),
    ] = None,
    *,
    collecting: Collecting,
    exposure: _Exposure,
    local: Local,
    connection: Connection,
) -> None:
    """Try and audit judges, collect preferences, and watch runs, on pages in a browser."""
    from prefrm.app import Judges
    from prefrm.app.application import create_application, require_gradio
    from prefrm.app.media import MediaStore
    from prefrm.app.server import serve
    from prefrm.data import load_groups
    from prefrm.files import require_writable_folder
    from prefrm.sockets import bind

    named = _named(targets or [])
    runs = _runs(watch or [])
    collecting.check()
    if data is not None and not named:
        raise ConfigError("--data: for the audit of a judge; give a judge, `prefrm app SCORER --data DATA`")
    if not named and not runs and collecting.collect is None:
        raise ConfigError(
            "there is nothing to show: give a judge, `prefrm app SCORER`, or --collect, or --watch FOLDER"
        )
    local.require_bundle(*named.values())
    connection.require_url(*named.values())
    require_gradio()
    door = exposure.door()
    trained = {name: _trained(target) for name, target in named.items()}
    groups = None if data is None else load_groups(data, split)
    if state is not None:
        require_writable_folder(state, "--state")
    openers = {
        name: functools.partial(open_scorer, target, None, connection, local)
        for name, target in named.items()
    }
    with (
        bind(exposure.host, exposure.port, "pages", "--port") as listener,
        TemporaryDirectory(prefix="prefrm-app-") as temporary,
        Judges(openers, trained) as judges,
        collecting.open(judges) as collection,
    ):
        # Of uploads, which are gone when the command ends.
        os.environ["GRADIO_TEMP_DIR"] = str(Path(temporary) / "uploads")
        folder = state or Path(temporary)
        store = MediaStore(folder / "media")
        views = _views(judges, groups, collection, runs, folder, store)
        for name in judges.names:
            in_daemon_thread(functools.partial(_warn_unless_ready, judges, name))
        serve(
            create_application(views, store),
            listener,
            door,
            lambda url: print(f"ready: {url}", flush=True, file=sys.stdout),
        )


def _trained(target: str) -> str:
    """What the bundles of a judge were trained with. Raises `BundleError` if one is not a bundle."""
    return "; ".join(dict.fromkeys(filter(None, (bundle.trained for bundle in inspected(target)))))


def _warn_unless_ready(judges: "Judges", name: str) -> None:
    """Say on standard error why a judge cannot be asked; the page, which says so too, is served anyway."""
    try:
        judges.identity(name)
    except PrefrmError as error:
        # A server is asked again with each trial, and may have come by then.
        again = " (it is asked again when a page needs it)" if isinstance(error, ScoringError) else ""
        print(f"prefrm: warning: judge {name!r}: {one_line(str(error))}{again}", file=sys.stderr, flush=True)


def _views(
    judges: "Judges",
    groups: "LoadedGroups | None",
    collection: "Collection | None",
    runs: "Sequence[Run]",
    folder: Path,
    store: "MediaStore",
) -> "list[View]":
    """The pages for which there is something to show; `folder` keeps what is done on them."""
    from prefrm.app.audit import audit_view
    from prefrm.app.auditing import Audit
    from prefrm.app.collect.view import collect_view
    from prefrm.app.trial import trial_view
    from prefrm.app.trials import Trials
    from prefrm.app.watch import watch_view

    views = []
    if judges.names:
        views.append(trial_view(judges, Trials(folder / "trials", store, judges), store))
    if groups is not None:
        views.append(audit_view(judges, Audit(judges, groups, folder), store))
    if collection is not None:
        views.append(collect_view(collection))
    if runs:
        views.append(watch_view(runs))
    return views


def _runs(folders: list[Path]) -> "list[Run]":
    """The runs of these folders, which are named by their last parts where these differ."""
    from prefrm.app.runs import Run

    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--watch {folder} is not a folder; name the output folder of a run")
    names = [folder.resolve().name for folder in folders]
    return [
        Run(folder, name if names.count(name) == 1 else str(folder))
        for folder, name in zip(folders, names, strict=True)
    ]


def _named(targets: list[str]) -> dict[str, str]:
    """The targets by name; one without a name has the last part of its own."""
    found: dict[str, str] = {}
    for text in targets:
        name, equals, target = text.partition("=")
        # The = of a URL's query comes after a slash.
        if not equals or "/" in name:
            name, target = Path(text.rstrip("/")).name, text
        if name in found:
            raise ConfigError(f"two judges are called {name!r}; name them, such as {name}-2={target}")
        found[name] = target
    return found
