"""The command `prefrm serve`. Imports the server and the engine only when it runs."""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from prefrm.config import from_overrides
from prefrm.errors import ConfigError, missing_extra
from prefrm.options import Device, Dtype
from prefrm.prompts import read_template
from prefrm.protocol import DEFAULT_MODEL, GRPC_PORT, HTTP_PORT, METRICS_PORT
from prefrm.shutdown import interruptible, stop_at_end
from prefrm.sockets import check_ports
from serving.announcing import announce, remove_address_file
from serving.observing.logs import configure

__all__ = ["serve"]

logger = logging.getLogger(__name__)

Port = Annotated[int, typer.Option(min=0, max=65535, help="0 for any free port.")]


@interruptible()
def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME[:VERSION]=]SCORER...",
            help="Bundles (folders or hf://org/name) and YAML files of ensembles, and their names.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The interface to listen on.")] = "127.0.0.1",
    http_port: Port = HTTP_PORT,
    grpc_port: Port = GRPC_PORT,
    metrics_port: Port = METRICS_PORT,
    model_name: Annotated[
        str, typer.Option(help="The model name of a bundle that is given without one.")
    ] = DEFAULT_MODEL,
    repository: Annotated[
        Path | None,
        typer.Option(help="A model repository: a folder of bundles, NAME or NAME/VERSION; all are served."),
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
        Path | None,
        typer.Option(help="Require client certificates signed by this CA (mutual TLS): a PEM file."),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="Format of the log on standard error.")
    ] = "text",
    device: Device = "auto",
    dtype: Dtype = "auto",
    pairs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of pairs of a group to judge; the others are inferred. All by default."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Token budget of a batch of the language model; by default 2,048 on a CPU and up to 16,384 "
            "on a GPU (the log has the value).",
        ),
    ] = None,
    cache_mb: Annotated[
        int | None, typer.Option(min=0, help="Size of the LRU cache of image features, in MiB.")
    ] = None,
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the judge's layers: the first requests take minutes, later ones are faster.",
        ),
    ] = False,
    gradients: Annotated[
        bool,
        typer.Option(
            "--gradients",
            help="Answer requests for a judge's gradient in pixels, which take memory (docs/gradients.md).",
        ),
    ] = False,
    chat_template: Annotated[
        list[Path] | None,
        typer.Option(
            help="A template file (docs/templates.md) with the wording of a client of /v1/chat/completions."
        ),
    ] = None,
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
            "--stop-with-stdin",
            help="Stop when standard input ends, such as at the exit of a parent process.",
        ),
    ] = False,
) -> None:
    """Serve bundles over gRPC and HTTP, for prefrm's clients and the stock tritonclient."""
    _configure_logs(log_format)
    # Mistakes are reported before torch is imported and a judge loaded, which takes a while.
    if not bundles and repository is None:
        raise ConfigError(
            "nothing to serve: give the folder of a bundle, or --repository and a folder of bundles"
        )
    if address_file is not None:
        remove_address_file(address_file)
    if stop_with_stdin:
        _stop_with_stdin()
    try:
        from prefrm.access.exposure import open_door
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
        from serving.wire.chat_dialects import DIALECTS, dialect_of
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "serve") from error

    limits = from_overrides(ServeSettings, settings or ()).limits
    own_dialects = [dialect_of(read_template(file)) for file in chat_template or ()]
    options = EngineOptions(
        device=device,
        dtype=dtype,
        pairs=pairs,
        tokens=tokens,
        cache_bytes=None if cache_mb is None else cache_mb * 2**20,
        compile=compile_,
        gradients=gradients,
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
        dialects=(*own_dialects, *DIALECTS),
    )
    run(server, on_ready=lambda addresses: announce(addresses, address_file))


def _configure_logs(log_format: Literal["text", "json"]) -> None:
    """Set up logging; libraries that log are imported afterwards."""
    configure(log_format)
    # gRPC's core bypasses the log, also for each failed handshake of a client.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if log_format == "json":
        # A progress bar is not a JSON record.
        os.environ.setdefault("TQDM_DISABLE", "1")


def _stop_with_stdin() -> None:
    # It is None in a process that was started without one.
    if sys.stdin is None:
        raise ConfigError("--stop-with-stdin: standard input is closed; open it, or leave the option out")
    stop_at_end(sys.stdin.fileno())
