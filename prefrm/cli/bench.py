"""`prefrm bench`: the group of commands that measure prefrm itself."""

from pathlib import Path
from typing import Annotated

import typer

from prefrm.errors import missing_extra
from prefrm.files import require_writable_folder
from prefrm.options import AsJson, Device, Dtype

__all__ = ["bench", "engine", "flow", "judges"]

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
def flow(
    model: Annotated[
        str, typer.Option(help="a pipeline of Stable Diffusion 3: shipped, a folder or of the Hub")
    ] = "shapes-flow",
    group: Annotated[int, typer.Option(min=2, help="images of each of four prompts")] = 8,
    steps: Annotated[int, typer.Option(min=2, help="of a rollout")] = 10,
    rounds: Annotated[int, typer.Option(min=1, help="iterations that are measured of each loop")] = 5,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare the trainer of flow policies with a plain loop over diffusers with the same steps."""
    try:
        from prefrm.bench.flow import Settings, bench_flow
    except ImportError as error:
        raise missing_extra(str(error.name), "flow") from error

    settings = Settings(model=model, group=group, steps=steps, rounds=rounds, device=device)
    report = bench_flow(settings)
    print(report.to_json() if as_json else report.to_markdown(), end="")
