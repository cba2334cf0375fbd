"""A collection: a dataset, judges, people, and the file of the answers, without a page."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_recipes.registry import RECIPES
from prefrm import media
from prefrm.answers import AnswerConflict, read_answers
from prefrm.app.collect.collection import Collection, Shown
from prefrm.app.collect.queue import QueueSettings
from prefrm.app.judges import Judges
from prefrm.data import LoadedGroups, load_groups
from prefrm.errors import DatasetError, ScoringError
from prefrm.records import DatasetInfo, fingerprint, write_groups, write_info
from prefrm.winmatrix import FakeScorer

NEW = QueueSettings(known=0, repeats=0)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> LoadedGroups:
    folder = tmp_path_factory.mktemp("shapes")
    RECIPES["shapes"].build(folder, train=20, validation=6, test=6)
    return load_groups(folder, "train")


@contextmanager
def collection(
    path: Path, groups: LoadedGroups, *, judges: Judges | None = None, **more
) -> Iterator[Collection]:
    with Collection(path / "answers.sqlite", groups, **{"settings": NEW, **more}) as found:
        found.list_groups(judges)
        yield found


def answer_all(asked: Collection, name: str = "ada") -> list[Shown]:
    seen = []
    while isinstance(shown := asked.next(name), Shown):
        seen.append(shown)
        assert asked.answer(name, shown.question, key=f"{name}{len(seen)}", verdict="left", response_s=1.0)
    return seen


def test_every_pair_is_asked_once_and_is_in_the_file(shapes: LoadedGroups, tmp_path: Path) -> None:
    with collection(tmp_path, shapes) as asked:
        seen = answer_all(asked)
        assert asked.next("ada") == "done"
        pairs = sum(
            len({c for c in g.candidates}) * (len({c for c in g.candidates}) - 1) // 2 for g in shapes
        )
        assert len(seen) == len({frozenset((s.left, s.right, s.prompt)) for s in seen}) == pairs
        progress = asked.progress()
        assert (progress.listed, progress.groups, progress.pairs, progress.of_pairs) == (20, 20, pairs, pairs)
        prompts = {group.prompt for group in shapes}
        assert {s.prompt for s in seen} == prompts and seen[0].kind == "image"
        contents = {media.digest(c): c for group in shapes for c in group.candidates}
        assert all(asked.content(s.left) == contents[s.left] for s in seen[:5])
        assert asked.content("absent") is None
    answers_of, answers = read_answers(tmp_path / "answers.sqlite")
    assert answers_of.data == str(shapes.folder.resolve()) and len(answers) == pairs


def test_a_question_stays_until_it_is_answered_also_over_a_new_session(shapes, tmp_path: Path) -> None:
    with collection(tmp_path, shapes) as asked:
        first = asked.next("ada")
        assert asked.next("ada") == first != asked.next("ben")
    with Collection(tmp_path / "answers.sqlite", shapes, settings=NEW) as again:
        assert again.next("ada") == "loading"
        again.list_groups()
        assert again.next("ada") == first
        with pytest.raises(AnswerConflict, match="ben has no question"):
            again.answer("ben", first.question, key="k", verdict="left", response_s=None)
        assert again.answer("ada", first.question, key="k", verdict="left", response_s=None)
        assert not again.answer("ada", first.question, key="k", verdict="left", response_s=None)


def test_waiting_for_others_is_not_the_end(shapes, tmp_path: Path) -> None:
    now = [0.0]
    with collection(tmp_path, shapes, clock=lambda: now[0]) as asked:
        shown = asked.next("ada")
        answer_all(asked, "ben")
        assert asked.next("ben") == "waiting"
        now[0] = NEW.lease_s
        again = asked.next("ben")
        assert {again.left, again.right} == {shown.left, shown.right}


def test_judges_choose_the_first_pair_and_one_that_fails_is_named(shapes, tmp_path: Path) -> None:
    """The judge prefers longer files; of the first pair, both are about as long."""

    class Broken(FakeScorer):
        def score(self, groups):
            raise ScoringError("no memory left")

    judges = Judges(
        {
            "long": lambda: nullcontext(FakeScorer(lambda prompt, c: len(c) / 10)),
            "broken": lambda: nullcontext(Broken(lambda prompt, c: 0.0)),
        }
    )
    with collection(tmp_path, shapes, judges=judges) as asked:
        assert asked.progress().problems == ("broken: no memory left",)
        first = asked.next("ada")
        gaps = [
            abs(len(group.candidates[i]) - len(group.candidates[j]))
            for group in shapes
            for i in range(4)
            for j in range(i)
            if group.candidates[i] != group.candidates[j]
        ]
        assert abs(len(asked.content(first.left)) - len(asked.content(first.right))) == min(gaps)


def test_known_pairs_come_from_their_own_split_and_measure_the_annotators(shapes, tmp_path: Path) -> None:
    """Ada answers by the oracle, ben with the left hand; the criterion is the collection's."""
    known = load_groups(shapes.folder, "test")
    truth = {
        (group.id, media.digest(group.candidates[c.i]), media.digest(group.candidates[c.j])): c.p
        for split in ("train", "test")
        for group in load_groups(shapes.folder, split)
        for c in group.comparisons
    }
    settings = QueueSettings(known=0.4, repeats=0.1, gap=5, annotators=2)
    with collection(tmp_path, shapes, settings=settings, known=known, criterion="style") as asked:
        rng = np.random.default_rng(0)
        n = 0
        for name in ("ada", "ben"):
            while isinstance(shown := asked.next(name), Shown):
                assert shown.criterion == "style"
                right = name == "ada" and any(
                    p == 0.0 if key[1:] == (shown.left, shown.right) else p == 1.0
                    for key, p in truth.items()
                    if set(key[1:]) == {shown.left, shown.right}
                )
                verdict = "right" if right and rng.random() < 0.98 else "left"
                asked.answer(name, shown.question, key=str(n := n + 1), verdict=verdict, response_s=2.0)
        reports = {report.name: report for report in asked.annotators()}
        assert reports["ada"].known.total > 20 and reports["ada"].known.value > 0.85
        assert abs(reports["ben"].known.value - 0.5) < 0.2 and reports["ben"].left.value == 1.0
        assert reports["ben"].unreliable and not reports["ada"].unreliable


def test_a_split_without_a_strict_comparison_has_no_known_pairs(shapes, tmp_path: Path) -> None:
    groups = [replace(group, comparisons=()) for group in shapes]
    write_groups(groups, tmp_path, "test")
    info = DatasetInfo(recipe="x", options={}, fingerprints={"test": fingerprint(groups)})
    write_info(tmp_path, info)
    with pytest.raises(DatasetError, match="none is known"):
        Collection(tmp_path / "answers.sqlite", shapes, known=load_groups(tmp_path, "test"))


def test_groups_that_cannot_be_read_are_a_problem_that_is_shown(shapes, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(shapes.folder, folder)
    with Collection(tmp_path / "answers.sqlite", load_groups(folder, "train"), settings=NEW) as asked:
        whole = (folder / "train.parquet").read_bytes()
        (folder / "train.parquet").write_bytes(whole[:4000] + bytes(3000) + whole[7000:])
        asked.start()
        for _ in range(1000):
            if problems := asked.progress().problems:
                break
            time.sleep(0.01)
        assert "cannot be listed to their end" in problems[0] and "train.parquet" in problems[0]
        assert asked.next("ada") == "loading"
