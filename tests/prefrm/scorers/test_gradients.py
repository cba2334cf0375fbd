"""Differentiable scorers by name: a served judge, a bundle, and the mean of several."""

import pytest
import torch

from prefrm.bundle import write_bundle
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.judge import DifferentiableJudge, Judge, JudgeSpec
from prefrm.scorers import ScorerFile, Source, write_scorer_file
from prefrm.scorers.gradients import open_gradient
from prefrm.winmatrix import CalibrationRecord, Group, TemperatureScaling
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

PROMPT = "a red square"


@pytest.fixture
def scalar(tiny_checkpoint):
    torch.manual_seed(1)
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), head="scalar"), "cpu")
    with torch.no_grad():
        for parameter in judge.head.parameters():
            parameter.normal_()
    return judge


@pytest.fixture
def bundle(scalar, tmp_path):
    half = CalibrationRecord.of(TemperatureScaling(temperature=0.5), split="validation", pairs=9)
    write_bundle(
        tmp_path / "bundle", scalar, calibration=half, data_fingerprint="", metrics={}, card="# A judge\n"
    )
    return tmp_path / "bundle"


def differentiated(scorer, weights=(1.0, -2.0)):
    """Utilities, and the vector-Jacobian product of two numbers."""
    pixels = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(0)).requires_grad_()
    utilities = scorer.utilities(PROMPT, pixels)
    (product,) = torch.autograd.grad(utilities @ torch.tensor(weights), pixels)
    return utilities.detach(), product


def test_a_served_judge_has_the_gradient_of_the_judge_itself(scalar, png):
    """With the calibration of its engine, beside which it works."""
    engine = Engine(scalar, calibration=TemperatureScaling(temperature=0.5))
    direct = DifferentiableJudge(scalar, calibration=engine.calibration)
    expected, product = differentiated(direct)
    assert product.abs().max() > 0
    group = Group(prompt=PROMPT, candidates=(png(1), png(2)))
    (before,) = engine.score([group])
    server = JudgeServer(engine, ModelInfo(name="judge"), gradient=engine.differentiable())
    with background(server) as addresses:
        remote = open_gradient(addresses.http_url)
        utilities, remote_product = differentiated(remote)
        with torch.no_grad():
            assert not remote.utilities(PROMPT, torch.rand(2, 3, 32, 32)).requires_grad
    torch.testing.assert_close(utilities, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(remote_product, product, atol=1e-6, rtol=1e-5)
    assert engine.score([group])[0].equals(before)


def test_an_ensemble_has_the_mean_of_the_gradients(bundle, scalar, tmp_path):
    other = tmp_path / "other"
    write_bundle(other, scalar, calibration=None, data_fingerprint="", metrics={}, card="# A judge\n")
    members = (Source(scorer=str(bundle), weight=3.0), Source(scorer=str(other)))
    path = tmp_path / "ensemble.yaml"
    tenth = CalibrationRecord.of(TemperatureScaling(temperature=0.1), split="v", pairs=1)
    write_scorer_file(ScorerFile(scorers=members, calibration=tenth), path)
    plain, plain_product = differentiated(DifferentiableJudge(scalar))
    utilities, product = differentiated(open_gradient(path, device="cpu"))
    # The first member's own temperature is 1/2.
    factor = (3 * 2 + 1) / 4 / 0.1
    torch.testing.assert_close(utilities, factor * plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(product, factor * plain_product, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (ScorerFile(scorers=(Source(scorer="chat+http://h/v1"),)), "a chat endpoint has no gradient"),
        (
            ScorerFile(scorers=(Source(scorer="a"), Source(scorer="b")), combine="worst"),
            "combine worst has no gradient",
        ),
        (
            ScorerFile(
                scorers=(Source(scorer="a"),),
                calibration=CalibrationRecord(name="power", parameters={"temperature": 1.0, "power": 2.0}),
            ),
            "power 2 has no gradient; only a temperature has one",
        ),
    ],
)
def test_what_has_no_gradient_is_refused_before_anything_is_loaded(file, message, tmp_path):
    write_scorer_file(file, tmp_path / "s.yaml")
    with pytest.raises(ConfigError, match=message):
        open_gradient(tmp_path / "s.yaml")
