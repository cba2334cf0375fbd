"""Probabilities of yes by a judge on this machine: against the win matrix of its engine."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from prefrm.engine import Engine, YesNoEngine
from prefrm.errors import ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import encode_png
from prefrm.questions import ImageQuestion, YesNoJudge
from prefrm.winmatrix import Group
from tests.prefrm.judge.families import save_checkpoint

RNG = np.random.default_rng(0)
# Of a size that the judge does not change.
IMAGES = [encode_png(Image.fromarray(RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8))) for _ in range(3)]


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> dict[str, Engine]:
    base = save_checkpoint(tmp_path_factory.mktemp("qwen"), "qwen2_5_vl")
    found = {}
    for name, fields in {"answers": {"template": "shows-v1"}, "scalar": {}}.items():
        torch.manual_seed(0)
        judge = Judge.from_base(
            JudgeSpec(base_model=str(base), head="scalar", **fields), "cpu", torch.float32
        )
        found[name] = Engine(judge)
    return found


def test_log_odds_of_yes_differ_as_the_engine_compares(engines):
    judge = YesNoEngine(engines["answers"])
    assert isinstance(judge, YesNoJudge) and judge.identity() == engines["answers"].identity()
    p = [one.value for one in judge.probabilities([ImageQuestion(text="a cat", image=one) for one in IMAGES])]
    log_odds = np.log(p) - np.log1p(-np.array(p))
    (matrix,) = engines["answers"].score([Group(prompt="a cat", candidates=tuple(IMAGES))])
    wanted = np.log(matrix.p / matrix.p.T)
    assert np.abs(wanted).max() > 1e-4
    np.testing.assert_allclose(log_odds[:, None] - log_odds, wanted, rtol=0, atol=2e-6)


def test_what_cannot_be_read_has_a_reason(engines):
    questions = [ImageQuestion(text="a cat", image=b"none"), ImageQuestion(text="x" * 9000, image=IMAGES[0])]
    found = YesNoEngine(engines["answers"]).probabilities(questions)
    assert all(math.isnan(one.value) and one.reason for one in found)


def test_a_judge_that_does_not_answer_is_refused(engines):
    with pytest.raises(ConfigError, match="does not answer yes or no"):
        YesNoEngine(engines["scalar"])
