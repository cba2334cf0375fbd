"""The numbers of an arena beside the published leaderboard of its prompts, and which may not stand there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefrm.arena.checklists import in_own_words
from prefrm.arena.leaderboards import OWN_NUMBERS, ArenaRun, Leaderboard, leaderboard_of, why_not_beside
from prefrm.display import markdown_table
from prefrm.errors import DatasetError

__all__ = ["ARENA", "Placed", "place_arena", "placed_text"]

ARENA = "arena.json"
"""The file of an arena's numbers, in its folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A model's number by a judge of checklists.

    Attributes:
        model: its name.
        judge: that gave it.
        value: in percent; NaN if nothing was judged.
        low: lower end of its 95% interval.
        high: upper end.
        why_not: what keeps it from standing beside the leaderboard; [] if nothing does.
    """

    model: str
    judge: str
    value: float
    low: float
    high: float
    why_not: tuple[str, ...]


def place_arena(folder: Path) -> tuple[Leaderboard | None, list[Placed]]:
    """The leaderboard of an arena's prompts, None if none is known, and the arena's numbers of its kind.

    Args:
        folder: that `prefrm arena --out` wrote.

    Raises:
        DatasetError: it has no such file, or one of another version.
    """
    try:
        facts = json.loads((folder / ARENA).read_text(encoding="utf-8"))
        board = leaderboard_of(facts["prompts"]["name"])
        judges = facts["checklists"].items()
        return board, [
            _placed(facts, board, judge, model, one) for judge, all in judges for model, one in all.items()
        ]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{folder / ARENA} cannot be read ({error}); run `prefrm arena --out {folder}` again"
        ) from error


def placed_text(board: Leaderboard | None, placed: list[Placed]) -> str:
    """The leaderboard with the arena's numbers as a Markdown table, and why some may not stand there."""
    if board is None:
        return f"no leaderboard of these prompts is known; {OWN_NUMBERS}\n"
    head = f"{board.title}: {board.score or 'no score of checks'}, by {board.judge}\n{board.source}\n"
    if not placed:
        return f"{head}\nno checklist was judged: {OWN_NUMBERS}; give `prefrm arena` a --checklist\n"
    rows = [(value, [model, f"{value:.2f}", "-", "published", ""]) for model, value in board.models.items()]
    rows += [(one.value, _cells(one)) for one in placed]
    rows.sort(key=lambda row: -row[0] if row[0] == row[0] else 1)
    table = markdown_table(["model", "%", "95% interval", "judge", "comparable"], [row for _, row in rows])
    reasons = {(one.judge, reason): "" for one in placed for reason in one.why_not}
    lines = [f"- {_who(placed, judge, reason)}: {reason}" for judge, reason in reasons]
    notes = "\n".join(["Not comparable with the published numbers:", "", *lines]) + "\n" if lines else ""
    return f"{head}\n{table}\n\n{notes}{OWN_NUMBERS[0].upper()}{OWN_NUMBERS[1:]}.\n"


def _placed(
    facts: Mapping[str, Any], board: Leaderboard | None, judge: str, model: str, found: Mapping[str, Any]
) -> Placed:
    coverage, prompts = facts["coverage"][model], facts["prompts"]
    identity = facts["judges"][f"checks by {judge}"]["identity"]
    run = ArenaRun(
        prompts=prompts["name"],
        count=prompts["count"],
        checks=prompts["checks"],
        images=facts["images"]["per_prompt"],
        missing=coverage["missing"] + coverage["unreadable"],
        judge=identity,
        own_words=in_own_words(identity),
        trained=len({id for one in facts.get("overlap", ()) for id in one["ids"]}),
    )
    score = found["published"].get(board.score if board else "") or found["overall"]
    value, low, high = (
        float("nan") if score[name] is None else 100 * score[name] for name in ("value", "low", "high")
    )
    return Placed(
        model=model, judge=judge, value=value, low=low, high=high, why_not=tuple(why_not_beside(run))
    )


def _cells(one: Placed) -> list[str]:
    interval = f"{one.low:.2f} to {one.high:.2f}"
    return [f"**{one.model}**", f"{one.value:.2f}", interval, one.judge, "no" if one.why_not else "yes"]


def _who(placed: list[Placed], judge: str, reason: str) -> str:
    """The models of a judge that a reason holds of."""
    of_judge = [one for one in placed if one.judge == judge]
    named = [one.model for one in of_judge if reason in one.why_not]
    models = "every model" if len(named) == len(of_judge) else ", ".join(named)
    return f"{models}, by {judge}"
