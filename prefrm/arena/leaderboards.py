"""Published leaderboards of models, and beside which of them a number of an arena may stand.

A number is comparable by the same prompts, number of images, judge, question and mean alone. Another judge of
the same checks gives another number, and a rating or win rate exists between the models of one arena alone.

| leaderboard | judge | may a number here stand beside it? |
|---|---|---|
| UniGenBench | Gemini 2.5 Pro | if it was asked in its words, on all prompts, four images of each |
| GenEval | Mask2Former and CLIP | no: they detect objects, and judges here answer questions |
| GenEval2 | Qwen3-VL-8B, first token of a word | no: a check is asked about as a statement here |
| DPG-Bench | mPLUG | no: another judge, and its script leaves out a question |
| T2I-CompBench | BLIP-VQA, UniDet and CLIP | no: its prompts have no checks here |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prefrm.arena.checklists import ONE_BY_ONE

__all__ = ["LEADERBOARDS", "OWN_NUMBERS", "ArenaRun", "Leaderboard", "leaderboard_of", "why_not_beside"]

UNIGENBENCH = (
    "Style",
    "World Knowledge",
    "Attribute",
    "Action",
    "Relationship",
    "Logical Reasoning",
    "Grammar",
    "Compound",
    "Entity Layout",
    "Text Generation",
)
"""The order of the columns of UniGenBench's table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """A published table of models.

    Attributes:
        title: of the table.
        prompts: number of its prompts.
        checks: number of their checks; 0 if it has none.
        images: of each prompt.
        judge: that gave its numbers.
        asked: name of its model; "" if it cannot be asked here.
        score: title of the number, as `prefrm.arena.checked.SCORINGS` has it.
        models: model -> its number, in percent.
        dimensions: model -> dimension -> its share in percent, of those that were published.
        source: of the numbers.
        why: what keeps every number of an arena from standing beside it; "" if nothing does.
    """

    title: str
    prompts: int
    checks: int
    images: int
    judge: str
    asked: str
    score: str
    models: Mapping[str, float] = field(default_factory=dict)
    dimensions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArenaRun:
    """What decides where the numbers of one model, by one judge of checklists, may stand.

    Attributes:
        prompts: the name of the set.
        count: number of its prompts that were used.
        checks: number of their checks.
        images: of each prompt.
        missing: number of images that were not there, or could not be read.
        judge: the judge's identity.
        own_words: whether a wording of a person's own was asked, and not prefrm's.
        trained: of the prompts, how many the model was trained on, where that is known.
    """

    prompts: str
    count: int
    checks: int
    images: int
    missing: int
    judge: str
    own_words: bool
    trained: int | None = None


def _row(numbers: str) -> Mapping[str, float]:
    return dict(zip(UNIGENBENCH, map(float, numbers.split()), strict=True))


def _unigenbench(title: str, checks: int, **more: Any) -> Leaderboard:
    return Leaderboard(
        title=f"UniGenBench++, {title}",
        prompts=600,
        checks=checks,
        images=4,
        judge="Gemini 2.5 Pro",
        asked="gemini-2.5-pro",
        score="UniGenBench overall",
        source="github.com/CodeGoat24/UniGenBench (arXiv 2510.18701)",
        **more,
    )


LEADERBOARDS: Mapping[str, Leaderboard] = {
    "unigenbench-en": _unigenbench(
        "English short",
        1813,
        models={
            "GPT-4o-1.5": 95.77,
            "Nano Banana Pro": 92.72,
            "GPT-4o": 92.48,
            "Imagen-4-Ultra": 91.65,
            "FLUX.2-max": 90.85,
            "FLUX.2-dev": 84.76,
            "Qwen-Image": 78.36,
            "Z-Image": 78.10,
            "HiDream-I1-Full": 71.36,
            "SD-3.5-Large": 62.89,
            "Janus-Pro": 61.36,
            "FLUX.1-dev": 60.97,
            "Bagel": 59.91,
            "SDXL": 40.22,
        },
        dimensions={
            "GPT-4o-1.5": _row("99.19 99.20 96.33 94.84 96.94 88.76 92.27 98.17 94.56 97.39"),
            "FLUX.2-dev": _row("96.60 95.41 87.39 82.22 87.31 62.84 77.41 83.51 89.55 85.34"),
            "Qwen-Image": _row("94.70 94.15 87.93 82.60 80.08 51.59 60.96 72.94 86.57 72.13"),
            "SD-3.5-Large": _row("88.60 89.72 68.80 61.98 67.51 32.05 59.89 58.38 67.72 34.20"),
            "FLUX.1-dev": _row("85.00 87.50 67.20 62.26 66.88 29.77 62.30 45.75 70.90 32.18"),
            "SDXL": _row("87.45 72.28 44.66 35.10 46.37 10.34 48.48 26.68 30.80 0.00"),
        },
    ),
    "unigenbench-en-long": _unigenbench("English long", 3920),
    "unigenbench-zh": _unigenbench("Chinese short", 0),
    "unigenbench-zh-long": _unigenbench("Chinese long", 0),
    "geneval": Leaderboard(
        title="GenEval",
        prompts=553,
        checks=0,
        images=4,
        judge="Mask2Former and CLIP",
        asked="",
        score="GenEval overall",
        models={"IF-XL": 61.0, "SDXL": 55.0, "SD2.1": 50.0, "SD1.5": 43.0},
        source="github.com/djghosh13/geneval (arXiv 2310.11513)",
        why="its numbers are those of an object detector, and judges here answer questions",
    ),
    "geneval2": Leaderboard(
        title="GenEval2",
        prompts=800,
        checks=0,
        images=1,
        judge="Qwen3-VL-8B",
        asked="",
        score="Soft-TIFA GM",
        source="github.com/facebookresearch/GenEval2 (arXiv 2512.16853)",
        why="it takes the probability of the first token of a one-word answer; a check is a statement here",
    ),
    "dpg-bench": Leaderboard(
        title="DPG-Bench",
        prompts=1065,
        checks=0,
        images=4,
        judge="mPLUG",
        asked="",
        score="DPG-Bench score",
        source="github.com/TencentQQGYLab/ELLA (arXiv 2403.05135)",
        why="its judge is mPLUG, and its script leaves out the first question; every question counts here",
    ),
    "t2i-compbench": Leaderboard(
        title="T2I-CompBench",
        prompts=2400,
        checks=0,
        images=10,
        judge="BLIP-VQA, UniDet and CLIP",
        asked="",
        score="",
        source="github.com/Karine-Huang/T2I-CompBench (arXiv 2307.06350)",
        why="its prompts have no checks here, so that only ratings and win rates are measured",
    ),
}
"""Leaderboards by the name of their prompt set; numbers of checks that are not known are 0."""
OWN_NUMBERS = (
    "ratings and win rates exist between the models of one arena alone, and stand beside no leaderboard"
)


def leaderboard_of(prompts: str) -> Leaderboard | None:
    """The leaderboard of a prompt set by its name; None if there is none."""
    return LEADERBOARDS.get(prompts)


def why_not_beside(run: ArenaRun) -> list[str]:
    """What keeps a model's number from standing beside the leaderboard of its prompts; [] if nothing does."""
    board = leaderboard_of(run.prompts)
    if board is None:
        return [f"no leaderboard of {run.prompts} is known"]
    found = [board.why] if board.why else []
    if run.count != board.prompts or (board.checks and run.checks != board.checks):
        checks = f" with {board.checks} checks" if board.checks else ""
        found.append(f"it has {board.prompts} prompts{checks}; {run.count} with {run.checks} were used")
    if run.images != board.images:
        found.append(f"it has {board.images} images of each prompt; {run.images} were used")
    if run.missing:
        found.append(f"{run.missing} images are missing; it has all of them")
    if board.asked and not re.search(rf"{re.escape(board.asked)}(?![\w.-])", run.judge.casefold()):
        found.append(f"its judge is {board.judge}; the judge here is another one")
    if board.asked and run.judge.endswith(ONE_BY_ONE):
        found.append("its judge was asked about all checks of an image at once, and this one about each")
    if board.asked and not run.own_words:
        found.append("its judge was asked in its own words; give them as the wording")
    if run.trained:
        found.append(f"the model was trained on {run.trained} of the prompts")
    return found
