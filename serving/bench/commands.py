"""The commands `prefrm bench server` and `prefrm bench soak`. Import what they measure only when they run."""

from pathlib import Path
from typing import Annotated

import typer

from prefrm.errors import missing_extra
from prefrm.files import require_writable_folder
from prefrm.options import AsJson

__all__ = ["server", "soak"]


def server(
    quick: Annotated[bool, typer.Option("--quick", help="one round: less than a minute")] = False,
    mlserver: Annotated[
        Path | None,
        typer.Option(
            metavar="PYTHON", help="the interpreter of an environment that has MLServer; compare with it"
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="of torch, for the judge; one fewer than there are cores by default"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="a folder, for server.json and serving/table.md; none by default")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the server with the engine alone and with MLServer, and ask it for ten times what it can do."""
    try:
        from serving.bench.benchmark import bench_server, read_settings
        from serving.bench.report import write_server_report
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "serve") from error
    settings = read_settings(quick=quick, mlserver=mlserver, threads=threads)
    if out is not None:
        require_writable_folder(out, "--out")
    report = bench_server(settings)
    if out is not None:
        write_server_report(report, out)
    print(report.to_json() if as_json else report.to_markdown(), end="")


def soak(
    minutes: Annotated[float, typer.Option(min=0.1, help="how long")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="a folder, for serving/soak.md; none by default")] = None,
    as_json: AsJson = False,
) -> None:
    """Keep the server saturated, and compare its memory and latency at the end with those at the start."""
    try:
        from serving.bench.soak import measure_soak, write_soak
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "serve") from error
    if out is not None:
        require_writable_folder(out, "--out")
    result = measure_soak(minutes)
    if out is not None:
        write_soak(result, out)
    print(result.to_json() if as_json else result.to_markdown(), end="")
