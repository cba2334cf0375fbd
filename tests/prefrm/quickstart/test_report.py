import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_recipes.shapes.prompts import SKILLS, all_prompts
from data_recipes.shapes.recipe import WORLD, label
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import Scene
from prefrm.eval import evaluate
from prefrm.media import encode_png
from prefrm.quickstart.judging import DataSummary
from prefrm.quickstart.policy import PolicyResult, Sample
from prefrm.quickstart.report import Judged, Used, draw, magnitude, most_telling, numbers, write_report
from prefrm.records import PreferenceGroup
from prefrm.resources import Resources
from prefrm.winmatrix import FakeScorer, Group, WinMatrix

SPLITS = {"train": 60, "validation": 12, "test": 4}
PICTURES = tuple(
    encode_png(render(Scene.parse(program)))
    for program in ("red circle 0 0", "blue star 1 1 ; red square 0 2", "green square 2 2")
)


class Mute(FakeScorer):
    """Judges nothing of the prompts that it is silent about."""

    def __init__(self, silent: Sequence[str]) -> None:
        super().__init__(lambda prompt, image: len(image) / 1000)
        self._silent = set(silent)

    def _score(self, group: Group) -> WinMatrix:
        if group.prompt in self._silent:
            return WinMatrix.missing(["no answer"] * group.size)
        return super()._score(group)


def group(id: str, quality: tuple[float, ...], skill: str) -> PreferenceGroup:
    return PreferenceGroup(
        id=id,
        prompt=id,
        candidates=(b"x",) * len(quality),
        comparisons=(),
        quality=quality,
        tags={"skill": skill},
    )


@pytest.fixture
def prompts() -> list[Any]:
    return [all_prompts(skill)[0] for skill in SKILLS]


def result(prompts: Sequence[Any]) -> PolicyResult:
    before = [Sample(prompt=p, program="a\nmasterpiece", image=None, oracle=0.0) for p in prompts]
    scene = Scene.parse("red circle 0 0")
    after = [Sample(prompt=p, program=scene.program(), image=render(scene), oracle=0.5) for p in prompts]
    return PolicyResult(before=before, after=after, watched=[(0, 0.0), (4, 0.5)])


def reported(
    out: Path, prompts: Sequence[Any], *, silent: Sequence[str], export_difference: float = 0.0
) -> tuple[dict[str, Any], str]:
    """The report about a judge that says nothing of some prompts, once it is trained."""
    groups = [label(WORLD, str(n), prompt.text, PICTURES) for n, prompt in enumerate(prompts)]
    after = Mute(silent)
    judged = Judged(
        data=DataSummary(groups=SPLITS, prompts=SPLITS, comparisons=360, ties=77),
        before=evaluate(Mute([]), groups),
        after=evaluate(after, groups),
        bundle=out,
        digest="0" * 64,
        export_difference=export_difference,
        groups=groups,
        matrices=after.score([group.group() for group in groups]),
    )
    used = Used(grpc_difference=0.0, http_difference=0.0, policy=result(prompts))
    facts = numbers(judged, used, Resources(), seed=1)
    write_report(out, facts, draw(out / "pictures", judged, used.policy))
    return json.loads((out / "report.json").read_text()), (out / "report.md").read_text()


def test_what_could_not_be_measured_is_null(tmp_path: Path, prompts: list[Any]) -> None:
    facts, report = reported(
        tmp_path, prompts, silent=[prompt.text for prompt in prompts], export_difference=math.nan
    )
    judge = facts["judge"]
    assert judge["pair_accuracy"] is None and judge["order_gap"] is None
    assert judge["pair_accuracy_before"] is not None and judge["order_gap_before"] == 0
    assert [entry["after"] for entry in judge["by_skill"].values()] == [None] * len(SKILLS)
    assert facts["bundle"]["export_max_abs_diff"] is None
    assert "nan" not in report
    assert "from the judge that was trained, in memory, by - at most" in report


def test_a_difference_has_one_digit_or_is_a_dash() -> None:
    assert [magnitude(value) for value in (3.4e-7, 0.0, math.nan)] == ["3e-07", "0e+00", "-"]


def test_the_report_holds_before_and_after(tmp_path: Path, prompts: list[Any]) -> None:
    (tmp_path / "judge" / "evaluation").mkdir(parents=True)
    (tmp_path / "judge" / "evaluation" / "report.md").write_text("more")
    facts, report = reported(tmp_path, prompts, silent=[prompts[0].text])
    assert facts["policy"]["by_skill"] == {skill: {"before": 0.0, "after": 0.5} for skill in SKILLS}
    for text in (
        "| train | 60 | 60 |",
        "360 comparisons, of which 77 are ties",
        "| mean order gap | 0.000 | 0.000 | 0.000 |",
        "(judge/evaluation/report.md)",
        f"all {len(prompts)} held-out prompts",
        f"| {prompts[0].text} | `a masterpiece` | `red circle 0 0` |",
    ):
        assert text in re.sub(" +", " ", report)


def test_the_groups_that_differ_most_are_shown_one_of_each_skill() -> None:
    groups = [
        group("equal", (0.5, 0.5, 0.5), "counting"),
        group("near", (0.5, 0.6, 0.7), "counting"),
        group("far", (0.0, 0.5, 1.0), "counting"),
        group("two", (0.0, 1.0, 1.0), "colors"),
        group("also far", (0.0, 0.6, 1.0), "counting"),
        group("same", (1.0, 1.0, 1.0), "position"),
        group("none", (0.0, 0.0, 0.0), "single_object"),
    ]
    matrices = Mute([]).score([each.group() for each in groups])
    shown = most_telling(groups, matrices)
    assert [each.id for each, _ in shown] == ["far", "two", "same"]
    assert [matrix for _, matrix in shown] == [matrices[2], matrices[3], matrices[5]]
