"""`prefrm bench`: the group of commands that measure prefrm itself."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from prefrm.cli.local import Local
from prefrm.cli.remote import Remote
from prefrm.cli.shared import Split, open_scorer, require_judge
from prefrm.errors import ConfigError, missing_extra
from prefrm.files import require_writable_folder
from prefrm.options import AsJson, Device, Dtype, with_options

__all__ = ["bench", "chat", "collecting", "engine", "flow", "hacking", "judges", "published", "rows"]

bench = typer.Typer(help="Measure prefrm itself.", no_args_is_help=True)


@bench.command()
def judges(
    out: Annotated[Path, typer.Option(help="where judges.md, judges.json and the plots go")] = Path("docs"),
    runs: Annotated[
        Path, typer.Option(help="folder of the training runs; an interrupted benchmark resumes from it")
    ] = Path("runs/bench-judges"),
    part: Annotated[
        list[str] | None,
        typer.Option(help="measure this table alone: shapes, cyclic, noise or kinds; may be repeated"),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, help="parallel training runs; one for each core by default")
    ] = None,
) -> None:
    """Train every kind of judge on the shapes world and write down what each is worth and costs."""
    from prefrm.bench.cases import PARTS
    from prefrm.bench.judges import bench_judges

    if unknown := sorted(set(part or ()) - set(PARTS)):
        raise ConfigError(f"--part is one of {', '.join(PARTS)}; received {unknown[0]!r}")
    require_writable_folder(out, "--out")
    bench_judges(runs, out, parts=part or PARTS, device=device, workers=workers)
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
@with_options
def published(
    data: Annotated[
        Path,
        typer.Argument(
            help="a dataset, as `prefrm data build` writes it: its folder or hf://org/name; or the folder of "
            "an arena"
        ),
    ],
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SCORER]...", help="scorers; by default every bundle in the folder --judges"),
    ] = None,
    judges: Annotated[
        Path, typer.Option(help="a folder of bundles, as `prefrm import --out judges/NAME` makes it")
    ] = Path("judges"),
    split: Split = "test",
    groups: Annotated[
        int | None, typer.Option(min=1, help="number of groups, from the first on; all by default")
    ] = None,
    definition: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="a published accuracy, as in `prefrm eval`; may be given several times",
            show_default="those published on this dataset",
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    local: Local,
    remote: Remote,
) -> None:
    """Compare imported judges on a dataset: accuracy beside the published one, and the time of a group.

    Of an arena's folder: its models beside the published leaderboard of its prompts, and why a number may not
    stand there.
    """
    from prefrm.bench.leaderboards import ARENA, place_arena, placed_text
    from prefrm.bench.published import bench_published, imported_judges, published_table
    from prefrm.data import dataset_folder
    from prefrm.eval.evaluation import to_json

    if (data / ARENA).is_file():
        board, placed = place_arena(data)
        plain = to_json({"leaderboard": board and asdict(board), "models": [asdict(one) for one in placed]})
        print(json.dumps(plain, indent=2, allow_nan=False) if as_json else placed_text(board, placed), end="")
        return
    found = targets or imported_judges(judges)
    local.require_bundle(*found)
    remote.require_url(*found)
    data = dataset_folder(data, [split, "validation"])
    for target in found:
        require_judge(target, remote)
    rows = bench_published(
        found,
        data,
        split,
        partial(open_scorer, remote=remote, local=local),
        groups=groups,
        definitions=definition or (),
    )
    if as_json:
        print(json.dumps(to_json([asdict(row) for row in rows]), indent=2, allow_nan=False))
    else:
        print(published_table(rows), end="")


@bench.command()
def chat(
    in_flight: Annotated[int, typer.Option(min=1, help="questions at once")] = 32,
    seconds: Annotated[float, typer.Option(help="until the endpoint answers a question")] = 0.5,
    groups: Annotated[int, typer.Option(min=1, help="groups of 4 candidates in a round")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="of which a rate is the median")] = 5,
    as_json: AsJson = False,
) -> None:
    """Compare the throughput of a scorer over a chat endpoint with a bare loop, on a paced local endpoint."""
    from prefrm.bench.chat import ChatBench, bench_chat

    report = bench_chat(ChatBench(in_flight=in_flight, seconds=seconds, groups=groups, rounds=rounds))
    print(report.to_json() if as_json else report.to_text(), end="")


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


@bench.command()
def collecting(
    quick: Annotated[
        bool, typer.Option("--quick", help="one seed, few answers and short trainings: a few minutes")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="where collecting.md, collecting.json and the curve go; docs, or --runs with --quick"
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="folder of the trainings: runs/bench-collecting, or runs/bench-collecting-quick; an "
            "interrupted study resumes from it"
        ),
    ] = None,
    committee: Annotated[
        int, typer.Option(min=1, help="judges, trained with different seeds, that choose together")
    ] = 1,
    device: Device = "auto",
) -> None:
    """Compare judges trained on pairs that the page Collect chooses with those of pairs drawn by chance."""
    from prefrm.bench.collecting import FULL, QUICK, answers_needed, bench_collecting

    runs = runs or Path("runs/bench-collecting-quick" if quick else "runs/bench-collecting")
    out = out or (runs if quick else Path("docs"))
    require_writable_folder(out, "--out")
    study = replace(QUICK if quick else FULL, committee=committee)
    points = bench_collecting(study, runs, out, device=device)
    accuracy, share = answers_needed(points)
    print(f"accuracy {accuracy:.3f} takes {share:.2f} of the answers; report: {out / 'collecting.md'}")


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


@bench.command()
def rows(
    judge: Annotated[str, typer.Option(help="a bundle, or the URL of a server with gradients")],
    method: Annotated[
        list[str] | None, typer.Option(help="name of a method of `prefrm flow --list`; all by default")
    ] = None,
    out: Annotated[Path, typer.Option(help="where rows.md goes")] = Path("docs/flow"),
    runs: Annotated[
        Path, typer.Option(help="folder of the trainings; an interrupted benchmark resumes from it")
    ] = Path("runs/bench-rows"),
) -> None:
    """Train the shipped flow model with every method, at equal rollouts, and write down the table."""
    try:
        from prefrm.bench.flow_rows import bench_rows
    except ImportError as error:
        raise missing_extra(str(error.name), "flow") from error
    from prefrm.flow.methods import METHODS
    from prefrm.scorers import open_scorer as opened
    from prefrm.scorers.gradients import open_gradient

    require_writable_folder(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    remote = Remote()
    bench_rows(
        judge,
        runs,
        out / "rows.md",
        partial(opened, connect=remote.connect),
        partial(open_gradient, connect=remote.gradient),
        methods=method or tuple(METHODS),
    )
    print(f"report: {out / 'rows.md'}")
