"""`prefrm score` of texts and videos, with a context and by several criteria."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prefrm.cli import run, shared
from prefrm.cli.criteria import ByCriteria
from prefrm.errors import ConfigError
from prefrm.records import Comparison, PreferenceGroup, write_groups
from prefrm.winmatrix import EVERYTHING, FakeScorer, Group, Inputs, WinMatrix

TEXTS = ("one bird", "two birds on a fence", "three")


class ByCriterion:
    """Prefers longer candidates, or shorter ones by "brevity"; remembers the groups."""

    def __init__(self) -> None:
        self.groups: list[Group] = []

    def identity(self) -> str:
        return "fake"

    def inputs(self) -> Inputs:
        return EVERYTHING

    def score(self, groups: list[Group]) -> list[WinMatrix]:
        self.groups += groups
        return [
            FakeScorer(lambda prompt, x, s=-1 if group.criterion == "brevity" else 1: s * len(x) / 10).score(
                [group]
            )[0]
            for group in groups
        ]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ByCriterion:
    found = ByCriterion()

    @contextmanager
    def opened(target: str, **options: object) -> Iterator[ByCriterion]:
        yield found

    monkeypatch.setattr(shared.scorers, "open_scorer", opened)
    return found


def score(*options: str) -> int:
    texts = [part for text in TEXTS for part in ("--text", text)]
    return run(["score", "grpc://judge:1/judge", "--prompt", "how many birds?", *texts, *options])


def test_texts_are_compared_with_their_context(
    judge: ByCriterion,
    tmp_path: Path,
    png: Callable[..., bytes],
    figure_texts: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(png(1))
    assert score("--context", str(source), "--plot", str(tmp_path / "matrix.png")) == 0
    (group,) = judge.groups
    assert (group.candidates, group.context, group.kind) == (TEXTS, (png(1),), "text")
    printed = capsys.readouterr().out
    assert "two birds on a fence" in printed and "together" not in printed
    assert (tmp_path / "matrix.png").stat().st_size > 10_000
    assert "context" in figure_texts[0] and "criterion" not in figure_texts[0]


def test_each_criterion_has_a_matrix_and_the_whole_is_combined(
    judge: ByCriterion, capsys: pytest.CaptureFixture[str]
) -> None:
    by = ("--criterion", "detail=3", "--criterion", "brevity")
    assert score(*by, "--json", "--best", "2") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["candidates"] == list(TEXTS)
    assert answer["ranking"] == answer["criteria"]["detail"]["ranking"] == [1, 0, 2]
    assert answer["criteria"]["brevity"]["ranking"] == [2, 0, 1]
    best = answer["best"][0]
    assert best["candidate"] == TEXTS[1] and best["criteria"]["brevity"] < 0.5 < best["criteria"]["detail"]
    assert score(*by, "--combine", "lexicographic", "--margin", "0.99") == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith(("by ", "together"))] == [
        "by detail",
        "by brevity",
        "together, by lexicographic 0.99",
    ]
    assert printed.count("ranking: 2 three > ") == 2
    assert score(*by, "--best", "1") == 0
    heading, line = capsys.readouterr().out.splitlines()
    assert heading.split() == ["whole", "detail", "brevity"] and line.endswith(TEXTS[1])


def test_one_criterion_is_asked_alone(judge: ByCriterion, capsys: pytest.CaptureFixture[str]) -> None:
    assert score("--criterion", "brevity", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [group.criterion for group in judge.groups] == ["brevity"]
    assert answer["win_matrix"] == answer["criteria"]["brevity"]["win_matrix"]


@pytest.mark.parametrize(
    ("criteria", "shown"),
    [(["detail=3"], "detail"), (["detail=3", "brevity"], "mean of detail x 3, brevity x 1")],
)
def test_a_figure_names_one_criterion_or_how_several_are_combined(
    judge: ByCriterion, tmp_path: Path, figure_texts: list[list[str]], criteria: list[str], shown: str
) -> None:
    options = [part for one in criteria for part in ("--criterion", one)]
    assert score(*options, "--plot", str(tmp_path / "matrix.png")) == 0
    (found,) = figure_texts
    assert found[found.index("criterion") + 1] == shown


@pytest.mark.parametrize(
    ("given", "name", "weight"),
    [
        ("a=2", "a", 2.0),
        ("a=1e-3", "a", 1e-3),
        ("a=2.", "a", 2.0),
        ("x=1=.5", "x=1", 0.5),
        ("is x=y?", "is x=y?", 1.0),
        ("a", "a", 1.0),
    ],
)
def test_a_weight_stands_behind_the_last_equals_sign(given: str, name: str, weight: float) -> None:
    criteria = ByCriteria(criterion=[given]).criteria()
    assert criteria is not None and criteria.names == (name,)
    assert criteria.combination.weights == {name: weight}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a="], "received ''"),
        (["a=1,5"], "received '1,5'"),
        (["a=-1"], "weight of 'a' must be >= 0"),
        (["a=nan"], "weight of 'a' must be >= 0"),
        (["a=0", "b=0"], "every criterion has weight 0"),
        (["", "overall"], "'overall' twice"),
    ],
)
def test_criteria_that_cannot_be_meant_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ByCriteria(criterion=given).criteria()


def test_of_videos_the_best_are_ranked_and_broken_ones_named(
    judge: ByCriterion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from prefrm.video import encode_video

    files = [tmp_path / f"{name}.mp4" for name in "abc"]
    for n, file in enumerate(files):
        frames = [Image.effect_noise((32, 32), 40 * n).convert("RGB") for _ in range(4)]
        file.write_bytes(encode_video(frames, 4))
    files[2].write_bytes(files[2].read_bytes()[:200])
    command = ["score", "grpc://judge:1/judge", "--prompt", "rain", *map(str, files), "--best", "2"]
    assert run([*command, "--plot", str(tmp_path / "matrix.png")]) == 0
    captured = capsys.readouterr()
    assert [line.rpartition("/")[2] for line in captured.out.splitlines()] == ["b.mp4", "a.mp4"]
    assert captured.err.startswith("left out: ") and "c.mp4" in captured.err
    assert judge.groups[0].kind == "video"


def test_videos_have_labels_and_no_table_of_pairs(
    judge: ByCriterion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = (b"\0\0\0\x18ftypisom1", b"\0\0\0\x18ftypisom")
    group = PreferenceGroup(id="g", prompt="rain", candidates=clips, comparisons=())
    write_groups([group], tmp_path / "data", "test")
    out = tmp_path / "labels"
    command = ["label", "grpc://judge:1/judge", str(tmp_path / "data"), "--split", "test"]
    assert run([*command, "--out", str(out)]) == 0
    assert (
        f"no table of pairs for videos; the matrices are in {out / 'win_matrices'}" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_labels_and_evaluations_by_several_criteria(
    judge: ByCriterion, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefrm.label import read_matrices

    group = PreferenceGroup(
        id="g", prompt="how many?", candidates=TEXTS, comparisons=(Comparison.preferred(1, 2),)
    )
    write_groups([group], tmp_path / "data", "test")
    data, by = str(tmp_path / "data"), ("--criterion", "brevity=3", "--criterion", "detail")
    command = ["label", "grpc://judge:1/judge", data, "--split", "test", "--out", str(tmp_path / "labels")]
    assert run([*command, *by]) == 0
    (entry,) = read_matrices(tmp_path / "labels")
    assert list(entry.criteria) == ["brevity", "detail"] and entry.matrix.p[2, 1] > 0.5
    command = ["eval", "grpc://judge:1/judge", data, "--out", str(tmp_path / "eval")]
    for options, value, own in (
        (by, 0.0, {"brevity": 0.0, "detail": 1.0}),
        (("--criterion", "detail"), 1.0, {"detail": 1.0}),
    ):
        assert run([*command, *options]) == 0
        numbers = json.loads((tmp_path / "eval" / "report.json").read_text())
        assert numbers["metrics"]["accuracy"]["value"] == value
        each = {name: entry["value"] for name, entry in numbers["criteria"]["pair_accuracy"].items()}
        assert each == own
        assert "| detail | 1.000 |" in re.sub(" +", " ", (tmp_path / "eval" / "report.md").read_text())
    capsys.readouterr()
    assert run([*command, "--amend", "--criterion", "detail"]) == 2
    assert "leave out --criterion" in capsys.readouterr().err
    assert numbers["metrics"]["length_bias"]["accuracy"]["longer"]["value"] == 1.0
