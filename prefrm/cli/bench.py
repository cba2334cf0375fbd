"""`prefrm bench`: the group of commands that measure prefrm itself."""

from pathlib import Path
from typing import Annotated

import typer

from prefrm.files import require_writable_folder
from prefrm.options import AsJson, Device, Dtype

__all__ = ["bench", "engine", "hacking", "judges"]

bench = typer.Typer(help="Measure prefrm itself.", no_args_is_help=True)


@bench.command()
def judges(
    out: Annotated[Path, typer.Option(help="where judges.md, judges.json and the plots go")] = Path("docs"),
    runs: Annotated[
        Path, typer.Option(help="folder of the training runs; an interrupted benchmark resumes from it")
    ] = Path("runs/bench-judges"),
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="parallel training runs; one for each core by default")
    ] = None,
) -> None:
    """Train every kind of judge on the shapes world and write down what each is worth and costs."""
    from prefrm.bench.judges import bench_judges

    require_writable_folder(out, "--out")
    bench_judges(runs, out, device=device, workers=workers)
    print(f"report: {out / 'judges.md'}")


@bench.command()
def engine(
    quick: Annotated[
        bool, typer.Option("--quick", help="small groups, one round: less than a minute")
    ] = False,
    k: Annotated[
        str | None, typer.Option(metavar="K,K", help="group sizes; 4,8,16,32,64, or 4,8 with --quick")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Annotated[
        Path | None, typer.Option(help="a folder, for engine.json and engine/table.md; none by default")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the engine with a plain loop over pairs, on a random model: nothing is downloaded."""
    from prefrm.bench.engine import bench_engine, read_settings
    from prefrm.bench.engine_report import write_engine_report

    settings = read_settings(device=device, dtype=dtype, k=k, quick=quick)
    if out is not None:
        require_writable_folder(out, "--out")
    report = bench_engine(settings)
    if out is not None:
        write_engine_report(report, out)
    print(report.to_json() if as_json else report.to_markdown(), end="")


@bench.command()
def hacking(
    quick: Annotated[
        bool, typer.Option("--quick", help="two rewards, one method and one seed: a few minutes")
    ] = False,
    report: Annotated[
        bool, typer.Option("--report", help="write the page from the trainings that are done, and train none")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="where hacking.md, hacking.json and the curves go; docs, or --runs with --quick"),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="folder of the trainings: runs/bench-hacking, or runs/bench-hacking-quick; an interrupted "
            "study resumes from it"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="parallel training runs, each with one thread")] = 1,
) -> None:
    """Train the shipped flow model with several rewards and write down how each is hacked."""
    from prefrm.bench.hacking import bench_hacking, report_hacking
    from prefrm.bench.hacking_cases import FULL, QUICK

    runs = runs or Path("runs/bench-hacking-quick" if quick else "runs/bench-hacking")
    out = out or (runs if quick else Path("docs"))
    require_writable_folder(out, "--out")
    study = QUICK if quick else FULL
    rows = report_hacking(study, runs, out) if report else bench_hacking(study, runs, out, workers=workers)
    print(f"{len(rows)} of {len(study.cells)} trainings; report: {out / 'hacking.md'}")
