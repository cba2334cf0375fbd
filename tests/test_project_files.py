"""CITATION.cff and the issue forms, which others read and no code imports."""

import tomllib
from pathlib import Path

import pytest
import yaml

from prefrm.cli.program import app

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def test_the_citation_says_what_the_package_says_of_itself() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    same = {"title": "name", "abstract": "description", "version": "version", "license": "license"}
    for field, name in same.items():
        assert citation[field] == PROJECT[name]
    for field in ("authors", "keywords"):
        assert citation[field] == PROJECT[field]
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["message"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_what_github_requires(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    assert {part["type"] for part in form["body"]} <= {"input", "textarea", "dropdown", "checkboxes"}
    for key in ("id", "label"):
        values = [part["id"] if key == "id" else part["attributes"][key] for part in form["body"]]
        assert len(set(values)) == len(values)
    assert any(part["validations"]["required"] for part in form["body"])


def test_a_bug_report_asks_for_the_output_of_a_command_that_exists() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text(encoding="utf-8"))
    asked = {part["id"]: part for part in form["body"]}
    label = asked["environment"]["attributes"]["label"]
    assert label == "Output of `prefrm env`"
    assert "env" in {command.name or command.callback.__name__ for command in app.registered_commands}
    assert {"ran", "happened"} <= asked.keys()


def test_the_chooser_of_issues_parses() -> None:
    chooser = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text(encoding="utf-8"))
    assert isinstance(chooser["blank_issues_enabled"], bool)
