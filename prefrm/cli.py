"""The command `prefrm`: thin commands over the library, one line for each mistake.

A user's mistake is printed as one line and ends with status 2; Ctrl-C ends with 130. Commands that
belong to other packages (`data`, `serve`) arrive through the entry point group `prefrm.commands`.
Heavy libraries are imported inside the commands, so that `prefrm --help` is quick.
"""

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from typer.exceptions import Abort, TyperException

from prefrm.errors import ConfigError, PrefrmError

if TYPE_CHECKING:
    from prefrm.eval import Evaluation, Splits, Study
    from prefrm.label import LabelledGroup, PairSummary, Summary
    from prefrm.records import PreferenceGroup
    from prefrm.winmatrix import Scorer

__all__ = ["app", "main"]

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
# What a shell reports of a program that Ctrl-C ended: 128 + SIGINT.
INTERRUPTED = 130

app = typer.Typer(
    name="prefrm",
    help="Train vision-language preference judges, serve group win-rate matrices, turn them into rewards.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Target = Annotated[str, typer.Argument(metavar="BUNDLE|URL", help="a bundle, or grpc://host:port/model")]
Data = Annotated[Path, typer.Argument(help="a dataset folder, as `prefrm data build` writes it")]
Split = Annotated[str, typer.Option(help="which split of the dataset")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]


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
    """Run the command line; the process's exit status is 0, 2 (a mistake) or 130 (interrupted)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status."""
    # On machines without its optional kernels it warns whenever it is imported, 4-bit weights or not.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
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


@app.command()
def quickstart(
    out: Annotated[Path, typer.Option(help="where the run is written")] = Path("runs/quickstart"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="of everything that is drawn at random")
    ] = 0,
) -> None:
    """Train a judge, serve it, rank images with it and train a policy on its rewards, in minutes."""
    # The imports are seconds that its user waits, too.
    started = time.monotonic()
    from prefrm.quickstart import tell

    tell(out, seed=seed, started=started)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="a YAML file, such as configs/train/shapes.yaml")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a setting; may be repeated"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue an interrupted run from its newest checkpoint")
    ] = False,
) -> None:
    """Train a judge from a preference dataset and export it as a bundle.

    On several devices: `accelerate launch -m prefrm train CONFIG`, or torchrun.
    """
    from prefrm.config import load_config
    from prefrm.train import TrainConfig
    from prefrm.train import run as run_training

    settings = load_config(TrainConfig, config, set_ or [])
    try:
        result = run_training(settings, resume=resume)
    except KeyboardInterrupt:
        print("the same command with --resume continues from the newest checkpoint", file=sys.stderr)
        raise
    if not result.main:
        return
    for record, reason in result.left_out.items():
        print(f"record {record!r}: comparisons were left out: {reason}", file=sys.stderr)
    if result.evaluation is not None:
        accuracy = result.evaluation.metrics.accuracy
        print(f"pair accuracy {accuracy.value:.3f} ({accuracy.low:.3f} to {accuracy.high:.3f})", end=", ")
        print(f"calibration error {result.evaluation.calibration.ece:.3f}")
    print(f"bundle: {result.bundle}")


@app.command(name="eval")
def evaluate(
    target: Target,
    data: Data,
    split: Split = "test",
    validation: Annotated[
        str | None,
        typer.Option(
            help="the split on which temperature and tie thresholds are fitted; `none` fits nothing",
            show_default="validation, if the dataset has it",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="BUNDLE|URL", help="another judge, compared on the same groups")
    ] = None,
    amend: Annotated[
        bool,
        typer.Option("--amend", help="put card, numbers and plots into the bundle, whose digest changes"),
    ] = False,
    out: Annotated[Path, typer.Option(help="where report.md, report.json and the plots go")] = Path(
        "runs/eval"
    ),
    as_json: AsJson = False,
) -> None:
    """Measure a judge on a preference dataset: tables, plots, JSON."""
    from prefrm import eval as evaluation

    if amend and "://" in target:
        raise ConfigError(f"--amend writes into a bundle's folder; received the URL {target}")
    splits = evaluation.find_splits(data, split, validation)
    if against is not None:
        _require_judge(against)
    evaluation.make_report_folder(out)
    result = _study(target, data, splits)
    opponent = None
    if against is not None:
        opponent = evaluation.Opponent.of(against, _study(against, data, splits), result)
    plots = evaluation.write_report(
        result.evaluation,
        out,
        recalibrated=result.recalibrated,
        against=opponent,
        why_no_thresholds=splits.why,
    )
    for left_out in result.evaluation.unreadable:
        where = f"record {left_out.id!r}, candidate {left_out.candidate}"
        print(f"{where} was left out: {left_out.reason}", file=sys.stderr)
    if amend:
        # The other judge is nothing that this one's bundle should speak of.
        own = {name: (out / name).read_bytes() for name in plots if name != evaluation.AGAINST}
        _amend(Path(target), split, result.evaluation, own)
    if as_json:
        print((out / "report.json").read_text(encoding="utf-8"), end="")
        return
    print("\n".join(evaluation.summary(result, opponent)))
    print(f"report: {out / 'report.md'}")


def _study(target: str, data: Path, splits: "Splits") -> "Study":
    from prefrm.eval import evaluate_splits

    with _scorer(target) as scorer:
        return evaluate_splits(scorer, data, splits)


def _amend(bundle: Path, split: str, evaluation: "Evaluation", plots: dict[str, bytes]) -> None:
    from prefrm.bundle import amend_bundle, read_manifest
    from prefrm.eval import results_section, with_results

    card = (bundle / "README.md").read_text(encoding="utf-8")
    amended = amend_bundle(
        bundle,
        calibration=read_manifest(bundle).calibration,
        metrics=evaluation.to_dict(),
        card=with_results(card, results_section(split, evaluation, list(plots))),
        plots=plots,
    )
    print(f"amended: {amended.describe()}", file=sys.stderr)


@app.command()
def score(
    target: Target,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE IMAGE ...", help="two image files or more")],
    prompt: Annotated[str, typer.Option(help="what the images answer")],
    plot: Annotated[Path | None, typer.Option(help="also draw the matrix into this file")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare image files with each other: the win matrix, in the terminal."""
    from prefrm.heatmap import terminal_matrix
    from prefrm.scoring import matrix_to_json, read_group

    if plot is not None and plot.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(f"--plot writes {', '.join(PLOT_SUFFIXES)} files; received {plot}")
    if plot is not None and not plot.parent.is_dir():
        raise ConfigError(f"--plot {plot}: {plot.parent} is no folder; make it first")
    group = read_group(prompt, images)
    with _scorer(target) as scorer:
        (matrix,) = scorer.score([group])
    labels = [image.name for image in images]
    if plot is not None:
        from prefrm.plots import win_matrix_figure

        win_matrix_figure(matrix, group.images, prompt, labels=labels).savefig(plot)
    if as_json:
        _print_json({"prompt": prompt, "images": [str(image) for image in images], **matrix_to_json(matrix)})
        return
    Console().print(terminal_matrix(matrix, labels))


@app.command()
def label(
    target: Target,
    data: Data,
    out: Annotated[
        Path, typer.Option(help="where the labels are written; an interrupted run continues there")
    ],
    split: Split = "train",
    select: Annotated[
        Literal["best_worst", "all"], typer.Option(help="one pair from each group, or every pair")
    ] = "best_worst",
    min_margin: Annotated[
        float, typer.Option(help="a pair's 2 P(chosen wins) - 1 is more than this, in [0, 1)")
    ] = 0.0,
    conversational: Annotated[bool, typer.Option(help="write prompts and texts as chat messages")] = False,
) -> None:
    """Label a dataset offline: win matrices, win rates, rankings, and chosen/rejected pairs."""
    from prefrm import label as labelling
    from prefrm.progress import track
    from prefrm.records import count_groups, read_groups

    # The library says it, too, but only once everything is judged.
    if not 0 <= min_margin < 1:
        raise ConfigError(f"--min-margin must be in [0, 1); received {min_margin}")
    total = count_groups(data, split)
    with _scorer(target) as scorer, track("labelling", total) as advance:
        identity = _identity(target, scorer)
        summary = labelling.label(scorer, read_groups(data, split), out, judge=identity, progress=advance)
    if summary.unreadable:
        _name_unreadable(read_groups(data, split), labelling.read_matrices(out))
    pairs = labelling.write_pairs(
        read_groups(data, split),
        out,
        select=select,
        min_margin=min_margin,
        conversational=conversational,
    )
    _print_labels(summary, pairs, out / "pairs.parquet")


def _name_unreadable(groups: "Iterable[PreferenceGroup]", labelled: "Iterable[LabelledGroup]") -> None:
    for group, entry in zip(groups, labelled, strict=True):
        for n, (image, reason) in enumerate(zip(group.images, entry.matrix.errors, strict=True)):
            if reason and image is not None:
                print(f"record {group.id!r}, candidate {n} was not judged: {reason}", file=sys.stderr)


def _print_labels(summary: "Summary", pairs: "PairSummary", path: Path) -> None:
    judged = summary.pairs - summary.unjudged_pairs
    print(f"{summary.groups} groups, {judged} pairs judged, {summary.unjudged_pairs} not judged")
    print(f"{pairs.pairs} chosen/rejected pairs: {path}")
    reasons = {
        "not judged": pairs.unjudged,
        "not beyond the margin": pairs.below_margin,
        "without a text": pairs.without_text,
    }
    if any(reasons.values()):
        print("left out: " + ", ".join(f"{count} {why}" for why, count in reasons.items() if count))
    if not summary.with_texts:
        print("the dataset has no texts, so the columns chosen and rejected are absent; the images are there")


@contextmanager
def _scorer(target: str) -> "Iterator[Scorer]":
    if "://" in target:
        from prefrm.client import connect

        with connect(target) as remote:
            yield remote
        return
    from prefrm.bundle import read_manifest
    from prefrm.engine import Engine

    print(f"judge: {read_manifest(target).describe()}", file=sys.stderr)
    yield Engine.from_bundle(target)


def _require_judge(target: str) -> None:
    """Raise before anything else is scored if `target` is no bundle, or if nobody answers there."""
    if "://" in target:
        with _scorer(target) as scorer:
            _identity(target, scorer)
            return
    from prefrm.bundle import read_manifest

    read_manifest(target)


def _identity(target: str, scorer: "Scorer") -> str:
    """What tells a judge from another, here or behind whatever URL: the digest of its bundle."""
    from prefrm.client import RemoteScorer

    if isinstance(scorer, RemoteScorer):
        return scorer.identity()
    from prefrm.bundle import read_manifest

    return read_manifest(target).digest


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _fail(message: str) -> int:
    print(f"prefrm: {' '.join(message.split())}", file=sys.stderr)
    return 2


bench = typer.Typer(help="Measure prefrm itself.", no_args_is_help=True)
app.add_typer(bench, name="bench")


@bench.command(name="judges")
def bench_judges(
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


def _add_commands() -> None:
    """Mount what other packages offer: an app becomes a group of commands, a function a command."""
    for plugin in entry_points(group="prefrm.commands"):
        loaded = plugin.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=plugin.name)
        else:
            app.command(name=plugin.name)(loaded)


_add_commands()
