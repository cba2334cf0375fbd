"""The file of answers: what a killed client, a repeated request and a second session find in it."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from prefrm.answers import AnswerConflict, AnswersOf, AnswerStore, read_answers
from prefrm.errors import ConfigError, DataError, DatasetError

SHAPES = AnswersOf(data="data/shapes", split="train", fingerprint="f1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.sqlite"


def ask(store: AnswerStore, annotator: str = "ada", **more) -> int:
    return store.ask(annotator, **{"group": "g1", "left": "a", "right": "b", **more}).id


def test_an_answer_is_kept_with_what_was_shown(path: Path) -> None:
    times = iter([10.0, 12.5])
    with AnswerStore(path, SHAPES, clock=lambda: next(times)) as store:
        asked = store.ask("ada", group="g1", left="b", right="a", criterion="style")
        assert store.open_question("ada") == asked
        given = store.answer("ada", asked.id, key="k", verdict="left", response_s=1.5)
        assert store.open_question("ada") is None
        assert list(store.answers()) == [given]
    answers_of, (found,) = read_answers(path)
    assert (answers_of, found) == (SHAPES, given)
    assert (found.question, found.verdict, found.response_s) == (asked, "left", 1.5)
    assert (found.question.asked_at, found.answered_at, found.p_left) == (10.0, 12.5, 1.0)
    assert found.question.pair == ("g1", "style", "a", "b")


def test_a_request_that_is_repeated_changes_nothing(path: Path) -> None:
    with AnswerStore(path, SHAPES) as store:
        first = ask(store)
        store.answer("ada", first, key="k1", verdict="left", response_s=1.0)
        assert store.answer("ada", first, key="k1", verdict="left", response_s=1.0) is None
        second = ask(store)
        assert store.answer("ada", first, key="k1", verdict="left", response_s=1.0) is None
        assert len(list(store.answers())) == 1
        with pytest.raises(AnswerConflict, match="used for another answer"):
            store.answer("ada", second, key="k1", verdict="right", response_s=1.0)
        with pytest.raises(AnswerConflict, match="answered before"):
            store.answer("ada", first, key="k2", verdict="right", response_s=1.0)
        with pytest.raises(AnswerConflict, match=f"ben has no question {second}"):
            store.answer("ben", second, key="k3", verdict="right", response_s=1.0)
        assert [a.verdict for a in store.answers()] == ["left"]
        assert store.open_question("ada").id == second


def test_an_annotator_has_one_open_question(path: Path) -> None:
    with AnswerStore(path, SHAPES) as store:
        ask(store, "ada")
        ask(store, "ben")
        with pytest.raises(sqlite3.IntegrityError, match="annotator"):
            ask(store, "ada")
        assert [q.annotator for q in store.questions()] == ["ada", "ben"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": ""},
        {"key": "k" * 201},
        {"verdict": "both"},
        {"response_s": -0.1},
        {"response_s": float("nan")},
    ],
)
def test_a_malformed_answer_leaves_the_question_open(path: Path, wrong: dict) -> None:
    with AnswerStore(path, SHAPES) as store:
        asked = ask(store)
        with pytest.raises(DataError, match="received"):
            store.answer("ada", asked, **{"key": "k", "verdict": "tie", "response_s": 1.0, **wrong})
        assert store.open_question("ada").id == asked
        assert store.answer("ada", asked, key="k", verdict="tie", response_s=None) is not None


KILLED = """
import os, sys
from prefrm.answers import AnswersOf, AnswerStore
store = AnswerStore(sys.argv[1], AnswersOf(data="data/shapes", split="train", fingerprint="f1"))
for n in range(3):
    store.answer("ada", store.ask("ada", group="g1", left="a", right="b").id, key=str(n), verdict="left",
                 response_s=None)
store.ask("ada", group="g2", left="a", right="b")
os.kill(os.getpid(), 9)
"""


def test_a_process_that_is_killed_leaves_every_answer_and_the_open_question(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, path], env={**os.environ, "PYTHONPATH": "."})
    assert done.returncode == -signal.SIGKILL
    with AnswerStore(path, SHAPES) as store:
        assert len(list(store.answers())) == 3
        assert store.open_question("ada").group == "g2"


def test_a_reader_sees_what_a_session_that_goes_on_has_written(path: Path) -> None:
    with AnswerStore(path, SHAPES) as store:
        store.answer("ada", ask(store), key="k", verdict="skip", response_s=None)
        _, (answer,) = read_answers(path)
        assert (answer.verdict, answer.p_left) == ("skip", None)


def test_answers_about_another_dataset_need_another_file(path: Path) -> None:
    AnswerStore(path, SHAPES).close()
    moved = AnswersOf(data="elsewhere/shapes", split="train", fingerprint="f1")
    AnswerStore(path, moved).close()
    assert read_answers(path) == (moved, [])
    with pytest.raises(DatasetError, match=r"train of elsewhere/shapes.*name another file"):
        AnswerStore(path, AnswersOf(data="data/other", split="train", fingerprint="f2"))


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_file_that_holds_no_answers_is_named(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"answers\.sqlite is not a file of answers"):
        read_answers(path)
    if content:
        with pytest.raises(DatasetError, match=r"answers\.sqlite is not a file of answers"):
            AnswerStore(path, SHAPES)


def test_a_path_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no such file"):
        read_answers(tmp_path / "answers.sqlite")
    with pytest.raises(ConfigError, match="cannot be opened or created"):
        AnswerStore(tmp_path / "absent" / "answers.sqlite", SHAPES)


def test_two_sessions_do_not_write_to_one_file(path: Path) -> None:
    with AnswerStore(path, SHAPES):
        with pytest.raises(ConfigError, match="another session is writing to"):
            AnswerStore(path, SHAPES)
        assert read_answers(path) == (SHAPES, [])
    AnswerStore(path, SHAPES).close()
