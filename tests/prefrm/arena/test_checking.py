"""Checklists on the images of models: what is kept, and the verdicts that follow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from prefrm.arena import ArenaPrompt, Check
from prefrm.arena.checked import CheckedImage
from prefrm.arena.checking import from_checks
from prefrm.arena.checklists import ImageToCheck
from prefrm.arena.images import Answers, ImageFolder, read_answers
from prefrm.errors import DatasetError
from tests.prefrm.candidates import noise_png

CHECKS = tuple(Check(question=f"q{n}", dimension="D") for n in range(2))
PROMPTS = (
    *(ArenaPrompt(id=str(n), text=f"prompt {n}", checks=CHECKS) for n in range(12)),
    ArenaPrompt(id="plain", text="without checks"),
)


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    """Images of two models, those of model b with a width of 16 pixels."""
    for m, model in enumerate("ab"):
        (tmp_path / model).mkdir()
        for n, prompt in enumerate(PROMPTS):
            (tmp_path / model / f"{prompt.id}.png").write_bytes(noise_png(100 * m + n, 48 - 32 * m))
    return read_answers(PROMPTS, [ImageFolder.find(model, tmp_path / model, PROMPTS) for model in "ab"])


class Reader:
    """Of a wide image both checks hold, of a narrow one the first; it cannot read images of prompt 3."""

    def __init__(self, most: int = 100, name: str = "reader") -> None:
        self.asked: list[ImageToCheck] = []
        self.most, self.name = most, name

    def identity(self) -> str:
        return self.name

    def check(self, images: Sequence[ImageToCheck]) -> list[CheckedImage]:
        if len(self.asked) + len(images) > self.most:
            raise KeyboardInterrupt
        self.asked += images
        return [
            CheckedImage(prompt=one.prompt.id, image=one.image, reason="no list of scores", asked=3)
            if one.prompt.id == "3"
            else CheckedImage(
                prompt=one.prompt.id, image=one.image, verdicts=(1.0, float(len(one.data) > 3000))
            )
            for one in images
        ]


def test_the_image_of_which_more_checks_hold_is_preferred(answers: Answers, tmp_path: Path) -> None:
    found, checked = from_checks(Reader(), "reader", answers, tmp_path / "out")
    assert found.scores == (1.0, 0.5)
    assert np.array_equal(found.p_GMM[0], [[0.5, 1], [0, 0.5]])
    # Neither an answer that could not be read nor a prompt without checks gives a verdict.
    assert np.isnan(found.p_GMM[[3, 12], 0, 1]).all()
    assert found.reasons == {"no list of scores": 2}
    assert [len(checked[model]) for model in "ab"] == [12, 12]
    assert checked["a"][3] == CheckedImage(prompt="3", image=0, reason="no list of scores", asked=3)


def test_a_stopped_run_asks_about_no_image_again(answers: Answers, tmp_path: Path) -> None:
    whole, of_whole = from_checks(Reader(), "reader", answers, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        from_checks(Reader(most=16), "reader", answers, tmp_path / "out")
    again = Reader()
    found, checked = from_checks(again, "reader", answers, tmp_path / "out")
    assert len(again.asked) == 8
    assert np.array_equal(found.p_GMM, whole.p_GMM, equal_nan=True)
    assert checked == of_whole
    with pytest.raises(DatasetError, match=r"not of \{'judge': 'other'\}"):
        from_checks(Reader(name="other"), "reader", answers, tmp_path / "out")
