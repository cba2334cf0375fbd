"""Heads on hidden states and readings made up by hand."""

import math

import pytest
import torch

from prefrm.judge import EmbeddingHead, JudgeSpec, ScalarHead, VerdictHead, build_head, log_odds
from prefrm.judge.heads import TIE_STRENGTH


def test_an_untrained_verdict_is_the_difference_of_the_two_logits():
    hidden = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    rows = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    logits = hidden @ rows.T
    torch.testing.assert_close(VerdictHead().read(hidden, rows), logits[:, 0] - logits[:, 1])


def test_the_scale_multiplies_and_naming_the_answers_the_other_way_round_negates():
    head = VerdictHead()
    hidden, answers = torch.randn(3, 4), torch.randn(2, 4)
    plain = head.read(hidden, answers)
    torch.testing.assert_close(head.read(hidden, answers.flip(0)), -plain)
    with torch.no_grad():
        head.log_scale.fill_(math.log(2.0))
    torch.testing.assert_close(head.read(hidden, answers), 2 * plain)


def test_half_precision_states_give_float32_and_the_scale_learns():
    head = VerdictHead()
    out = head.read(torch.ones(1, 4, dtype=torch.bfloat16), torch.stack([torch.ones(4), torch.zeros(4)]))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert head.log_scale.grad is not None
    assert head.log_scale.grad.item() == pytest.approx(4.0)


def test_three_answers_are_the_language_models_own_probabilities_of_them():
    hidden, answers = torch.randn(5, 4), torch.randn(3, 4)
    outcomes = VerdictHead().read(hidden, answers)
    torch.testing.assert_close(outcomes.exp(), (hidden @ answers.T).softmax(-1))
    z, tie = log_odds(outcomes)
    p1, _, p0 = (hidden @ answers.T).softmax(-1).unbind(-1)
    torch.testing.assert_close(z.sigmoid(), p1 + p0 / 2)
    torch.testing.assert_close(tie, p0)


def test_a_scalar_comparison_is_the_difference_of_two_utilities():
    head = ScalarHead(hidden=3, ties=False)
    with torch.no_grad():
        head.weight_D.copy_(torch.tensor([1.0, 0.0, -1.0]))
        head.log_scale.fill_(math.log(2.0))
    u = head.read(torch.tensor([[3.0, 9.0, 1.0], [0.0, 9.0, 1.0]]), torch.empty(0, 3))
    assert u.tolist() == pytest.approx([4.0, -2.0])
    assert head.compare(u[:1], u[1:]).tolist() == pytest.approx([6.0])


def test_bradley_terry_with_ties_by_hand():
    # d = ln 5, so sigmoid(d - ln 5) = 1/2 and sigmoid(-d - ln 5) = 1/26; the tie has the rest.
    head = ScalarHead(hidden=3, ties=True)
    outcomes = head.compare(torch.tensor([math.log(TIE_STRENGTH)]), torch.zeros(1))
    assert outcomes.exp().flatten().tolist() == pytest.approx([1 / 2, 1 / 26, 24 / 52])


@pytest.mark.parametrize("d", [-30.0, -1.0, 0.0, 2.5, 30.0])
def test_the_three_outcomes_of_bradley_terry_with_ties_sum_to_one_and_turn_round(d: float):
    head = ScalarHead(hidden=3, ties=True)
    a, b = torch.tensor([d]), torch.zeros(1)
    here, there = head.compare(a, b), head.compare(b, a)
    assert here.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    torch.testing.assert_close(there[:, [1, 0, 2]], here)
    torch.testing.assert_close(log_odds(there)[0], -log_odds(here)[0])


def test_embeddings_are_unit_vectors_and_their_comparison_is_skew_symmetric():
    head = EmbeddingHead(hidden=5, size=4)
    v = head.read(torch.randn(6, 5), torch.empty(0, 5))
    torch.testing.assert_close(v.norm(dim=-1), torch.ones(6))
    table = head.compare(v[:, None], v[None, :])
    assert torch.equal(table, -table.T)
    assert torch.equal(table.diagonal(), torch.zeros(6))


def test_a_comparison_of_embeddings_is_the_bilinear_form_of_the_paper():
    head = EmbeddingHead(hidden=5, size=4)
    r = torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]])] * 2)
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    expected = ((a @ r.T) * b).sum(-1) / 0.1
    torch.testing.assert_close(head.compare(a, b), expected)


def test_embeddings_can_go_round_in_circles_and_utilities_cannot():
    turn = 2 * math.pi / 3
    v = torch.tensor([[math.cos(n * turn), math.sin(n * turn)] for n in range(3)])
    z = EmbeddingHead(hidden=2, size=2).compare(v, v.roll(-1, 0))
    assert (z > 1).all()
    u = torch.randn(3)
    around = ScalarHead(hidden=2, ties=False).compare(u, u.roll(-1, 0))
    assert around.sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({}, VerdictHead), ({"head": "scalar"}, ScalarHead), ({"head": "embedding"}, EmbeddingHead)],
)
def test_a_specification_names_its_head(fields: dict, kind: type):
    head = build_head(JudgeSpec(base_model="x", **fields), hidden=16)
    assert type(head) is kind
    assert head.log_scale.requires_grad
