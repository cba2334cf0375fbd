"""Rows of other published prompt sets: GenEval, GenEval2, DPG-Bench and T2I-CompBench.

| set | source | checks |
|---|---|---|
| `geneval` | evaluation_metadata.jsonl (arXiv 2310.11513), 553 prompts | one for each object, by task |
| `geneval2` | geneval2_data.jsonl (arXiv 2512.16853), 800 prompts | its questions with answers, by skill |
| `dpg-bench` | dpg_bench.csv (ELLA, arXiv 2403.05135), 1,065 prompts | its questions, some with parents |
| `t2i-compbench` | a folder of `color_val.txt` and others (arXiv 2307.06350) | none |
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrm.arena.values import ArenaPrompt, Check
from prefrm.errors import DataError
from prefrm.rows import read_text

__all__ = [
    "DPG_COLUMNS",
    "GENEVAL2_COLUMNS",
    "GENEVAL_COLUMNS",
    "compbench_category",
    "dpg_prompts",
    "geneval2_prompt",
    "geneval_prompt",
]

GENEVAL_COLUMNS = ("tag", "include", "prompt")
GENEVAL2_COLUMNS = ("prompt", "vqa_list", "skills")
DPG_COLUMNS = (
    "item_id",
    "text",
    "proposition_id",
    "dependency",
    "category_broad",
    "category_detailed",
    "question_natural_language",
)
COMPBENCH = re.compile(
    r"(color|shape|texture|spatial|non_spatial|3d_spatial|numeracy|complex)_(val|train)\.txt"
)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
POSITIONS = {"left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below"}
VOWELS = tuple("aeiou")


def geneval_prompt(number: int, row: Mapping[str, Any]) -> ArenaPrompt:
    """A prompt of GenEval; its id has five digits, as the folders of images that its script writes.

    A count is exact where the source excludes one more; otherwise the object is there at least once.

    Raises:
        DataError: the row does not describe objects.
    """
    task, text = read_text(row, "tag"), read_text(row, "prompt")
    try:
        objects = [dict(one) for one in row["include"]]
        exact = {one["class"] for one in row.get("exclude") or ()}
        questions = [_object_question(one, objects, exact) for one in objects]
    except (TypeError, LookupError, ValueError) as error:
        raise DataError(f"include is not a list of objects with class and count: {error!r}") from error
    return ArenaPrompt(
        id=f"{number:05d}",
        text=text,
        tags={"task": task},
        checks=tuple(Check(question=question, dimension=task) for question in questions),
    )


def geneval2_prompt(number: int, row: Mapping[str, Any]) -> ArenaPrompt:
    """A prompt of GenEval2, with its number as id. Raises `DataError` if its questions have no skills."""
    pairs, skills = row["vqa_list"], row["skills"]
    try:
        checks = tuple(
            Check(question=str(question), answer=str(answer), dimension=str(skill))
            for (question, answer), skill in zip(pairs, skills, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"vqa_list and skills are not aligned lists: {error}") from error
    atoms = row.get("atom_count")
    tags = {} if atoms is None else {"atoms": str(atoms)}
    return ArenaPrompt(id=str(number), text=read_text(row, "prompt"), tags=tags, checks=checks)


def dpg_prompts(rows: Sequence[Mapping[str, Any]], defects: Counter[str]) -> list[ArenaPrompt]:
    """The prompts of DPG-Bench's table, which has a row for each question; adds to `defects`.

    Every row counts, the first one too, which the published script skips.

    Raises:
        DataError: a row lacks a column.
    """
    by_item: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_item.setdefault(read_text(row, "item_id"), []).append(row)
    return [_dpg_prompt(item, found, defects) for item, found in by_item.items()]


def compbench_category(path: Path) -> str:
    """The category of a file of T2I-CompBench, such as "3d_spatial", by its name; "" of another file."""
    found = COMPBENCH.fullmatch(path.name)
    return found[1] if found else ""


def _object_question(one: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], exact: set[str]) -> str:
    name, count = str(one["class"]), int(one["count"])
    if name in exact:
        return f"Are there exactly {NUMBERS[count]} of this in the image, no more and no fewer: {name}?"
    described = f"{one['color']} {name}" if "color" in one else name
    if "position" in one:
        relation, other = one["position"]
        return f"Is the {described} {POSITIONS[relation]} the {objects[other]['class']}?"
    return f"Is there {'an' if described.startswith(VOWELS) else 'a'} {described}?"


def _dpg_prompt(item: str, rows: Sequence[Mapping[str, Any]], defects: Counter[str]) -> ArenaPrompt:
    places = {read_text(row, "proposition_id"): n for n, row in enumerate(rows)}
    checks = []
    for row in rows:
        broad, detailed = read_text(row, "category_broad"), str(row["category_detailed"] or "").strip()
        named = [one.strip() for one in str(row["dependency"] or "0").split(",")]
        parents = [places[one] for one in named if one in places]
        defects["question that depends on one that is not there"] += (
            len(named) - named.count("0") - len(parents)
        )
        checks.append(
            Check(
                question=read_text(row, "question_natural_language"),
                dimension=broad,
                subdimension=f"{broad} - {detailed}" if detailed else "",
                parents=tuple(parents),
            )
        )
    return ArenaPrompt(id=item, text=read_text(rows[0], "text"), checks=tuple(checks))
