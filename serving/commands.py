"""The command `prefrm serve`. Imports the server and the engine only when it runs."""

import json
import logging
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from prefrm.config import from_overrides
from prefrm.errors import ConfigError, missing_extra
from prefrm.options import Device, Dtype
from prefrm.protocol import DEFAULT_MODEL, GRPC_PORT, HTTP_PORT, METRICS_PORT
from prefrm.shutdown import interruptible
from serving.observing.logs import configure
from serving.observing.writer import write_all
from serving.sockets import check_ports

if TYPE_CHECKING:
    from serving.server import Addresses

__all__ = ["serve"]

logger = logging.getLogger(__name__)

STANDARD_OUTPUT = 1
# What the event loop waits for the addresses to be printed, in seconds.
PRINT_S = 0.2

Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port.")]


@interruptible()
def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME[:VERSION]=]BUNDLE...",
            help="Folders that training runs exported or hf://org/name, and their names.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = "127.0.0.1",
    http_port: Port = HTTP_PORT,
    grpc_port: Port = GRPC_PORT,
    metrics_port: Port = METRICS_PORT,
    model_name: Annotated[
        str, typer.Option(help="The name that clients ask for, of a bundle given without one.")
    ] = DEFAULT_MODEL,
    repository: Annotated[
        Path | None, typer.Option(help="A folder of bundles, NAME or NAME/VERSION, all of which are served.")
    ] = None,
    model_control: Annotated[
        bool, typer.Option("--model-control", help="Let clients load and unload these models.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="Tokens that clients must send, one a line (docs/security.md).")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Let other machines use the judge without a token.")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Encrypt all ports: the certificate chain, a PEM file.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, a PEM file.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Let in only clients with a certificate of this authority.")
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Of the log, on standard error.")
    ] = "text",
    device: Device = "auto",
    dtype: Dtype = "auto",
    pairs: Annotated[
        int | None,
        typer.Option(min=1, help="Judge so many pairs of a group and infer the others; all by default."),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many run through the language model at once; by default 2,048 on a CPU and as many as "
            "16,384 on a GPU (the log says).",
        ),
    ] = None,
    cache_mb: Annotated[
        int | None, typer.Option(min=0, help="For what the vision tower said of images, in MiB.")
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the judge's layers: the first answers take minutes, later ones less.",
        ),
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A limit, such as limits.group_size=32 (docs/serving.md)."
        ),
    ] = None,
    address_file: Annotated[
        Path | None, typer.Option(help="Write the addresses there, as JSON, once the server is ready.")
    ] = None,
    stop_with_stdin: Annotated[
        bool,
        typer.Option(
            "--stop-with-stdin", help="Stop when standard input ends, as with the program behind it."
        ),
    ] = False,
) -> None:
    """Serve bundles over gRPC and HTTP, for prefrm's clients and the stock tritonclient."""
    # Before anything that may have something to say is imported.
    configure(log_format)
    # gRPC's core writes past the log, for each failed handshake of a client as well.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if log_format == "json":
        # No progress bar is a record.
        os.environ.setdefault("TQDM_DISABLE", "1")
    # Mistakes are said before torch is imported and a judge loaded, which takes a while.
    if not bundles and repository is None:
        raise ConfigError(
            "nothing to serve: give the folder of a bundle, or --repository and a folder of bundles"
        )
    if address_file is not None:
        _make_way(address_file)
    if stop_with_stdin:
        # It is None in a process that was started without one.
        if sys.stdin is None:
            raise ConfigError("--stop-with-stdin: standard input is closed; open it, or leave the option out")
        stop_at_end(sys.stdin.fileno())
    try:
        from serving.access.exposure import open_door
        from serving.bundles import BundleShelf, EngineOptions, name_bundle
        from serving.dataplane import DataPlane
        from serving.loading import or_exit
        from serving.models import ModelRepository
        from serving.observing.logs import log_request
        from serving.observing.metrics import Metrics
        from serving.observing.tracing import span_observer
        from serving.running import run
        from serving.server import Server
        from serving.settings import ServeSettings
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "serve") from error

    limits = from_overrides(ServeSettings, settings or ()).limits
    options = EngineOptions(
        device=device,
        dtype=dtype,
        pairs=pairs,
        tokens=tokens,
        cache_bytes=None if cache_mb is None else cache_mb * 2**20,
        compile=compile_,
        limits=limits.image,
    )
    check_ports(host, {"http": http_port, "grpc": grpc_port, "metrics": metrics_port})
    door = open_door(
        host,
        token_file=token_file,
        no_token=no_token,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_client_ca=tls_client_ca,
    )
    shelf = BundleShelf([name_bundle(text, model_name) for text in bundles or ()], repository, options)
    descriptions = shelf.check()
    metrics = Metrics()
    with or_exit(limits.load_s, f"loading takes longer than limits.load_s={limits.load_s:g} seconds"):
        loaded = shelf.load_all()
    for description in descriptions:
        logger.info("judge: %s", description)
    models = ModelRepository(loaded, limits, metrics, shelf.load if model_control else None)
    server = Server(
        DataPlane(models, limits, metrics, [log_request, *filter(None, [span_observer()])]),
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        tokens=door.tokens,
        tls=door.tls,
    )
    run(server, on_ready=lambda addresses: announce(addresses, address_file))


def _make_way(address_file: Path) -> None:
    """Remove the addresses of an earlier server, which must not pass for this one's."""
    if not address_file.parent.is_dir():
        raise ConfigError(f"--address-file {address_file}: {address_file.parent} is no folder")
    if address_file.is_dir():
        raise ConfigError(f"--address-file {address_file} is a folder; name a file")
    address_file.unlink(missing_ok=True)


def stop_at_end(descriptor: int) -> None:
    """Send this process SIGTERM once the open file ends; a pipe does when all who hold its other end died.

    What cannot be read has ended, too.
    """

    def watch() -> None:
        try:
            # Not through `sys.stdin`, whose lock would be held when the interpreter shuts down.
            with suppress(OSError):
                while os.read(descriptor, 4096):
                    pass
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="end-of-input", daemon=True).start()


def announce(addresses: "Addresses", address_file: Path | None) -> None:
    """Print every model's addresses, those of metrics and documentation, and write them to a file.

    The file is there whole or not at all.

    Raises:
        ConfigError: it cannot be written.
    """
    if address_file is not None:
        told: dict[str, Any] = {
            "http": addresses.http,
            "grpc": addresses.grpc,
            "metrics": addresses.metrics,
            "models": addresses.models,
        }
        text = json.dumps(told | ({"secure": True} if addresses.secure else {}))
        partial = address_file.with_name(f".{address_file.name}.{os.getpid()}")
        try:
            partial.write_text(text + "\n", encoding="utf-8")
            partial.replace(address_file)
        except OSError as error:
            raise ConfigError(f"--address-file {address_file} cannot be written: {error.strerror}") from error
        finally:
            partial.unlink(missing_ok=True)
    lines = [f"ready: {' '.join(addresses.model_urls(model))}" for model in addresses.models]
    lines += [f"metrics: {addresses.metrics_url}", f"docs: {addresses.docs_url}"]
    _print_apart("\n".join(lines) + "\n")


def _print_apart(text: str) -> None:
    """Print from another thread: standard output that nobody reads must not block the event loop."""

    def write() -> None:
        try:
            # Past `sys.stdout`, whose lock a blocked thread would hold while the process ends.
            write_all(STANDARD_OUTPUT, text.encode())
        except OSError as error:
            logger.warning("standard output cannot be written: %s; the addresses are above", error.strerror)

    if sys.stdout is None:
        return
    printing = threading.Thread(target=write, name="announcement", daemon=True)
    printing.start()
    printing.join(PRINT_S)
