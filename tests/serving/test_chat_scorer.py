"""prefrm's own client of generative judges asks prefrm's server: the judge's matrix comes back."""

import hashlib

import numpy as np
import pytest

from prefrm.winmatrix import Group, WinMatrix
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

chat = pytest.importorskip("prefrm.scorers.chat")

ONE_IMAGE = {"vqascore", "rating"}
SOURCE_IMAGE = {"unifiedreward-edit"}
ASKED = sorted(chat.DIALECTS.keys() - ONE_IMAGE - SOURCE_IMAGE)


class Intransitive:
    """Log-odds in [-12, 12] that follow from the prompt and both images, and a bonus for the first shown."""

    def score(self, groups):
        return [WinMatrix.from_order_logits(self._logits(group)) for group in groups]

    def _logits(self, group):
        return np.array(
            [[self._log_odds(group.prompt, a, b) + 0.4 for b in group.images] for a in group.images]
        )

    def _log_odds(self, prompt, a, b):
        low, high = sorted((a, b))
        share = int.from_bytes(hashlib.sha256(prompt.encode() + low + high).digest()[:4], "big") / 2**32
        return 0.0 if a == b else (24 * share - 12) * (1 if a == low else -1)


@pytest.fixture(scope="module")
def endpoint():
    with background(JudgeServer(Intransitive(), ModelInfo(name="judge"))) as served:
        yield f"chat+http://{served.http}/v1"


@pytest.mark.parametrize("dialect", ASKED)
def test_every_dialect_about_two_images_gives_back_the_matrix(endpoint, png, dialect):
    images = tuple(png(shade) for shade in (10, 90, 200, 30))
    groups = [Group(prompt=prompt, images=images) for prompt in ("a [red] cube", "two cubes")]
    expected = Intransitive().score(groups)
    # Certain and uncertain pairs that the prompt decides: neither a verdict nor a lost caption would pass.
    assert all(np.abs(matrix.p - 0.5).max() > 0.49 for matrix in expected)
    assert np.abs(expected[0].p - expected[1].p).max() > 0.1
    with chat.ChatScorer.connect(f"{endpoint}?dialect={dialect}") as judge:
        for matrix, wanted in zip(judge.score(groups), expected, strict=True):
            assert matrix.valid.all()
            np.testing.assert_allclose(matrix.p, wanted.p, rtol=0, atol=1e-6)
