"""An arena's numbers beside a published leaderboard, from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from prefrm.arena.checklists import Checklist
from prefrm.cli import run
from prefrm.questions import FakeGenerator

GEMINI = "chat model=gemini-2.5-pro, server openai, checklist 12, attempts 10"

PLAIN = GEMINI.partition("checklist")[0] + Checklist(FakeGenerator(lambda *_: "")).identity()


def share(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.02, "high": value + 0.02, "count": 7252, "prompts": 600}


def arena(folder: Path, **changed: Any) -> str:
    """The folder of an arena of two models on UniGenBench, in the shape of arena.json."""
    metrics = {
        model: {"overall": share(value), "published": {"UniGenBench overall": share(value)}}
        for model, value in (("ours", 0.65), ("base", 0.5))
    }
    facts = {
        "prompts": {"name": "unigenbench-en", "count": 600, "checks": 1813},
        "images": {"per_prompt": 4},
        "judges": {"checks by gemini": {"identity": GEMINI}},
        "checklists": {"gemini": metrics},
        "coverage": {model: {"missing": 0, "unreadable": 0} for model in metrics},
    } | changed
    (folder / "arena.json").write_text(json.dumps(facts), encoding="utf-8")
    return str(folder)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["bench", "published", *arguments]) == 0
    return capsys.readouterr().out


def test_models_stand_in_the_table_where_they_are_comparable(tmp_path, capsys):
    text = printed(capsys, arena(tmp_path))
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in row] for row in rows]
    places = [row[0] for row in cells]
    assert places.index("HiDream-I1-Full") < places.index("**ours**") < places.index("SD-3.5-Large")
    assert places.index("Bagel") < places.index("**base**") < places.index("SDXL")
    assert ["**ours**", "65.00", "63.00 to 67.00", "gemini", "yes"] in cells
    assert "Not comparable" not in text


def test_what_keeps_a_number_from_standing_there_is_said(tmp_path, capsys):
    coverage = {"ours": {"missing": 0, "unreadable": 0}, "base": {"missing": 2, "unreadable": 1}}
    overlap = [{"source": "train.txt", "trained": 10000, "ids": ["201", "203", "204"]}] * 2
    judges = {"checks by gemini": {"identity": PLAIN}}
    text = printed(capsys, arena(tmp_path, judges=judges, coverage=coverage, overlap=overlap))
    assert "- every model, by gemini: the model was trained on 3 of the prompts" in text
    assert "- every model, by gemini: its judge was asked in its own words" in text
    assert "- base, by gemini: 3 images are missing" in text
    found = json.loads(printed(capsys, arena(tmp_path, coverage=coverage), "--json"))
    assert found["leaderboard"]["models"]["FLUX.1-dev"] == 60.97
    assert [(one["model"], len(one["why_not"])) for one in found["models"]] == [("ours", 0), ("base", 1)]


def test_ratings_stand_beside_no_leaderboard(tmp_path, capsys):
    assert "give `prefrm arena` a --checklist" in printed(capsys, arena(tmp_path, checklists={}))
    text = arena(tmp_path, prompts={"name": "text", "count": 3, "checks": 0})
    assert "no leaderboard of these prompts is known" in printed(capsys, text)


def test_a_broken_file_is_named(tmp_path, capsys):
    (tmp_path / "arena.json").write_text("{}")
    assert run(["bench", "published", str(tmp_path)]) == 2
    assert "arena.json cannot be read" in capsys.readouterr().err
