"""prefrm's own client of generative judges asks prefrm's server: the judge's matrix comes back."""

import hashlib
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from prefrm.errors import RequestError
from prefrm.scorers import chat
from prefrm.winmatrix import Group, Inputs, WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

ONE_IMAGE = {"vqascore", "rating"}
SOURCE_IMAGE = {"unifiedreward-edit"}
TEXTS = {"plain-text"}
ASKED = sorted(chat.DIALECTS.keys() - ONE_IMAGE - SOURCE_IMAGE - TEXTS)


class Intransitive:
    """Log-odds within `most` that follow from the prompt and both images, and a bonus for the first shown."""

    def __init__(self, most=12.0, tie=None):
        self.most, self.tie = most, tie

    def score(self, groups):
        return [
            WinMatrix.from_order_logits(self._logits(group), tie=self._tie(group.size)) for group in groups
        ]

    def _tie(self, size):
        return None if self.tie is None else np.full((size, size), self.tie)

    def _logits(self, group):
        return np.array(
            [[self._log_odds(group.prompt, a, b) + 0.4 for b in group.candidates] for a in group.candidates]
        )

    def _log_odds(self, prompt, a, b):
        low, high = sorted((a, b))
        share = int.from_bytes(hashlib.sha256(prompt.encode() + low + high).digest()[:4], "big") / 2**32
        return 0.0 if a == b else self.most * (2 * share - 1) * (1 if a == low else -1)


@contextmanager
def endpoint(judge):
    with background(JudgeServer(judge, ModelInfo(name="judge"))) as served:
        yield f"chat+http://{served.http}/v1"


@pytest.fixture(scope="module")
def certain():
    with endpoint(Intransitive()) as url:
        yield url


@pytest.mark.parametrize("dialect", ASKED)
def test_every_dialect_about_two_images_gives_back_the_matrix(certain, png, dialect):
    images = tuple(png(shade) for shade in (10, 90, 200, 30))
    groups = [Group(prompt=prompt, candidates=images) for prompt in ("a [red] cube", "two cubes")]
    expected = Intransitive().score(groups)
    # Certain and uncertain pairs that the prompt decides: neither a verdict nor a lost caption would pass.
    assert all(np.abs(matrix.p - 0.5).max() > 0.49 for matrix in expected)
    assert np.abs(expected[0].p - expected[1].p).max() > 0.1
    with chat.ChatScorer.connect(f"{certain}?dialect={dialect}") as judge:
        for matrix, wanted in zip(judge.score(groups), expected, strict=True):
            assert matrix.valid.all()
            np.testing.assert_allclose(matrix.p, wanted.p, rtol=0, atol=1e-6)


def test_a_criterion_is_the_judges_or_refused(png):
    class ByCriterion(Intransitive):
        def inputs(self):
            return Inputs(criterion=True)

        def score(self, groups):
            return super().score([replace(one, prompt=f"{one.prompt} by {one.criterion}") for one in groups])

    images = tuple(png(shade) for shade in (10, 90, 200))
    group = Group(prompt="a\nCriterion: b", candidates=images)
    groups = [replace(group, criterion=name) for name in ("", "hue", "size")]
    expected = ByCriterion().score(groups)
    assert np.abs(expected[1].p - expected[2].p).max() > 0.1
    with endpoint(ByCriterion()) as url, chat.ChatScorer.connect(url) as judge:
        for matrix, wanted in zip(judge.score(groups), expected, strict=True):
            np.testing.assert_allclose(matrix.p, wanted.p, rtol=0, atol=1e-6)
    refused = pytest.raises(RequestError, match="the group has a criterion, which this judge does not read")
    with endpoint(Intransitive()) as url, chat.ChatScorer.connect(url) as judge, refused:
        judge.score(groups[1:])


@pytest.mark.parametrize("most, tie", [(1.0, 0.3), (1.0, 0.6), (0.0, None), (0.0, 0.3)])
def test_ties_come_back_or_count_half_to_each(png, most, tie):
    group = Group(prompt="a cube", candidates=tuple(png(shade) for shade in (10, 90, 200)))
    judge = Intransitive(most, tie)
    (expected,) = judge.score([group])
    with endpoint(judge) as url:
        for name in ASKED:
            with chat.ChatScorer.connect(f"{url}?dialect={name}") as scorer:
                (matrix,) = scorer.score([group])
            assert matrix.valid.all(), (name, matrix.reason(0, 1))
            np.testing.assert_allclose(matrix.p, expected.p, rtol=0, atol=1e-6, err_msg=name)
            if tie and chat.DIALECTS[name].ties and most:
                np.testing.assert_allclose(matrix.tie[0, 1:], expected.tie[0, 1:], atol=1e-6, err_msg=name)
