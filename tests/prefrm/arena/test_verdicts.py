"""Verdicts of scorers, oracles and people on the images of models, and what a stopped run keeps."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrm import media
from prefrm.arena import ArenaPrompt
from prefrm.arena.images import Answers, ImageFolder, read_answers
from prefrm.arena.verdicts import from_oracle, from_people, from_scorer
from prefrm.errors import DatasetError
from prefrm.winmatrix import FakeScorer

PROMPTS = tuple(ArenaPrompt(id=f"p{n}", text=f"prompt {n}") for n in range(20))
LEVELS = {"dark": 40, "grey": 120, "light": 200}


def brightness(prompt: str, image: bytes) -> float:
    return float(np.asarray(media.decode(image)).mean()) / 50


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level,) * 3).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """Three models that differ in brightness; one image is missing."""
    for model, level in LEVELS.items():
        (tmp_path / model).mkdir()
        for n, prompt in enumerate(PROMPTS):
            (tmp_path / model / f"{prompt.id}_0.png").write_bytes(png(level + n))
    (tmp_path / "grey" / "p1_0.png").unlink()
    folders = [ImageFolder.find(model, tmp_path / model, PROMPTS) for model in LEVELS]
    return read_answers(PROMPTS, folders)


class Counted(FakeScorer):
    """Counts the groups, and fails after some of them."""

    def __init__(self, most: int = 10**6) -> None:
        super().__init__(brightness)
        self.seen, self.most = 0, most

    def score(self, groups):
        groups = list(groups)
        if self.seen + len(groups) > self.most:
            raise KeyboardInterrupt
        self.seen += len(groups)
        return super().score(groups)


def test_a_scorer_compares_all_models_of_a_prompt_at_once(answers: Answers, tmp_path: Path) -> None:
    found = from_scorer(Counted(), "fake", "id", answers, tmp_path / "out")
    assert found.p_GMM.shape == (20, 3, 3)
    assert found.p_GMM[0, 2, 0] == pytest.approx(1 / (1 + np.exp(-160 / 50)), abs=1e-6)
    assert np.isnan(found.p_GMM[1, 1, [0, 2]]).all()
    assert np.isfinite(found.p_GMM[1, 0, 2])
    # What is missing was not asked for.
    assert (found.pairs, found.judged, dict(found.reasons)) == (19 * 3 + 1, 19 * 3 + 1, {})


def test_a_stopped_run_judges_no_finished_group_again_and_ends_alike(
    answers: Answers, tmp_path: Path
) -> None:
    whole = from_scorer(Counted(), "fake", "id", answers, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        from_scorer(Counted(most=16), "fake", "id", answers, tmp_path / "out")
    again = Counted()
    found = from_scorer(again, "fake", "id", answers, tmp_path / "out")
    assert again.seen == 4
    assert np.array_equal(found.p_GMM, whole.p_GMM, equal_nan=True)
    with pytest.raises(DatasetError, match="labelled with judge 'id', not 'other'"):
        from_scorer(Counted(), "fake", "other", answers, tmp_path / "out")


def test_why_pairs_have_no_verdict_is_counted(answers: Answers, tmp_path: Path) -> None:
    def picky(prompt: str, image: bytes) -> float:
        if (value := brightness(prompt, image)) > 4:
            raise ValueError("too bright")
        return value

    found = from_scorer(FakeScorer(picky), "fake", "id", answers, tmp_path / "out")
    assert found.reasons == {"too bright": found.pairs - found.judged}
    assert found.judged < found.pairs


def test_the_oracle_scores_each_image_once(answers: Answers, tmp_path: Path) -> None:
    asked: list[str] = []

    def oracle(prompt: str, image: bytes) -> float:
        if len(asked) == 30:
            raise KeyboardInterrupt
        asked.append(prompt)
        return round(brightness(prompt, image)) / 5

    with pytest.raises(KeyboardInterrupt):
        from_oracle(oracle, "shades", answers, tmp_path / "out")
    with (tmp_path / "out" / "scores.jsonl").open("a") as file:
        file.write('{"prompt": "p19", "sha')  # of a killed process
    asked[:] = asked[:0]
    found = from_oracle(oracle, "shades", answers, tmp_path / "out")
    assert len(asked) == 29
    assert found.p_GMM[0].tolist() == [[0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5]]
    assert found.scores == pytest.approx((0.2, (5 * 0.4 + 14 * 0.6) / 19, 0.8))
    lines = (tmp_path / "out" / "scores.jsonl").read_text().splitlines()
    assert len(lines) == 60
    assert json.loads(lines[0]) == {"judge": "shades"}


def test_votes_of_people_are_averaged(answers: Answers, tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(
        "prompt,first,second,preferred\np0,dark,light,light\np0,light,dark,light\np0,dark,light,tie\n"
        "p2,grey,dark,grey\n"
    )
    found = from_people(path, answers)
    assert found.p_GMM[0, 2, 0] == pytest.approx(2.5 / 3)
    assert found.p_GMM[0, 0, 2] == pytest.approx(0.5 / 3)
    assert found.p_GMM[2, 1, 0] == 1
    assert (found.pairs, found.judged) == (2, 2)


@pytest.mark.parametrize(
    "row", ["px,dark,light,dark", "p0,dark,black,dark", "p0,dark,light,grey", "p0,dark,dark,dark"]
)
def test_a_vote_on_something_else_is_refused(answers: Answers, tmp_path: Path, row: str) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(f"prompt,first,second,preferred\np0,dark,light,dark\n{row}\n")
    with pytest.raises(DatasetError, match="line 3 is not a vote"):
        from_people(path, answers)
