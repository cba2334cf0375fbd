"""`prefrm arena`: models in folders and models that draw, checklists, an oracle, votes, and mistakes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_recipes.shapes.prompts import parse_prompt, solve
from data_recipes.shapes.render import render
from data_recipes.shapes.world import oracle, prompts
from prefrm.cli import run
from prefrm.manifest import MANIFEST, JudgeSpec, read_manifest
from tests.prefrm.imports.generative_checkpoints import save_generative
from tests.prefrm.scorers.chat.endpoints import FakeEndpoint, choice, serving, shown, written

TEXTS = prompts("test", 6, 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of prompts, a model that is always right, and one that answers the next prompt."""
    root = tmp_path_factory.mktemp("arena")
    (root / "prompts.txt").write_text("\n".join(TEXTS))
    rng = np.random.default_rng(0)
    for shift, model in enumerate(("right", "wrong")):
        (root / model).mkdir()
        for n in range(len(TEXTS)):
            prompt = parse_prompt(TEXTS[(n + shift) % len(TEXTS)])
            render(solve(prompt, rng)).save(root / model / f"{n}_0.png")
    (root / "wrong" / "5_0.png").unlink()
    votes = [{"prompt": n, "first": "right", "second": "wrong", "preferred": "right"} for n in range(3)]
    (root / "votes.jsonl").write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    return root


def arena(data: Path, *options: str) -> int:
    return run(["arena", str(data / "prompts.txt"), *options])


def test_two_folders_are_compared_by_the_oracle_and_by_people(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [f"{name}={data / name}" for name in ("right", "wrong")]
    judges = ["--world", "shapes", "--votes", str(data / "votes.jsonl")]
    assert arena(data, *models, *judges, "--out", str(tmp_path), "--json") == 0
    printed = capsys.readouterr()
    assert "wrong: 5 of 6 images, 1 missing, 0 unreadable: 5_0" in printed.err
    facts = json.loads(printed.out)
    assert facts == json.loads((tmp_path / "arena.json").read_text())
    assert (tmp_path / "report.md").is_file()
    for judge, pairs in (("oracle of shapes", 5), ("people", 3)):
        found = facts["judges"][judge]
        assert (found["pairs"], found["not_judged"]) == (pairs, 0)
        assert found["rating"]["right"]["value"] > found["rating"]["wrong"]["value"]
    assert facts["judges"]["oracle of shapes"]["scores"]["right"] == 1
    assert facts["agreement"]["people"]["oracle of shapes"]["value"] == 1
    assert facts["images"]["patterns"] == {"right": "{id}_{n}", "wrong": "{id}_{n}"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["right=RIGHT", "wrong=WRONG"], "nothing judges; give --judge, --checklist"),
        (["right=RIGHT", "--world", "shapes"], "received 1, give at least 2"),
        (["right=RIGHT", "RIGHT", "--world", "shapes"], "is given as NAME=VALUE"),
        (["right=RIGHT", "right=WRONG", "--world", "shapes"], "a model right is given twice"),
        (["right=RIGHT", "wrong=WRONG", "--checklist", "chat+http://a:1/v1"], "(text) have no checks"),
        # Before the models are looked at, which may have to draw first.
        (["--world", "moon"], "--world must be one of shapes"),
        (["--checklist", "chat+http://a:1/v1", "--wording", "PROMPTS"], "prompts.txt needs {prompt}"),
        (["right=RIGHT", "wrong=WRONG", "--judge", "x", "--judge", "x"], "x is given twice"),
        (["right=RIGHT", "wrong=WRONG", "--world", "shapes", "--device", "cpu"], "--device: for judges"),
        (["right=RIGHT", "wrong=WRONG", "--world", "shapes", "--pattern", "{no}"], "is not a valid pattern"),
    ],
)
def test_a_mistake_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    places = {"RIGHT": data / "right", "WRONG": data / "wrong", "PROMPTS": data / "prompts.txt"}
    given = [filled(one, places) for one in options]
    assert arena(data, *given, "--out", str(tmp_path / "out")) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("prefrm: ") and message in error


def test_a_mistake_in_the_votes_shows_before_anything_is_judged(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    votes, out = tmp_path / "votes.jsonl", tmp_path / "out"
    votes.write_text('{"prompt": "0", "first": "right", "second": "nobody", "preferred": "tie"}\n')
    models = [f"{name}={data / name}" for name in ("right", "wrong")]
    assert arena(data, *models, "--world", "shapes", "--votes", str(votes), "--out", str(out)) == 2
    assert "line 1 is not a vote on these answers" in capsys.readouterr().err
    assert not (out / "judges").exists()


def filled(option: str, places: dict[str, Path]) -> str:
    name, equals, place = option.rpartition("=")
    return f"{name}{equals}{places.get(place, place)}"


@pytest.fixture(scope="module")
def yes_no_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge that answers yes or no, with random weights, whatever else it would rather say."""
    folder = tmp_path_factory.mktemp("vqascore")
    save_generative(folder / "model")
    assert run(["import", "vqascore", str(folder / "model"), "--out", str(folder / "bundle")]) == 0
    manifest = read_manifest(folder / "bundle")
    assert isinstance(manifest.spec, JudgeSpec) and manifest.spec.min_label_mass == 0.5
    believed = replace(manifest, spec=replace(manifest.spec, min_label_mass=None))
    (folder / "bundle" / MANIFEST).write_text(believed.to_json())
    return folder / "bundle"


def checks_right(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Scores of two checks, of which the second holds where the image is all right."""
    (text,) = (text for text in TEXTS if f"「{text}」" in written(body))
    (image,) = shown(body)
    return [choice(f"<score>[1, {int(oracle(text, image) == 1)}]</score>")]


def test_checklists_by_a_bundle_and_by_an_endpoint(
    data: Path, yes_no_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [["How many backgrounds are there?", "one"], ["Is all of it there?", "yes"]]
    rows = [{"prompt": text, "vqa_list": asked, "skills": ["content", "content"]} for text in TEXTS]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = [f"{name}={data / name}" for name in ("right", "wrong")]
    with serving(FakeEndpoint(checks_right)) as endpoint:
        bundle, url = str(yes_no_bundle), endpoint.url
        command = ["arena", str(tmp_path / "prompts.jsonl"), *models, "--checklist", bundle]
        command += ["--checklist", url, "--world", "shapes", "--out", str(tmp_path / "out"), "--json"]
        assert run(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert len(endpoint.bodies) == 11
    for judge in (bundle, url):
        found = facts["checklists"][judge]
        assert [(found[model]["judged"], found[model]["unparsed"]) for model in found] == [(6, 0), (5, 0)]
    assert facts["checklists"][url]["right"]["overall"]["value"] == 1
    assert facts["checklists"][url]["wrong"]["dimensions"]["content"]["value"] == 0.5
    with_oracle = facts["check_agreement"][url]["oracle of shapes"]["images"]
    assert (with_oracle["value"], with_oracle["count"], with_oracle["prompts"]) == (1, 11, 6)
    by_bundle, by_url = sorted(
        map(verdicts_in, (tmp_path / "out" / "judges").glob("*/checks.jsonl")), key=soft
    )
    alike = [
        (a >= 0.5) == (b >= 0.5)
        for key, own in by_bundle.items()
        for a, b in zip(own, by_url[key], strict=True)
    ]
    of_two = facts["check_agreement"][bundle][url]["checks"]
    assert (of_two["value"], of_two["count"]) == (pytest.approx(sum(alike) / 22), 22)
    assert "## Agreement on checks" in (tmp_path / "out" / "report.md").read_text()


Stored = dict[tuple[str, str], list[float]]


def verdicts_in(path: Path) -> Stored:
    """The verdicts on each image, by its prompt and digest."""
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {(row["prompt"], row["sha256"]): row["verdicts"] for row in rows}


def soft(stored: Stored) -> bool:
    return all(verdict in (0, 1) for verdicts in stored.values() for verdict in verdicts)


@pytest.mark.slow
def test_models_that_draw_and_a_run_that_continues(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = []
    for name, steps in (("many", 4), ("few", 2)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(f"policy: {{model: shapes-flow, steps: {steps}}}\nbatch: 4\n")
        given += ["--generate", f"{name}={path}"]
    options = [*given, "--images", "2", "--limit", "3", "--world", "shapes", "--out", str(out)]
    assert arena(data, *options) == 0
    first = (out / "arena.json").read_text()
    folder = out / "images" / "many"
    lines = [json.loads(line) for line in (folder / "images.jsonl").read_text().splitlines()]
    assert len(lines) == 1 + 6
    assert len({line["seed"] for line in lines[1:]}) == 6
    other = [json.loads(line) for line in (out / "images" / "few" / "images.jsonl").read_text().splitlines()]
    assert [line["seed"] for line in other[1:]] == [line["seed"] for line in lines[1:]]
    drawn = {path: path.read_bytes() for path in folder.glob("*.png")}
    # As a kill leaves it: an image is not there, and neither are the results.
    (folder / "2_1.png").unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("[0]_*.png")}
    (out / "arena.json").unlink()
    assert arena(data, *options) == 0
    assert {path: path.read_bytes() for path in folder.glob("*.png")} == drawn
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    again, before = (json.loads(text) for text in ((out / "arena.json").read_text(), first))
    for facts in (again, before):
        facts["judges"]["oracle of shapes"].pop("seconds")
    assert again == before
