"""Heads, comparisons, losses and log-odds under autocast: float32, as in the engine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from prefrm.engine import Engine
from prefrm.judge import Judge, JudgeSpec, build_head, log_odds, preference_loss
from prefrm.winmatrix import Group
from tests.prefrm.judge.comparing import batch_of, prepared

HALF = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
KINDS = {
    "verdict": {},
    "verdict with ties": {"ties": True},
    "scalar": {"head": "scalar"},
    "scalar with ties": {"head": "scalar", "ties": True},
    "embedding": {"head": "embedding"},
}
KIND = pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)


def chain(head: Any, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> list[torch.Tensor]:
    """All that follows from hidden states, up to the loss."""
    readings = head.read(hidden_RD, answers_AD)
    outcomes = head.compare(readings[0::2], readings[1::2])
    odds, tie = log_odds(outcomes)
    p_N = torch.tensor([1.0, 0.5, 0.0, 0.8])
    loss = preference_loss(outcomes, p_N, torch.tensor([1.0, 2.0, 0.5, 1.0]))
    return [readings, outcomes, odds, loss, *([] if tie is None else [tie])]


@HALF
@KIND
def test_autocast_changes_no_bit_after_the_hidden_states(fields: dict, dtype: torch.dtype):
    torch.manual_seed(0)
    spec = JudgeSpec(base_model="x", **fields)
    head = build_head(spec, hidden=64)
    hidden_RD, answers_AD = torch.randn(8, 64), torch.randn(3 if spec.ties else 2, 64)
    plain = chain(head, hidden_RD, answers_AD)
    with torch.autocast("cpu", dtype=dtype):
        cast = chain(head, hidden_RD, answers_AD)
    for one, other in zip(plain, cast, strict=True):
        assert other.dtype == torch.float32
        assert one.equal(other)


@HALF
@KIND
def test_states_and_outcomes_of_half_precision_are_converted_first(fields: dict, dtype: torch.dtype):
    torch.manual_seed(0)
    spec = JudgeSpec(base_model="x", **fields)
    head = build_head(spec, hidden=64)
    states = torch.randn(8, 64, dtype=dtype), torch.randn(3 if spec.ties else 2, 64, dtype=dtype)
    for one, other in zip(
        chain(head, *(state.float() for state in states)), chain(head, *states), strict=True
    ):
        assert one.equal(other)


@HALF
@pytest.mark.parametrize("fields", [{}, {"attention": "joint"}, {"head": "scalar"}], ids=str)
def test_what_is_trained_on_under_autocast_is_the_engines_head_on_the_same_states(
    tiny_checkpoint: Any, png: Callable[..., bytes], fields: dict, dtype: torch.dtype
):
    """The forward pass runs in half precision; from its last hidden states on, all is as in the engine."""
    torch.manual_seed(0)
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **fields), "cpu")
    images = (png(0), png(1))
    batch = batch_of(judge, "a red kite", prepared(judge, images))
    states: list[tuple[torch.Tensor, ...]] = []
    read = judge.head.read

    def seen(hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        states.append((hidden_RD, answers_AD))
        return read(hidden_RD, answers_AD)

    judge.head.read = seen
    with torch.autocast("cpu", dtype=dtype):
        outcomes = judge(batch)
        loss = judge.loss(outcomes, torch.tensor([1.0, 0.0]))
    expected = judge.outcomes(read(*states[0]), batch.pairs_N2)
    assert outcomes.equal(expected)
    assert loss.equal(judge.loss(expected, torch.tensor([1.0, 0.0])))
    # Rounding in the backbone alone is left between training and the engine.
    matrix = Engine(judge).score([Group(prompt="a red kite", candidates=images)])[0]
    z = (outcomes[0] - outcomes[1]).item() / 2
    assert 1 / (1 + torch.tensor(-z).exp()).item() == pytest.approx(matrix.p[0, 1], abs=0.02)
