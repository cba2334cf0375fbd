"""Trials that are kept, judged again by their names, and shown as HTML and JSON."""

from pathlib import Path
from typing import Any

import pytest

from prefrm.app.judges import Judges
from prefrm.app.markup import heat_map, matrix_facts, not_judged, ranking_strip, tile
from prefrm.app.media import MediaStore
from prefrm.app.trials import Trial, Trials
from prefrm.errors import DataError, MediaError
from prefrm.winmatrix import FakeScorer, Group
from tests.prefrm.candidates import noise_png


class Named(FakeScorer):
    def identity(self) -> str:
        return "by length"


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    from contextlib import nullcontext

    def judge() -> Any:
        return nullcontext(Named(lambda prompt, candidate: len(candidate) / 1000, first_bonus=0.2))

    return Trials(tmp_path / "trials", MediaStore(tmp_path / "media"), Judges({"length": judge}))


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(noise_png(n, width=8 * (n + 1)))
    return list(map(str, paths))


def test_a_trial_is_found_again_by_its_name(trials: Trials, files: list[str], tmp_path: Path) -> None:
    trial = Trial.of_files("noise", files, judges=["length"])
    name = trials.save(trial)
    assert trials.load(name) == trial and trials.save(trial) == name
    assert trial.labels == ("0", "1", "2")
    (answer,) = trials.answers(name)
    assert answer.matrix is not None and answer.identity == "by length"
    found = trials.as_json(name)
    assert found["judges"]["length"]["ranking"] == [2, 1, 0] and found["candidates"] == ["0", "1", "2"]
    candidates, context = trials.files(name)
    assert [Path(file).read_bytes() for file in candidates] == list(trial.group.candidates) and not context


def test_a_picture_has_the_criterion_and_the_context_of_the_trial(
    trials: Trials, files: list[str], tmp_path: Path, figure_texts: list[list[str]]
) -> None:
    fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed")
    from fastapi.testclient import TestClient

    from prefrm.app.trial import trial_view

    name = trials.save(
        Trial.of_files("noise", files[:2], context=files[2:], criterion="detail", judges=["length"])
    )
    app = fastapi.FastAPI()
    app.include_router(trial_view(Judges({}), trials, MediaStore(tmp_path / "media")).router)
    assert TestClient(app).get(f"/{name}/0.png").content.startswith(b"\x89PNG")
    assert {"criterion", "detail", "context"} < {*figure_texts[0]}


def test_texts_are_separated_by_lines(trials: Trials) -> None:
    trial = Trial.of_texts("say it", "one\n\nof two lines\n---\n two \n--- \n", judges=["length", "absent"])
    assert trial.group.candidates == ("one\n\nof two lines", "two")
    name = trials.save(trial)
    assert trials.load(name) == trial
    good, bad = trials.answers(name)
    assert good.matrix is not None and bad.matrix is None and "no judge 'absent'" in bad.error


@pytest.mark.parametrize("name", ["", "../media", "0" * 20])
def test_what_is_no_trial_is_refused(trials: Trials, name: str) -> None:
    with pytest.raises(DataError, match="there is no trial"):
        trials.load(name)


def test_media_are_kept_by_their_digest(tmp_path: Path) -> None:
    store = MediaStore(tmp_path / "media")
    data = noise_png(1, width=600)
    digest = store.add(data)
    assert store.read(digest) == data
    assert store.thumbnail(digest)[8:12] == b"WEBP"
    for wrong in ("0" * 64, "..", ""):
        with pytest.raises(MediaError, match="there is no image or video"):
            store.read(wrong)
    with pytest.raises(MediaError):
        store.thumbnail(store.add(b"<html>"))


def test_markup_says_in_words_what_colours_say_and_escapes_names(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    group = Group(prompt="longer", candidates=("a", "aaa<", None))
    (matrix,) = FakeScorer(lambda prompt, text: len(text)).score([group])
    labels = ["<script>", "b", "c"]
    tiles = [tile(each, store) for each in group.candidates]
    shown = heat_map(matrix, labels, tiles) + ranking_strip(matrix, labels, tiles)
    assert "<script>" not in shown and "&lt;script&gt; against b: 0.047" in shown
    assert "aaa&lt;" in shown and "not judged" in shown
    assert shown.count("<li>") == 2 and "<b>0.953</b>" in shown
    assert "the candidate is missing" in not_judged(matrix, labels)
    assert dict(matrix_facts(matrix))["pairs judged"] == "1 of 3"
