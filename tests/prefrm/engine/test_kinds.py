"""Every kind of judge behind one engine and in one bundle format: what holds for all, and what tells them
apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prefrm.bundle import load_bundle, write_bundle
from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec, build_head
from prefrm.winmatrix import CalibrationMap, Group, PowerScaling, TemperatureScaling
from tests.prefrm.judge.comparing import batch_of, prepared

PROMPT = "two dogs and a red kite"
KINDS = {
    "verdict late": {},
    "verdict joint": {"attention": "joint"},
    "verdict with ties": {"ties": True},
    "scalar": {"head": "scalar"},
    "scalar with ties": {"head": "scalar", "ties": True, "template": "rate-twice-v1"},
    "scalar with uncertainty": {
        "head": "scalar",
        "mlp": (8, 4),
        "uncertainty": "integrate",
        "positions": "sequential",
        "readouts": ("<|Reward|>",),
        "template": "rate-token-v1",
    },
    "embedding": {"head": "embedding", "embedding_dim": 4},
}


@pytest.fixture(params=KINDS)
def judge(tiny_checkpoint, request) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **KINDS[request.param]), "cpu")


@pytest.fixture
def group(png) -> Group:
    sizes = [(48, 32), (32, 32), (16, 64)]
    return Group(prompt=PROMPT, candidates=tuple(png(n, *sizes[n % 3]) for n in range(4)))


def test_a_matrix_is_exact_and_its_extras_are_what_the_judge_knows(judge: Judge, group: Group):
    with torch.no_grad():
        # Random weights have faint opinions.
        judge.head.log_scale.add_(1.5)
    matrix = Engine(judge).score([group])[0]
    off = ~np.eye(4, dtype=bool)
    assert matrix.valid.all()
    assert np.array_equal(matrix.p + matrix.p.T, np.ones((4, 4), np.float32))
    assert matrix.p[off].std() > 1e-3
    assert np.isfinite(matrix.order_gap[off]).all() == judge.spec.is_pairwise
    assert np.isfinite(matrix.tie[off]).all() == judge.spec.ties
    if judge.spec.ties:
        # A tie counts half to each, so it is at most twice the smaller side.
        assert np.all(matrix.tie[off] <= 2 * np.minimum(matrix.p, matrix.p.T)[off] + 1e-6)
        assert np.all(matrix.tie.diagonal() == 1)


@pytest.mark.parametrize("share", [False, True])
def test_permutations_companions_and_duplicates_change_no_bit(judge: Judge, group: Group, share: bool):
    engine = Engine(judge, tokens=300, share=share)
    other = Group(prompt="x" * 50, candidates=group.candidates[:2])
    order = [2, 0, 3, 1]
    matrix, permuted, _ = engine.score([group, group.permuted(order), other])
    assert permuted.equals(matrix.permuted(order))
    assert engine.score([other, group])[1].equals(matrix)
    twice = engine.score([Group(prompt=PROMPT, candidates=(*group.candidates[:2], group.candidates[0]))])[0]
    assert twice.p[0, 2] == 0.5 and twice.p[0, 1] == twice.p[2, 1]


@pytest.mark.parametrize("share", [False, True])
def test_other_candidates_change_no_outcome(judge: Judge, group: Group, share: bool):
    """Passes of fixed shapes change no bit; without them the shape of a pass is that of the group."""
    engine, some = Engine(judge, tokens=300, share=share), [3, 0, 1]
    matrix = engine.score([group])[0].subset(some)
    alone = engine.score([Group(prompt=PROMPT, candidates=tuple(group.candidates[n] for n in some))])[0]
    for name in ("p", "order_gap", "tie"):
        found, wanted = getattr(alone, name), getattr(matrix, name)
        np.testing.assert_allclose(found, wanted, atol=0 if share else 1e-6, rtol=0)


def test_a_temperature_flattens_and_turns_nothing_round(judge: Judge, group: Group):
    sharp, flat = (
        Engine(judge, calibration=c).score([group])[0] for c in (None, TemperatureScaling(temperature=4.0))
    )
    assert np.array_equal(np.sign(sharp.p - 0.5), np.sign(flat.p - 0.5))
    assert np.abs(flat.p - 0.5).sum() < np.abs(sharp.p - 0.5).sum()
    logit = [np.log(m.p) - np.log(1 - m.p) for m in (sharp, flat)]
    np.testing.assert_allclose(logit[1] * 4, logit[0], atol=1e-4)


@pytest.mark.parametrize(
    "calibration",
    [
        TemperatureScaling(temperature=0.3),
        TemperatureScaling(temperature=3.0),
        PowerScaling(temperature=0.6, power=1.4),
    ],
    ids=CalibrationMap.describe,
)
def test_calibrating_a_matrix_is_scoring_with_the_calibration(
    judge: Judge, group: Group, calibration: CalibrationMap
):
    plain, scored = (Engine(judge, calibration=c).score([group])[0] for c in (None, calibration))
    afterwards = plain.calibrated(calibration)
    for name in ("p", "tie", "order_gap"):
        np.testing.assert_allclose(getattr(afterwards, name), getattr(scored, name), atol=1e-5)
    if judge.spec.ties:
        smaller = np.minimum(scored.p, scored.p.T)
        assert np.all(scored.tie <= 2 * smaller + 1e-6)


def test_a_bundle_holds_every_kind(judge: Judge, group: Group, tmp_path):
    with torch.no_grad():
        judge.head.log_scale.add_(0.3)
    write_bundle(
        tmp_path / "b", judge, calibration=None, data_fingerprint="f" * 64, metrics={}, card="# A judge\n"
    )
    loaded = load_bundle(tmp_path / "b", "cpu")
    assert loaded.judge.spec == judge.spec
    assert Engine(loaded.judge).score([group])[0].equals(Engine(judge).score([group])[0])


def test_a_group_learns_in_one_pass(judge: Judge, group: Group):
    """Every kind is trained by the same call: a group's comparisons in, one loss out."""
    batch = batch_of(judge, PROMPT, prepared(judge, group.candidates), [(0, 1), (2, 1), (3, 0), (2, 3)])
    p = torch.tensor([1.0, 0.0, 0.5, 1.0])
    parameters = [parameter for parameter in judge.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for _ in range(12):
        loss = judge.loss(judge.train()(batch), p, torch.ones(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_a_heads_weights_must_be_those_of_its_kind(tiny_checkpoint):
    spec = JudgeSpec(base_model=str(tiny_checkpoint), head="scalar")
    scalar, embedding = (
        build_head(replace(spec, head=head, template=""), 8) for head in ("scalar", "embedding")
    )
    with pytest.raises(RuntimeError, match="weight_D"):
        embedding.load_state_dict(scalar.state_dict())


def test_groups_that_are_scored_between_passes_change_no_bit(judge: Judge, group: Group):
    engine, between = Engine(judge, tokens=300), []
    other = Group(prompt="another", candidates=group.candidates[1:])
    alone = engine.score([group, other])

    def score_another() -> None:
        engine.on_pass = None
        between.append(engine.score([other])[0])
        engine.on_pass = score_another

    engine = Engine(judge, tokens=300)
    engine.on_pass = score_another
    assert engine.score([group])[0].equals(alone[0])
    assert len(between) > 3
    assert all(matrix.equals(alone[1]) for matrix in between)
