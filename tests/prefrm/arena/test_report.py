"""Parts of a prompt set, agreement of judges, and the files of a report."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from prefrm.arena import ArenaPrompt, Check, PromptSet
from prefrm.arena.checked import CheckedImage
from prefrm.arena.figures import as_win_matrix
from prefrm.arena.images import Answers, ImageFolder, read_answers
from prefrm.arena.overlap import Overlap
from prefrm.arena.rating import standings
from prefrm.arena.report import Arena, summary, write_report
from prefrm.arena.results import agreement, measure, parts
from prefrm.arena.verdicts import Verdicts, from_scores
from tests.prefrm.candidates import noise_png

PROMPTS = (
    ArenaPrompt(
        id="0",
        text="two cats",
        tags={"theme": "Art"},
        checks=(
            Check(question="two", dimension="Attribute", subdimension="Attribute - Quantity"),
            Check(question="cats", dimension="Style"),
        ),
    ),
    ArenaPrompt(
        id="1", text="a dog", tags={"theme": "Design"}, checks=(Check(question="dog", dimension="Style"),)
    ),
    ArenaPrompt(id="2", text="a | b", tags={"theme": "Art"}),
)
MODELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    tmp_path = tmp_path_factory.mktemp("models")
    for m, model in enumerate(MODELS):
        (tmp_path / model).mkdir()
        for prompt in PROMPTS:
            (tmp_path / model / f"{prompt.id}.png").write_bytes(noise_png(10 * m + int(prompt.id)))
    (tmp_path / "c" / "2.png").unlink()
    return read_answers(PROMPTS, [ImageFolder.find(model, tmp_path / model, PROMPTS) for model in MODELS])


def said(name: str, ab: tuple[float, ...], ac: tuple[float, ...], bc: tuple[float, ...]) -> Verdicts:
    """P(a beats b), P(a beats c) and P(b beats c) for each prompt."""
    p = np.full((3, 3, 3), np.nan)
    for (i, j), values in (((0, 1), ab), ((0, 2), ac), ((1, 2), bc)):
        p[:, i, j], p[:, j, i] = values, 1 - np.array(values)
    return Verdicts(name=name, kind="judge", identity=f"digest of {name}", p_GMM=p, pairs=7, seconds=2.5)


FIRST = said("first", (0.9, 0.8, 0.4), (0.8, 0.9, np.nan), (0.6, 0.5, np.nan))
SECOND = said("second", (0.7, 0.2, 0.4), (0.8, 0.9, np.nan), (0.3, 0.9, np.nan))


READER, OTHER = (
    said(f"checks by {name}", (0.5, np.nan, np.nan), (np.nan,) * 3, (np.nan,) * 3)
    for name in ("reader", "other")
)


def test_a_prompt_counts_for_each_dimension_of_its_checks() -> None:
    assert parts(PROMPTS) == {
        "theme": {"Art": [0, 2], "Design": [1]},
        "dimension": {"Attribute": [0], "Style": [0, 1]},
    }


def test_standings_of_a_part_are_those_of_its_prompts_alone(answers: Answers) -> None:
    found = measure(FIRST, answers)
    assert found.overall.win_matrix[0, 1] == pytest.approx(0.7)
    assert found.by["theme"]["Art"].win_matrix[0, 1] == pytest.approx(0.65)
    assert found.by["dimension"]["Style"].win_rate[0].value == pytest.approx(0.85)
    assert found.by["dimension"]["Attribute"].prompts == 1


def test_agreement_by_hand(answers: Answers) -> None:
    first, second = measure(FIRST, answers), measure(SECOND, answers)
    found = agreement(first, second, answers)
    # Of seven pairs the two agree on a-b of prompts 0 and 2, and on a-c of 0 and 1; the first one has a tie.
    assert (found.pairs.pairs, found.pairs.value) == (7, pytest.approx(4 / 7))
    # The first one prefers one of six, a tie being none.
    back = agreement(second, first, answers)
    assert (back.pairs.pairs, back.pairs.value) == (6, pytest.approx(4 / 6))
    assert found.kendall_tau == back.kendall_tau


def test_agreement_on_checks_is_of_each_two_judges_and_of_the_oracle(out: Path) -> None:
    found = json.loads((out / "arena.json").read_text())["check_agreement"]
    of_two = found["reader"]["other"]
    assert of_two == found["other"]["reader"]
    # Of the first image of a, on its second check alone, and of that of b, on both.
    assert (of_two["checks"]["value"], of_two["checks"]["count"]) == (0.75, 4)
    assert (of_two["dimensions"]["Attribute"]["value"], of_two["dimensions"]["Style"]["value"]) == (1, 0.5)
    assert (of_two["images"]["value"], of_two["images"]["count"]) == (0.5, 2)
    # To the oracle the image of a is all right, which "reader" denies, and that of b is not.
    with_oracle = {judge: found[judge]["oracle of cats"] for judge in ("reader", "other")}
    assert [one["images"]["value"] for one in with_oracle.values()] == [0, 0.5]
    assert with_oracle["reader"]["dimensions"] == {} and "checks" not in with_oracle["reader"]
    report = re.sub(" +", " ", (out / "report.md").read_text())
    assert "## Agreement on checks" in report and report.count("| reader | other | **checks** | 0.750") == 1


@pytest.fixture(scope="module")
def arena(answers: Answers) -> Arena:
    checks = {
        "reader": {
            "a": [CheckedImage(prompt="0", image=0, verdicts=(1.0, 0.0)), CheckedImage(prompt="1", image=0)],
            "b": [CheckedImage(prompt="0", image=0, verdicts=(1.0, 1.0))],
            "c": [],
        },
        "other": {
            "a": [CheckedImage(prompt="0", image=0, verdicts=(1.0, 1.0))],
            "b": [CheckedImage(prompt="0", image=0, verdicts=(1.0, 1.0))],
            "c": [CheckedImage(prompt="0", image=0, verdicts=(1.0, 1.0))],
        },
    }
    prompts = PromptSet(name="cats", digest="ab" * 32, prompts=PROMPTS, defects={"bad rows": 2})
    scores = np.array([[1.0, 0.75, np.nan], [1.0, np.nan, np.nan], [np.nan] * 3])[:, None]
    oracle = from_scores("oracle of cats", "oracle", "cats", scores, answers, seconds=0.0)
    results = {one.name: measure(one, answers) for one in (FIRST, SECOND, READER, OTHER, oracle)}
    overlap = Overlap(source="train.txt", trained=40, ids=("1",))
    return Arena(
        prompts=prompts,
        answers=answers,
        results=results,
        checks=checks,
        settings={"seed": 3},
        overlaps=(overlap,),
    )


@pytest.fixture(scope="module")
def out(arena: Arena, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(arena, folder)
    return folder


def test_the_files_of_a_report(out: Path) -> None:
    facts = json.loads((out / "arena.json").read_text())
    assert facts["models"] == ["a", "b", "c"]
    assert facts["prompts"]["tags"]["dimension"] == {"Attribute": 1, "Style": 2}
    assert facts["prompts"]["defects"] == {"bad rows": 2}
    judge = facts["judges"]["first"]
    assert judge["identity"] == "digest of first"
    assert judge["win_matrix"][0][1] == pytest.approx(0.7)
    rating = judge["rating"]["a"]
    assert rating["low"] < rating["value"] < rating["high"]
    assert judge["by"]["theme"]["Design"]["rating"]["a"]["low"] is None  # one prompt
    assert facts["unparsed"]["reader"] == {"a": 1, "b": 0, "c": 0}
    assert facts["checklists"]["reader"]["a"]["dimensions"]["Style"]["value"] == 0
    assert facts["coverage"]["c"]["missing"] == 1
    assert facts["agreement"]["first"]["second"]["value"] == pytest.approx(4 / 7)
    report = (out / "report.md").read_text()
    for file in out.glob("*.png"):
        assert f"({file.name})" in report
    assert {file.name for file in out.glob("*.png")} >= {
        "ratings.png",
        "win_matrix_first.png",
        "differences_first.png",
    }
    assert facts["overlap"] == [{"source": "train.txt", "trained": 40, "ids": ["1"]}]
    for part in (
        "`cats`",
        "1 of the prompts are among the 40 of train.txt: 1",
        "bad rows: 2",
        "seed: 3",
        "Checks by `reader`",
        "digest of second",
    ):
        assert part in report


def test_a_terminal_shows_the_best_model_first(arena: Arena) -> None:
    lines = list(summary(arena))
    assert [line.split()[0] for line in lines] == ["model", "a", "b", "c"]


def test_any_mean_matrix_can_be_drawn() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        p = random.uniform(size=(7, 4, 4))
        p = np.triu(p, 1) + np.tril(1 - p.swapaxes(1, 2), -1)
        p[:, 0, 3] = p[:, 3, 0] = np.nan
        found = standings(p, np.arange(7))
        np.testing.assert_allclose(as_win_matrix(found).p, found.win_matrix, atol=1e-7)


def test_a_judge_of_nothing_has_no_numbers_and_no_plots(answers: Answers, tmp_path: Path) -> None:
    nothing = (np.nan,) * 3
    results = {"first": measure(said("first", nothing, nothing, nothing), answers)}
    prompts = PromptSet(name="cats", digest="ab" * 32, prompts=PROMPTS)
    facts = write_report(Arena(prompts=prompts, answers=answers, results=results), tmp_path / "out")
    assert facts["judges"]["first"]["rating"]["a"]["value"] is None
    assert facts["judges"]["first"]["win_matrix"][0][1] is None
    assert not list((tmp_path / "out").glob("*.png"))
