"""The study of reward hacking in words, numbers and a picture; decides nothing and trains nothing."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

from prefrm.bench.hacking_cases import REWARDS, Study
from prefrm.bench.hacking_figure import hacking_figure
from prefrm.bench.hacking_judges import JudgeRow
from prefrm.bench.hacking_rows import Interval, Row, Turn, mean_interval, paired, turn
from prefrm.config import flatten
from prefrm.display import markdown_table
from prefrm.files import write_whole

__all__ = ["write_hacking_report"]

FOLDER = "hacking"
NOTES = "notes.md"
CURVES, BEFORE, AFTER = "curves.png", "before.png", "after.png"
UTILITY, *OTHERS = (reward.name for reward in REWARDS)
WIN_RATE = OTHERS[0]
# Of which each differs from the one before it in one choice, and each from the utility.
CONTRASTS = (
    *((name, UTILITY) for name in OTHERS),
    ("verdict win rate", "scalar win rate"),
    ("verdict calibrated", "verdict win rate"),
    ("ensemble", "verdict calibrated"),
)
ENDS = ("judge", "second")
CHANGES = ("gap", "oracle", "diversity")
INTRODUCTION = """\
# Reward hacking

Does a policy that is trained with win rates exploit its judge less than one trained with pointwise scores
that are normalized in the group, as Pref-GRPO claims (arXiv 2508.20751)? `prefrm bench hacking` trains the
shipped flow model with every combination of rewards ({rewards}), methods ({methods}) and seeds ({seeds}).
This page has {done} of these {cells} trainings.

Within a method and a seed nothing but the reward differs: prompts, noise and settings are equal. A training
has {iterations} iterations of {images} images, {prompts} prompts with {group} images each in {steps} steps of
the sampler, and took {seconds:.0f} seconds of one core (median). Every {every} iterations {held_out} held-out
prompts with {held_out_images} images each are evaluated; each seed has other prompts. What differs from the
rows of the methods: {changes}.
"""
MEASURES = """\
- **reward**: the mean probability, by the judge that the policy is trained with, that an image is preferred
  to one that the policy drew for the same prompt before the training. It starts at 0.5, and is calibrated
  for every reward here, since only calibrated probabilities of different judges are of one scale. The
  training reward itself would not do: the mean win rate of a group is always 0.5, and that of centered
  utilities 0.
- **second judge**: the same by an embedding judge, trained on other prompts, other flips and from another
  seed, which no policy is trained with. Like the scalar judge it reads each image alone.
- **gap**: reward minus second judge. Both see the same images, so what is in the gap convinces one judge
  alone. What fools both is not in it: only the oracle shows that.
- **oracle**: the share of the prompt's claims that hold, read from the pixels.
- **diversity**: the mean distance of two images of a prompt, the root mean square over pixels in [0, 1].
"""
JUDGES = """\
LoRA adapters of rank 16 on the shipped captioner, trained for {judge_steps} steps of {judge_batch} groups of
4 on {groups} groups, of whose labels {flip:.0%} are flipped. Accuracy is over strict pairs of held-out
prompts with clean labels.
"""
DEFINITIONS = {
    "scalar utility": "the utility u of the scalar judge",
    "scalar win rate": "the mean of sigmoid(u_i - u_j) over the group",
    "verdict win rate": "the same of the probabilities of a judge that compares two images",
    "verdict calibrated": "the same, with the calibration that was fitted on the validation split",
    "ensemble": "the win rate by the mean of the log-odds of both judges, calibrated",
}
LIKENESS = """\
Correlations are means over held-out groups of 4. Two rewards with the correlation 1 have the same
advantages, which are normalized in the group. The last three rows are further forms of win rates, with which
no policy is trained; a hard one counts a preference as a whole win, as Pref-GRPO does.
"""
RESULTS = """\
Reward and second judge: at the last evaluation. Gap, oracle and diversity: the change from before the
training to its end, mean over seeds with its 95% interval (Student's t).
"""
TURNS = """\
Mean over seeds: the iteration at which the oracle is highest, and what changes from there to the end. The
highest of several noisy points lies above the truth, so a small fall means nothing.
"""
DIFFERENCES = """\
Differences between two rewards, paired by method and seed, with 95% intervals as if the pairs were
independent; those of one seed share prompts and initial samples. A positive difference of the oracle and a
negative one of the gap mean that the first reward is hacked less.
"""
EXAMPLE = """\
`{name}`, whose oracle fell most from its highest point while the reward rose.
Each row is a held-out prompt: before the training, and after it.

![before]({folder}/{before}) ![after]({folder}/{after})
"""


def write_hacking_report(
    rows: Sequence[Row],
    judges: Sequence[JudgeRow],
    study: Study,
    docs: Path,
    *,
    likeness: Mapping[str, float],
    sheets: Mapping[str, Path],
) -> None:
    """Write `hacking.md`, `hacking.json` and the pictures in `hacking/` into `docs`.

    What somebody wrote into `hacking/notes.md` about an earlier report stands in it.

    Args:
        rows: of the cells that are done, at least one.
        judges: of the study.
        study: its sizes.
        docs: the folder.
        likeness: of each reward to the first one, a correlation.
        sheets: of each cell by name, the folder with a picture of its samples for each evaluation.
    """
    pictures = docs / FOLDER
    pictures.mkdir(parents=True, exist_ok=True)
    hacking_figure(rows, [reward.name for reward in study.rewards]).savefig(pictures / CURVES)
    sections = [
        _introduction(rows, study),
        *_notes(pictures / NOTES),
        "## What is measured",
        MEASURES,
        "## Judges and rewards",
        JUDGES.format(**asdict(study) | {"groups": study.groups[0]}),
        _judges_table(judges),
        "\n".join(f"- **{reward.name}**: {DEFINITIONS[reward.name]}." for reward in study.rewards),
        LIKENESS,
        markdown_table(
            ["reward", f"correlation with {study.rewards[0].name}"],
            [[name, f"{value:.3f}"] for name, value in likeness.items()],
        ),
        "## Curves",
        f"![reward, second judge, oracle and diversity over the training]({FOLDER}/{CURVES})",
        "## Results",
        RESULTS,
        _results_table(rows, study),
        "## Where the oracle turns",
        TURNS,
        _turns_table(rows, study),
        "## Rewards compared",
        DIFFERENCES,
        _differences_table(rows),
        _verdict(rows),
        *_example(rows, study, pictures, sheets),
    ]
    written = [section.strip() for section in sections if section]
    write_whole(docs / "hacking.md", "\n\n".join(written) + "\n")
    facts = {
        "study": asdict(study),
        "cells": len(study.cells),
        "judges": [asdict(judge) for judge in judges],
        "likeness": dict(likeness),
        "rows": [asdict(row) for row in rows],
    }
    write_whole(docs / "hacking.json", json.dumps(facts, indent=1, allow_nan=False) + "\n")


def _introduction(rows: Sequence[Row], study: Study) -> str:
    seconds = sorted(row.seconds for row in rows)
    facts = asdict(study) | {
        "rewards": len(study.rewards),
        "methods": len(study.methods),
        "seeds": len(study.seeds),
        "done": len(rows),
        "cells": len(study.cells),
        "images": study.prompts * study.group,
        "held_out_images": study.images,
        "changes": "; ".join(f"`{method}` {_changes(study, method)}" for method in study.methods),
        "seconds": seconds[len(seconds) // 2],
    }
    return INTRODUCTION.format(**facts)


def _changes(study: Study, method: str) -> str:
    settings = flatten({"optim": {"lr": study.lr[method]}, **study.settings_of(method)})
    return ", ".join(f"{key} {str(value).lower()}" for key, value in settings.items())


def _judges_table(judges: Sequence[JudgeRow]) -> str:
    body = [
        [judge.name, f"{judge.accuracy:.3f}", f"{judge.low:.3f} to {judge.high:.3f}", judge.calibration]
        for judge in judges
    ]
    return markdown_table(["judge", "pair accuracy", "95% interval", "calibration"], body)


def _cells(rows: Sequence[Row], study: Study) -> list[tuple[str, str, list[Row]]]:
    """(method, reward, trainings) wherever there are trainings."""
    pairs = product(study.methods, (reward.name for reward in study.rewards))
    found = [(m, r, [row for row in rows if (row.method, row.reward) == (m, r)]) for m, r in pairs]
    return [one for one in found if one[2]]


def _results_table(rows: Sequence[Row], study: Study) -> str:
    header = ["method", "reward", "seeds", "reward at the end", "second judge", "gap", "oracle", "diversity"]
    body = []
    for method, reward, some in _cells(rows, study):
        ends = [f"{mean_interval([getattr(row.points[-1], m) for row in some]).mean:.3f}" for m in ENDS]
        changes = [_signed(mean_interval([row.change(measure) for row in some])) for measure in CHANGES]
        body.append([method, reward, str(len(some)), *ends, *changes])
    return markdown_table(header, body)


def _turns_table(rows: Sequence[Row], study: Study) -> str:
    body = [[method, reward, *_turned(turn(some))] for method, reward, some in _cells(rows, study)]
    return markdown_table(["method", "reward", "iteration", "oracle since", "reward since"], body)


def _turned(found: Turn) -> list[str]:
    return [str(found.iteration), f"{found.oracle:+.3f}", f"{found.judge:+.3f}"]


def _differences_table(rows: Sequence[Row]) -> str:
    body = []
    for reward, other in CONTRASTS:
        differences = {measure: paired(rows, reward, other, measure) for measure in CHANGES}
        if pairs := differences["oracle"]:
            cells = [_signed(mean_interval(values)) for values in differences.values()]
            body.append([f"{reward} - {other}", str(len(pairs)), *cells])
    return markdown_table(["difference", "pairs", *CHANGES], body) if body else "There are no pairs yet."


def _verdict(rows: Sequence[Row]) -> str:
    """Whether the differences support Pref-GRPO's claim, from the only two rewards with one judge."""
    lines = []
    for measure, better in (("gap", -1), ("oracle", 1)):
        if len(values := paired(rows, WIN_RATE, UTILITY, measure)) > 1:
            lines.append(f"- by the {measure}: {_said(values, better)}")
    heading = (
        f"{WIN_RATE.capitalize()} and {UTILITY} come from one judge, so their difference is the test of the "
        "claim that win rates are hacked less:"
    )
    return "\n".join([heading, "", *lines]) if lines else ""


def _said(values: Sequence[float], better: int) -> str:
    interval = mean_interval(values)
    if not interval.excludes_zero:
        return f"not decided, {_signed(interval)}."
    return f"{'supported' if interval.mean * better > 0 else 'contradicted'}, {_signed(interval)}."


def _signed(interval: Interval) -> str:
    """A mean and its interval, if it has one."""
    if math.isnan(interval.low):
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _example(rows: Sequence[Row], study: Study, pictures: Path, sheets: Mapping[str, Path]) -> list[str]:
    """Samples of the training that was hacked most, if one was."""
    names = {(cell.reward.name, cell.method, cell.seed): cell.name for cell in study.cells}
    falls = [(turn([row]), row) for row in rows]
    hacked = sorted(
        ((found.oracle, names[row.reward, row.method, row.seed]) for found, row in falls if found.hacked)
    )
    if not hacked:
        return []
    _, name = hacked[0]
    first, *_, last = sorted(sheets[name].glob("*.png"))
    shutil.copyfile(first, pictures / BEFORE)
    shutil.copyfile(last, pictures / AFTER)
    return [
        "## What hacking looks like",
        EXAMPLE.format(name=name, folder=FOLDER, before=BEFORE, after=AFTER),
    ]


def _notes(path: Path) -> list[str]:
    return ["## What is seen", path.read_text(encoding="utf-8")] if path.is_file() else []
