"""Every kind of judge and of candidate behind one engine and in one bundle format: what holds for all, and
what tells them apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from prefrm.bundle import load_bundle, write_bundle
from prefrm.engine import Engine
from prefrm.engine.passes import Passes
from prefrm.judge import Judge, JudgeSpec, build_head
from prefrm.winmatrix import CalibrationMap, Group, PowerScaling, TemperatureScaling
from tests.prefrm.candidates import group_for, noise_clip, noise_png
from tests.prefrm.judge.comparing import group_batch
from tests.videos import claiming_frames

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
    "edit late": {"template": "fit-late-v1"},
    "edit scalar": {"head": "scalar", "template": "fit-alone-v1"},
    "video late": {"kind": "video", "frames": 3},
    "text late": {"kind": "text"},
    "text joint": {"kind": "text", "attention": "joint"},
}


@pytest.fixture(params=KINDS)
def judge(tiny_checkpoint, request) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **KINDS[request.param]), "cpu")


@pytest.fixture
def group(judge: Judge) -> Group:
    return group_for(judge, *range(4))


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
    other = replace(group, prompt="x" * 50, candidates=group.candidates[:2])
    order = [2, 0, 3, 1]
    matrix, permuted, _ = engine.score([group, group.permuted(order), other])
    assert permuted.equals(matrix.permuted(order))
    assert engine.score([other, group])[1].equals(matrix)
    twice = engine.score([replace(group, candidates=(*group.candidates[:2], group.candidates[0]))])[0]
    assert twice.p[0, 2] == 0.5 and twice.p[0, 1] == twice.p[2, 1]


@pytest.mark.parametrize("share", [False, True])
def test_other_candidates_change_no_outcome(judge: Judge, group: Group, share: bool):
    """Passes of fixed shapes change no bit; without them the shape of a pass is that of the group."""
    engine, some = Engine(judge, tokens=300, share=share), [3, 0, 1]
    matrix = engine.score([group])[0].subset(some)
    alone = engine.score([replace(group, candidates=tuple(group.candidates[n] for n in some))])[0]
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
    batch = group_batch(judge, group, [(0, 1), (2, 1), (3, 0), (2, 3)])
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
    other = replace(group, prompt="another", candidates=group.candidates[1:])
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


CRITERIA = ("hues", "composition of the whole", "")


@pytest.mark.parametrize("share", [False, True])
def test_criteria_of_one_call_share_what_precedes_them_and_change_no_bit(
    judge: Judge, group: Group, share: bool, monkeypatch: pytest.MonkeyPatch
):
    if not judge.processor.inputs.criterion:
        pytest.skip("this judge reads no criterion")
    rows: list[int] = []
    keep = Passes.keep
    monkeypatch.setattr(
        Passes,
        "keep",
        lambda self, segments, *rest: rows.append(len(segments)) or keep(self, segments, *rest),
    )
    groups = [replace(group, criterion=criterion) for criterion in CRITERIA]
    alone = [Engine(judge, tokens=300, share=share).score([one])[0] for one in groups]
    each = sum(rows) // len(CRITERIA)
    rows.clear()
    other = replace(group, prompt="another")
    # However the groups stand in the call, and whatever is between them.
    found = Engine(judge, tokens=300, share=share).score([groups[0], other, *groups[1:]])
    assert all(matrix.equals(one) for matrix, one in zip((found[0], *found[2:]), alone, strict=True))
    assert not alone[0].equals(alone[1]) and not alone[0].equals(alone[2])
    # Only the two suffixes of a late candidate follow the criterion.
    assert sum(rows) == 2 * each + (len(CRITERIA) - 1) * (8 if judge.spec.attention == "late" else 0)


def test_what_the_judge_does_not_read_is_refused(judge: Judge, group: Group):
    engine, inputs = Engine(judge), judge.processor.inputs
    others = {
        "image": Group(prompt="x", candidates=(noise_png(0), noise_png(1))),
        "video": Group(prompt="x", candidates=(noise_clip(0), noise_clip(1))),
        "text": Group(prompt="x", candidates=("a", None)),
    }
    wrong = [(f"are {kind}s", one) for kind, one in others.items() if kind != judge.spec.kind]
    wrong += [("has a context", replace(group, context=(noise_png(0),)))] * (not inputs.context)
    wrong += [("has a criterion", replace(group, criterion="hues"))] * (not inputs.criterion)
    (alone,) = engine.score([group])
    *refused, judged = engine.score([*(one for _, one in wrong), group])
    assert judged.equals(alone)
    for matrix, (message, one) in zip(refused, wrong, strict=True):
        assert not matrix.valid.any() and set(matrix.errors) == {inputs.refusal(one)}
        assert message in matrix.errors[0]
    nothing = engine.score([Group(prompt="x", candidates=(None, None))])[0]
    assert not nothing.valid.any() and nothing.errors == ("the candidate is missing",) * 2


def test_a_candidate_that_cannot_be_read_costs_its_own_pairs_only(judge: Judge, group: Group):
    a, b, *_ = group.candidates
    hostile = {
        "image": (a[: len(a) // 2], b"RIFF1234AVI garbage", noise_clip(0)),
        "video": (a[: len(a) // 2], noise_png(0), claiming_frames(2**30)),
        "text": ("x" * 9000, "y" * 600, "\ud800"),
    }[judge.spec.kind]
    mixed = replace(group, candidates=(hostile[0], a, hostile[1], b, None, hostile[2]))
    matrix = Engine(judge).score([mixed])[0]
    assert matrix.valid[1, 3] and matrix.valid.sum() == 4
    assert [bool(reason) for reason in matrix.errors] == [True, False, True, False, True, True]
    good = Engine(judge).score([replace(group, candidates=(a, b))])[0]
    assert matrix.p[1, 3] == good.p[0, 1]
