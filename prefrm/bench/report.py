"""The benchmark of judges in words, numbers and pictures; decides nothing and trains nothing."""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from prefrm import plots
from prefrm.bench.cases import GROUPS
from prefrm.bench.speed import TIMED_STEPS, Speed
from prefrm.bench.training import CPU, Row
from prefrm.display import markdown_table
from prefrm.files import write_json, write_whole

__all__ = ["read_judges_report", "spread", "write_judges_report"]

FOLDER = "judges"
NOTES = "notes.md"
INTRODUCTION = """\
# Judges

What each kind of judge is worth and what it costs, as `make bench-judges` measured it ({device}). Every
judge is a LoRA adapter of rank 16 on the shipped captioner, trained for {steps} optimizer steps. A step
reads {groups} groups with all their comparisons, of a verdict in both presentation orders. Accuracy is over
strict pairs of held-out prompts, against clean labels. The calibration error is over all pairs, ties
included, under the calibration that was fitted to the validation split.
"""
SIZES = """\
Trained on {train:,} groups of {group_size}, {labels}; calibrated on {validation:,} groups and measured on
{test:,}.
"""
SHAPES = """\
Every judge on the shapes world (`prefrm data build shapes`), with several seeds: their mean, the lowest and
the highest.
"""
CYCLIC = """\
Circle beats square, square beats triangle, triangle beats circle (`prefrm data build cyclic`). Utilities
cannot go round in circles: whatever a scalar judge learns, it can have at most two of the three right.
"""
NOISE = """\
The late verdict, trained on labels of which a share is flipped, against clean labels.
"""
KINDS = """\
Late verdicts on the shipped viewer, which has seen the sisters of the shapes world: edits of a picture
(`prefrm data build shapes-edits`), videos of a moving shape (`shapes-clips`), answers to a question about a
picture (`shapes-questions`), and pictures by one of two criteria (`shapes-criteria`). One prompt template
serves all of them. Means of all seeds, the lowest and the highest. Two criteria have columns of their own:
the accuracy over the pairs of which the other criterion prefers the other candidate, where a judge that is
not told the criterion is right as often as wrong.
"""
SPEED = """\
Comparisons a second in training, against the same adapter and loss in a plain `transformers.Trainer` over
single pairs: each pair is a whole prompt for the model's own forward pass. Each presentation order counts
as one. Medians of alternating runs in one process{threads}.
"""


def write_judges_report(
    rows: Sequence[Row],
    speeds: Sequence[Speed],
    docs: Path,
    *,
    steps: int,
    worlds: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write `judges.md`, `judges.json` (a list of rows) and the plots in `judges/` into `docs`.

    What somebody wrote into `judges/notes.md` closes the report.

    Args:
        worlds: for each part, the options of its recipe.
    """
    pictures = docs / FOLDER
    pictures.mkdir(parents=True, exist_ok=True)
    rates = {speed.judge: speed for speed in speeds}
    # Speed is measured on the shapes world.
    entries = [
        asdict(row) | _rates(None if row.part in ("cyclic", "kinds") else rates.get(_name(row)))
        for row in rows
    ]
    write_json(docs / "judges.json", entries)
    _draw(rows, pictures)
    device = " and ".join(sorted({row.device for row in rows}))
    one_thread = all(speed.device == CPU for speed in speeds)
    sections = [
        INTRODUCTION.format(device=device, steps=steps, groups=GROUPS),
        "## Every judge",
        SHAPES + _sizes(worlds["shapes"]),
        markdown_table(_shapes_header(), _shapes_table(rows)),
        f"![Pair accuracy by judge]({FOLDER}/accuracy.png)",
        "## Every seed",
        markdown_table(["judge", "seed", "pair accuracy", "95% interval"], _seeds_table(rows)),
        "## Preferences that go round in circles",
        CYCLIC + _sizes(worlds["cyclic"]),
        markdown_table(["judge", "seed", "pair accuracy", "95% interval"], _cyclic_table(rows)),
        "## Label noise",
        NOISE + _sizes(worlds["noise"], "of whose labels the share in the table is flipped"),
        markdown_table(["flipped", "pair accuracy", "95% interval", "calibration error"], _noise_table(rows)),
        f"![Pair accuracy against label noise]({FOLDER}/label_noise.png)",
        "## Candidates of every kind",
        KINDS + _sizes(worlds["kinds"]),
        markdown_table(*_kinds_table(rows)),
        "## Speed",
        SPEED.format(threads=" on one thread" if one_thread else ""),
        markdown_table(["judge", "prefrm", "plain", "times"], _speed_table(speeds)),
        *_notes(pictures / NOTES),
    ]
    write_whole(docs / "judges.md", "\n\n".join(section.strip() for section in sections) + "\n")


def read_judges_report(docs: Path) -> tuple[list[Row], list[Speed]]:
    """The rows and speeds of an earlier report; empty lists if there is none."""
    path = docs / "judges.json"
    entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    names = [field.name for field in fields(Row)]
    rows = [Row(**{name: entry[name] for name in names}) for entry in entries]
    speeds = {
        _name(row): Speed(
            judge=_name(row),
            prefrm=entry["comparisons_per_second"],
            plain=entry["plain_comparisons_per_second"],
            steps=TIMED_STEPS,
            device=row.device,
        )
        for row, entry in zip(rows, entries, strict=True)
        if entry["comparisons_per_second"] is not None
    }
    return rows, list(speeds.values())


def _notes(path: Path) -> list[str]:
    return ["## Notes", path.read_text(encoding="utf-8")] if path.is_file() else []


def _sizes(options: Mapping[str, Any], labels: str | None = None) -> str:
    flip = options["flip"]
    labels = labels or (
        f"of whose labels {flip:.0%} are flipped" if flip else "none of whose labels is flipped"
    )
    return SIZES.format(**options, labels=labels)


def _name(row: Row) -> str:
    return "-".join(part for part in (row.judge, row.attention, row.quantised) if part)


def _rates(speed: Speed | None) -> dict[str, float | None]:
    if speed is None:
        return {"comparisons_per_second": None, "plain_comparisons_per_second": None}
    return {"comparisons_per_second": speed.prefrm, "plain_comparisons_per_second": speed.plain}


def _by_judge(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.part == "shapes":
            found.setdefault(_name(row), []).append(row)
    return found


def _noise_rows(rows: Sequence[Row]) -> list[Row]:
    """The curve, with the case of the table that lies on it."""
    noise = [row for row in rows if row.part == "noise"]
    kinds = {_name(row) for row in noise}
    shared = [row for row in rows if row.part == "shapes" and row.seed == 0 and _name(row) in kinds]
    return sorted([*noise, *shared], key=lambda row: row.flip)


def _shapes_header() -> list[str]:
    return ["judge", "pair accuracy", "calibration error", "order gap", "seconds", "peak MB"]


def _shapes_table(rows: Sequence[Row]) -> list[list[str]]:
    table = []
    for name, seeds in _by_judge(rows).items():
        gaps = [row.order_gap for row in seeds if row.order_gap is not None]
        table.append(
            [
                name,
                spread([row.pair_accuracy for row in seeds]),
                spread([row.ece for row in seeds]),
                spread(gaps) if gaps else "-",
                f"{statistics.median(row.seconds for row in seeds):.0f}",
                f"{statistics.median(row.peak_mb for row in seeds):.0f}",
            ]
        )
    return table


def spread(values: Sequence[float]) -> str:
    """Mean, and the lowest and highest seed."""
    mean = statistics.fmean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


def _seeds_table(rows: Sequence[Row]) -> list[list[str]]:
    return [_seed(row) for seeds in _by_judge(rows).values() for row in seeds]


def _cyclic_table(rows: Sequence[Row]) -> list[list[str]]:
    return [_seed(row) for row in rows if row.part == "cyclic"]


def _seed(row: Row) -> list[str]:
    return [_name(row), str(row.seed), f"{row.pair_accuracy:.3f}", _interval(row)]


def _noise_table(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [f"{row.flip:.0%}", f"{row.pair_accuracy:.3f}", _interval(row), f"{row.ece:.3f}"]
        for row in _noise_rows(rows)
    ]


def _kinds_table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The header and the body of the table of kinds."""
    compared: dict[str, list[Row]] = {}
    for row in rows:
        if row.part == "kinds":
            compared.setdefault(row.compared, []).append(row)
    criteria = sorted({name for row in rows for name in row.disputed})
    header = ["compared", "seeds", "pair accuracy", *(f"by {name}, disputed" for name in criteria)]
    header += ["calibration error", "order gap", "seconds"]
    body = []
    for name, seeds in compared.items():
        disputed = [
            spread([row.disputed[criterion] for row in seeds]) if seeds[0].disputed else "-"
            for criterion in criteria
        ]
        gaps = [row.order_gap for row in seeds if row.order_gap is not None]
        seconds = f"{statistics.median(row.seconds for row in seeds):.0f}"
        accuracy, ece = ([getattr(row, field) for row in seeds] for field in ("pair_accuracy", "ece"))
        body.append([name, str(len(seeds)), spread(accuracy), *disputed, spread(ece), spread(gaps), seconds])
    return header, body


def _speed_table(speeds: Sequence[Speed]) -> list[list[str]]:
    return [[s.judge, f"{s.prefrm:.0f}", f"{s.plain:.0f}", f"{s.ratio:.2f}"] for s in speeds]


def _interval(row: Row) -> str:
    return f"{row.low:.3f} to {row.high:.3f}"


def _draw(rows: Sequence[Row], folder: Path) -> None:
    judges = _by_judge(rows)
    means = {name: statistics.fmean(row.pair_accuracy for row in seeds) for name, seeds in judges.items()}
    ranges = {
        name: (min(row.pair_accuracy for row in seeds), max(row.pair_accuracy for row in seeds))
        for name, seeds in judges.items()
    }
    plots.bars(
        means, intervals=ranges, title="Pair accuracy on held-out prompts, all seeds", reference=0.5
    ).savefig(folder / "accuracy.png")
    curve = [(100 * row.flip, row.pair_accuracy) for row in _noise_rows(rows)]
    plots.learning_curve(
        {"late verdict": curve},
        title="Pair accuracy against clean labels",
        xlabel="training labels flipped (%)",
        ylabel="pair accuracy",
    ).savefig(folder / "label_noise.png")
