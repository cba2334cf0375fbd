"""Answers of people become a dataset: polarity, merging, and which answers are left out."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_recipes.registry import RECIPES
from prefrm import media
from prefrm.answers import AnswersOf, AnswerStore
from prefrm.answers.response_times import DriftDiffusion, simulate_drift_diffusion
from prefrm.data import load_groups
from prefrm.errors import DatasetError
from prefrm.records import PreferenceGroup, read_info

WHOLE = {"validation": 0.0, "test": 0.0}
Say = Callable[..., None]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """30 prompts with three images each, without labels."""
    for n in range(30):
        folder = tmp_path / "images" / f"prompt number {n}"
        folder.mkdir(parents=True)
        for shade in range(3):
            Image.new("RGB", (8, 8), (8 * n, 80 * shade, 0)).save(folder / f"{shade}.png")
    RECIPES["folder"].build(tmp_path / "data", source=str(tmp_path / "images"))
    return tmp_path / "data"


@pytest.fixture
def store(data: Path, tmp_path: Path) -> Iterator[AnswerStore]:
    of = AnswersOf(data=str(data), split="train", fingerprint=read_info(data).fingerprints["train"])
    with AnswerStore(tmp_path / "answers.sqlite", of) as opened:
        yield opened


def say(
    store: AnswerStore, group: PreferenceGroup, verdict: str, sides=(0, 1), name="ada", time=None, **more
) -> None:
    left, right = (media.digest(group.candidates[side]) for side in sides)
    asked = store.ask(name, group=group.id, left=left, right=right, **more)
    store.answer(name, asked.id, key=f"k{asked.id}", verdict=verdict, response_s=time)


def build(store: AnswerStore, tmp_path: Path, **options) -> dict[str, PreferenceGroup]:
    """The groups of the train split by prompt."""
    source = str(tmp_path / "answers.sqlite")
    RECIPES["collected"].build(tmp_path / "out", source=source, overwrite=True, **WHOLE | options)
    return {group.prompt: group for group in load_groups(tmp_path / "out", "train")}


def p_of(group: PreferenceGroup, first: bytes, second: bytes) -> tuple[float, float]:
    """P(first is preferred to second) and the weight."""
    i, j = group.candidates.index(first), group.candidates.index(second)
    (c,) = [c for c in group.comparisons if {c.i, c.j} == {i, j}]
    return (c.p if c.i == i else 1 - c.p), c.weight


@pytest.mark.parametrize(("verdict", "p"), [("left", 1.0), ("right", 0.0), ("tie", 0.5), ("both_bad", 0.5)])
def test_polarity_on_a_literal_answer(store, data, tmp_path, verdict, p) -> None:
    """ "left" means that the candidate on the left is preferred, whichever place it has in the group."""
    groups = list(load_groups(data, "train"))
    say(store, groups[0], verdict, sides=(0, 2))
    say(store, groups[1], verdict, sides=(2, 1))
    built = build(store, tmp_path)
    for group, (left, right) in zip(groups, ((0, 2), (2, 1)), strict=False):
        found = built[group.prompt]
        assert p_of(found, group.candidates[left], group.candidates[right]) == (p, 1.0)


def test_answers_of_several_people_are_votes_and_equal_repeats_count_once(store, data, tmp_path) -> None:
    group = next(iter(load_groups(data, "train")))
    first, second, third = group.candidates
    for name in ("ada", "ben", "eve"):
        say(store, group, "left" if name != "eve" else "right", name=name)
    say(store, group, "right", sides=(1, 0), purpose="repeat")
    say(store, group, "left", sides=(0, 2), name="ben")
    say(store, group, "left", sides=(0, 2), name="ben", purpose="known", known=0.0)
    say(store, group, "skip", sides=(1, 2))
    found = build(store, tmp_path)[group.prompt]
    assert p_of(found, first, second) == (pytest.approx(2 / 3), 3.0)
    assert p_of(found, first, third) == (1.0, 1.0)
    assert len(found.comparisons) == 2
    assert read_info(tmp_path / "out").left_out == {"skipped": 1}


def test_the_criterion_is_that_of_the_question_and_the_split_that_of_the_dataset(
    store, data, tmp_path
) -> None:
    group = next(iter(load_groups(data, "train")))
    say(store, group, "left", criterion="style")
    assert build(store, tmp_path)[group.prompt].criterion == "style"
    assert list(read_info(tmp_path / "out").splits) == ["train"]


def test_answers_of_an_unreliable_annotator_are_left_out_unless_all_are_asked_for(
    store, data, tmp_path
) -> None:
    """Three agree on everything; the fourth prefers what is on the left."""
    rng = np.random.default_rng(0)
    groups = list(load_groups(data, "train"))
    for name in ("ada", "ben", "cem", "left"):
        for group in groups:
            sides = (0, 1) if rng.random() < 0.5 else (1, 0)
            say(store, group, "left" if name == "left" or sides[0] == 0 else "right", sides=sides, name=name)
    built = build(store, tmp_path)
    assert {p_of(built[g.prompt], *g.candidates[:2]) for g in groups} == {(1.0, 3.0)}
    assert read_info(tmp_path / "out").left_out == {"unreliable annotator": 30}
    everything = build(store, tmp_path, annotators="all")
    assert {p_of(everything[g.prompt], *g.candidates[:2])[1] for g in groups} == {4.0}


def test_response_times_are_read_as_certainty_and_attention(store, data, tmp_path) -> None:
    annotator = DriftDiffusion(bound=1.2, spread=1.5, delay=0.4, inattention=0.02, longest=10.0)
    rng = np.random.default_rng(0)
    groups = list(load_groups(data, "train"))
    asked = [(group, sides) for group in groups for sides in ((0, 1), (1, 2))]
    answers, times = simulate_drift_diffusion(annotator, rng.normal(0, 1.5, len(asked)), rng)
    for (group, sides), answer, time in zip(asked, answers, times, strict=True):
        say(store, group, "left" if answer > 0 else "right", sides=sides, time=float(time))
    built = build(store, tmp_path, response_times="read")
    order = np.argsort(times)
    read = [
        p_of(built[g.prompt], *(g.candidates[n] for n in sides[:: int(answer)]))
        for g, sides, answer in ((*asked[n], answers[n]) for n in order)
    ]
    # Slower than any hand: the certainty of the answer falls with its time.
    decided = [p for (p, _), time in zip(read, times[order], strict=True) if time > 0.6]
    assert all(np.diff(decided) < 0) and decided[0] > 0.85 and decided[-1] > 0.5
    assert all(0 < weight <= 1 for _, weight in read) and np.mean([w for _, w in read]) > 0.8
    plain = build(store, tmp_path).values()
    assert {(c.p in (0.0, 1.0), c.weight) for group in plain for c in group.comparisons} == {(True, 1.0)}


def test_a_dataset_that_moved_or_changed(store, data, tmp_path) -> None:
    group = next(iter(load_groups(data, "train")))
    say(store, group, "left")
    data.rename(tmp_path / "moved")
    with pytest.raises(DatasetError, match=r"answers\.sqlite: .*--set data=FOLDER"):
        build(store, tmp_path)
    assert build(store, tmp_path, data=str(tmp_path / "moved")).keys() == {group.prompt}
    (tmp_path / "images" / group.prompt / "0.png").unlink()
    RECIPES["folder"].build(tmp_path / "other", source=str(tmp_path / "images"))
    with pytest.raises(DatasetError, match="answers about another dataset than"):
        build(store, tmp_path, data=str(tmp_path / "other"))


def test_a_file_without_answers(store, tmp_path) -> None:
    with pytest.raises(DatasetError, match="has no answers about"):
        build(store, tmp_path)
