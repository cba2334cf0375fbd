"""The commands `prefrm data list | build | inspect | push`: parsing and printing.

Results go to standard output, progress and warnings to standard error. A user's mistake is raised as a
`PrefrmError`; the top-level application prints it.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from data_recipes.folder import RECIPE as FOLDER
from data_recipes.folder import first_prompts
from data_recipes.inspection import DatasetSummary, SplitSummary, Spread, inspect_dataset
from data_recipes.plan import Built, Progress
from data_recipes.recipe import Recipe
from data_recipes.registry import RECIPES, get_recipe
from prefrm.data import dataset_folder, push_dataset
from prefrm.errors import ConfigError
from prefrm.files import require_writable_file, require_writable_folder
from prefrm.options import AsJson, HubName, Private
from prefrm.progress import Advance, track
from prefrm.records import read_groups, read_info

__all__ = ["app", "show_progress"]

app = typer.Typer(no_args_is_help=True, help="Recipes: a source's own files -> preference groups.")

_SHOWN = 5  # lines of a list that are printed; the rest are counted
_TAGS_SHOWN = 12  # values of one tag that are printed


@app.command("list")
def list_recipes(
    recipe: Annotated[str | None, typer.Argument(help="Show the options of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the recipes with licence, size and what is needed, one line each; or the options of one."""
    chosen = list(RECIPES.values()) if recipe is None else [get_recipe(recipe)]
    if as_json:
        print(json.dumps([_recipe_json(each) for each in chosen], indent=2))
    elif recipe is not None:
        _print_options(chosen[0])
    else:
        width = max(map(len, RECIPES))
        for each in chosen:
            parts = (each.summary, each.source.licence, each.source.size, each.source.needs)
            print(f"{each.name:{width}}  {' | '.join(filter(None, parts))}")


def _print_options(recipe: Recipe) -> None:
    table = Table("option", "type", "default", "meaning", title=f"{recipe.name}: {recipe.summary}")
    table.title_justify = "left"
    for each in recipe.options:
        table.add_row(each.name, each.type.__name__, _default(each.required, each.default), each.help)
    Console().print(table)
    facts = {name: value for name, value in asdict(recipe.source).items() if value}
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))


@app.command("build")
def build(
    recipe: Annotated[str, typer.Argument(help="A name from `prefrm data list`.")],
    stray: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    *,
    out: Annotated[Path, typer.Option(help="The dataset folder to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="OPTION=VALUE",
            help="An option of the recipe (`prefrm data list NAME`); repeatable.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits and of generated data.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the dataset in the folder.")
    ] = False,
    apart_from: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="Leave out what shares a prompt, an image or a video with this dataset (a folder or "
            "hf://org/name); repeatable.",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, help="Number of processes that read and decode images and videos.")
    ] = os.cpu_count() or 1,
    as_json: AsJson = False,
) -> None:
    """Build a dataset folder. A build that was interrupted or killed resumes with the same command."""
    chosen, options = get_recipe(recipe), _settings(settings or [])
    if stray:
        option = stray[0] if "=" in stray[0] else f"source={stray[0]}"
        raise ConfigError(
            f"{stray[0]!r} is not expected here; a recipe's options are given as --set {option}"
        )
    require_writable_folder(out, "--out")
    try:
        with show_progress() as progress:
            built = chosen.build(
                out,
                seed=seed,
                overwrite=overwrite,
                processes=processes,
                apart_from=apart_from or (),
                progress=progress,
                **options,
            )
    except KeyboardInterrupt:
        print("interrupted: run the same command again to resume this build", file=sys.stderr)
        raise
    for line in built.left_out:
        print(f"left out: {line}", file=sys.stderr)
    if chosen is FOLDER:
        print(first_prompts(out), file=sys.stderr)
    if as_json:
        print(json.dumps({"out": str(out), "groups": built.groups, **asdict(built)}, indent=2))
    else:
        _print_built(out, built)


def _print_built(out: Path, built: Built) -> None:
    counts = ", ".join(f"{n} {split}" for split, n in built.groups.items())
    left_out = _left_out(built.info.left_out)
    print(f"{out}: {counts} groups{f'; left out: {left_out}' if left_out else ''}")
    for split, examples in built.contradictory.items():
        if total := built.info.splits[split].contradictory:
            more = f"; and {total - len(examples)} more" if total > len(examples) else ""
            print(f"contradictory in {split}: {total}: {'; '.join(examples)}{more}", file=sys.stderr)


@app.command("inspect")
def inspect(
    folder: Annotated[Path, typer.Argument(metavar="DATA", help="A dataset folder, or hf://org/name.")],
    split: Annotated[str | None, typer.Option(help="Only this split: train, validation or test.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Write a contact sheet of the first groups: a .png file, or a folder for one of each split."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Number of groups on a contact sheet.")] = 12,
    as_json: AsJson = False,
) -> None:
    """Summarize a dataset and report problems: unreadable files, leaks between splits, contradictions."""
    if plot is not None:
        _require_writable(plot)
    folder = dataset_folder(folder)
    summary = inspect_dataset(folder, split)
    drawn = _draw(folder, list(summary.splits), rows, plot) if plot is not None else []
    if as_json:
        print(json.dumps(asdict(summary), indent=2))
        return
    _print_summary(summary)
    for path in drawn:
        print(f"wrote {path}")


@app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A dataset folder.")],
    name: HubName,
    private: Private = False,
) -> None:
    """Upload a dataset to the Hugging Face Hub, once its fingerprints are checked."""
    pushed = push_dataset(folder, name, private=private)
    counts = read_info(folder).splits.items()
    print(f"{pushed}: {', '.join(f'{one.groups} {split} groups' for split, one in counts)}")


def _require_writable(plot: Path) -> None:
    if _is_picture(plot):
        plot.parent.mkdir(parents=True, exist_ok=True)
        require_writable_file(plot, "--plot")
    elif plot.suffix:
        raise ConfigError(f"--plot must name a .png file or a folder; received {plot}")
    else:
        require_writable_folder(plot, "--plot")


def _is_picture(plot: Path) -> bool:
    return plot.suffix.lower() == ".png"


def _draw(folder: Path, splits: list[str], rows: int, plot: Path) -> list[Path]:
    """Draw the first groups of the first split, or, into a folder, of each; returns the files."""
    # Matplotlib takes a second to import.
    from data_recipes.contact_sheet import contact_sheet

    files = {splits[0]: plot} if _is_picture(plot) else {split: plot / f"{split}.png" for split in splits}
    for split, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(list(islice(read_groups(folder, split), rows))).savefig(path)
    return list(files.values())


def _recipe_json(recipe: Recipe) -> dict[str, object]:
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        **asdict(recipe.source),
        "options": [{**asdict(each), "type": each.type.__name__} for each in recipe.options],
    }


def _default(required: bool, default: object) -> str:
    return "(must be given)" if required else str(default)


def _settings(pairs: list[str]) -> dict[str, Any]:
    """`["a=1"]` -> `{"a": "1"}`."""
    settings: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set takes option=value; received {pair!r}")
        if name in settings:
            raise ConfigError(f"--set {name} is given twice")
        # A shell leaves the "~" of `--set source=~/data` as it is.
        settings[name] = os.path.expanduser(value) if value.startswith("~/") else value
    return settings


@contextmanager
def show_progress() -> Iterator[Progress]:
    """A `Progress` that shows one stage after another on standard error."""
    with ExitStack() as current:
        advance: dict[str, Advance] = {}

        def show(split: str, done: int, total: int | None) -> None:
            if split not in advance:
                current.close()  # the stage before is done
                advance[split] = current.enter_context(track(split, total))
            advance[split](done)

        yield show


def _print_summary(summary: DatasetSummary) -> None:
    options = ", ".join(f"{k}={v}" for k, v in summary.info.options.items())
    print(f"recipe {summary.info.recipe} ({options})")
    facts = {"source": summary.info.source, "licence": summary.info.licence}
    print("".join(f"{name}: {value}\n" for name, value in facts.items() if value), end="")
    print("".join(f"apart from {folder}\n" for folder in summary.info.apart_from), end="")
    print(f"left out by the build: {_left_out(summary.info.left_out) or 'nothing'}")
    table = Table("", *summary.splits)
    columns = [_cells(split) for split in summary.splits.values()]
    for name in dict.fromkeys(name for column in columns for name in column):
        table.add_row(name, *(column.get(name, "") for column in columns))
    Console().print(table)
    _print_lines("prompts in more than one split", [repr(text) for text in summary.shared_prompts])
    print(f"images or videos in more than one split: {summary.shared_images or 'none'}")
    for name, split in summary.splits.items():
        _print_lines(f"unreadable images or videos in {name}", split.unreadable)
        if not split.questionable:
            print(f"questionable comparisons in {name}: none")
        for kind, lines in split.questionable.items():
            _print_lines(f"{kind} in {name}", lines)


def _left_out(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.items())


def _cells(split: SplitSummary) -> dict[str, str]:
    """A column of the table: row -> text."""
    matches = {True: "as built", False: "NOT as in dataset.json", None: "not in dataset.json"}
    return {
        "groups": str(split.groups),
        "kinds of candidates": _counts(split.kinds),
        "criteria": _counts({criterion or "(overall)": n for criterion, n in split.criteria.items()}),
        "distinct prompts": str(split.prompts),
        "candidates in a group": _counts(split.group_sizes),
        "candidates": str(split.candidates),
        "missing candidates": str(split.missing),
        "comparisons": str(split.comparisons),
        "ties": _share(split.ties, split.comparisons),
        "contradict the known quality": (
            _share(split.against_quality, split.quality_pairs) if split.quality_pairs else "-"
        ),
        "first candidate of the source's row preferred": _decided(split.first_wins),
        "lower digest preferred": _decided(split.digest_wins),
        **{name: text for name, text in _sizes(split).items() if text},
        "unreadable": str(len(split.unreadable)),
        "fingerprint": f"{split.fingerprint[:12]}\n{matches[split.fingerprint_matches]}",
        **{
            f"{name}: {value}": f"{tagged.groups}, ties {_share(tagged.ties, tagged.comparisons)}"
            for name, values in split.tags.items()
            for value, tagged in islice(values.items(), _TAGS_SHOWN)
        },
    }


def _sizes(split: SplitSummary) -> dict[str, str]:
    """Sizes of what the split has."""
    return {
        "context images": str(split.context_images or ""),
        "image sizes": _counts(split.image_sizes) if split.image_sizes else "",
        "video sizes": _counts(split.video_sizes) if split.video_sizes else "",
        "frames of videos": _spread(split.video_frames),
        "seconds of videos": _spread(split.video_seconds),
        "characters of texts": _spread(split.text_characters),
        "longer text preferred": "" if split.longer_wins is None else _decided(split.longer_wins),
    }


def _spread(numbers: Spread | None) -> str:
    if numbers is None:
        return ""
    least, middle, most = (f"{number:.1f}".removesuffix(".0") for number in astuple(numbers))
    return f"{least} to {most}, median {middle}"


def _decided(share: float | None) -> str:
    return "unknown" if share is None else f"{share:.3f} of strict pairs"


def _counts(counts: Mapping[str, int] | Mapping[int, int]) -> str:
    shown = [f"{name}: {n}" for name, n in counts.items()]
    more = [f"and {len(shown) - 2 * _SHOWN} more"] if len(shown) > 2 * _SHOWN else []
    return "\n".join(shown[: 2 * _SHOWN] + more) or "none"


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "0"


def _print_lines(title: str, lines: tuple[str, ...] | list[str]) -> None:
    print(f"{title}: {len(lines) or 'none'}")
    for line in lines[:_SHOWN]:
        print(f"  {line}")
    if len(lines) > _SHOWN:
        print(f"  and {len(lines) - _SHOWN} more")
