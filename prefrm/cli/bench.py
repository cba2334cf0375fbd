"""`prefrm bench`: the group of commands that measure prefrm itself."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["bench", "judges"]

bench = typer.Typer(help="Measure prefrm itself.", no_args_is_help=True)


@bench.command()
def judges(
    out: Annotated[Path, typer.Option(help="where judges.md, judges.json and the plots go")] = Path("docs"),
    runs: Annotated[
        Path, typer.Option(help="where the trainings are kept; an interrupted benchmark goes on there")
    ] = Path("runs/bench-judges"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda:0")] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="trainings side by side; one for each core by default")
    ] = None,
) -> None:
    """Train every kind of judge on the shapes world and write down what each is worth and costs."""
    from prefrm import bench as benchmarks

    benchmarks.bench_judges(runs, out, device=device, workers=workers)
    print(f"report: {out / 'judges.md'}")
