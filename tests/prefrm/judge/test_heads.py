"""Heads on hidden states and readings made up by hand."""

import math

import pytest
import torch

from prefrm.judge import (
    AnswerHead,
    EmbeddingHead,
    JudgeSpec,
    MlpHead,
    ScalarHead,
    VerdictHead,
    build_head,
    log_odds,
)
from prefrm.judge.heads import TIE_STRENGTH


def verdicts(head: VerdictHead, hidden: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    readings = head.read(hidden, answers)
    return head.compare(readings, readings)


def test_an_untrained_verdict_is_the_difference_of_the_two_logits():
    hidden = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    rows = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    logits = hidden @ rows.T
    torch.testing.assert_close(verdicts(VerdictHead(), hidden, rows), logits[:, 0] - logits[:, 1])


def test_the_scale_multiplies_and_naming_the_answers_the_other_way_round_negates():
    head = VerdictHead()
    hidden, answers = torch.randn(3, 4), torch.randn(2, 4)
    plain = verdicts(head, hidden, answers)
    torch.testing.assert_close(verdicts(head, hidden, answers.flip(0)), -plain)
    with torch.no_grad():
        head.log_scale.fill_(math.log(2.0))
    torch.testing.assert_close(verdicts(head, hidden, answers), 2 * plain)


def test_half_precision_states_give_float32_and_the_scale_learns():
    head = VerdictHead()
    out = verdicts(head, torch.ones(1, 4, dtype=torch.bfloat16), torch.stack([torch.ones(4), torch.zeros(4)]))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert head.log_scale.grad is not None
    assert head.log_scale.grad.item() == pytest.approx(4.0)


def test_three_answers_are_the_language_models_own_probabilities_of_them():
    hidden, answers = torch.randn(5, 4), torch.randn(3, 4)
    outcomes = verdicts(VerdictHead(), hidden, answers)
    torch.testing.assert_close(outcomes.exp(), (hidden @ answers.T).softmax(-1))
    z, tie = log_odds(outcomes)
    p1, _, p0 = (hidden @ answers.T).softmax(-1).unbind(-1)
    torch.testing.assert_close(z.sigmoid(), p1 + p0 / 2)
    torch.testing.assert_close(tie, p0)


@pytest.mark.parametrize("count", [2, 3])
def test_a_verdict_of_log_probabilities_is_that_of_logits(count: int):
    hidden, answers = torch.randn(5, 4), torch.randn(count, 4)
    head = VerdictHead(scale=2.0)
    log_probs = torch.randn(5, 1) + hidden @ answers.T
    torch.testing.assert_close(head.compare(log_probs, log_probs), verdicts(head, hidden, answers))


def test_a_utility_of_answers_is_the_log_odds_of_yes():
    head = AnswerHead(ties=False)
    probabilities = torch.tensor([[0.6, 0.2], [0.01, 0.04]])
    readings = probabilities.log()
    torch.testing.assert_close(head.utilities(readings).exp(), torch.tensor([3.0, 0.25]))
    torch.testing.assert_close(head.compare(readings[:1], readings[1:]).exp(), torch.tensor([12.0]))
    with_ties = AnswerHead(ties=True).compare(readings[:1], readings[1:])
    torch.testing.assert_close(log_odds(with_ties)[1], log_odds(bradley_terry_with_ties(math.log(12.0)))[1])


def bradley_terry_with_ties(difference: float) -> torch.Tensor:
    head = ScalarHead(hidden=3, ties=True)
    return head.compare(torch.tensor([difference]), torch.tensor([0.0]))


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


def test_an_embedding_may_keep_its_length():
    head = EmbeddingHead(hidden=3, size=2, unit=False)
    hidden = torch.randn(4, 3)
    torch.testing.assert_close(head.read(hidden, torch.empty(0, 3)), hidden @ head.weight_MD.T)


def perceptron(mean: float, log_deviation: float, **fields) -> tuple[MlpHead, torch.Tensor]:
    """An uncertain head of one hidden number, and the readings of two candidates that have 1 and 2 there."""
    head = MlpHead(hidden=1, widths=(1,), uncertainty="integrate", **fields).eval()
    with torch.no_grad():
        for layers in head.layers:
            layers[0].weight.fill_(1.0), layers[0].bias.zero_()
            layers[-1].weight.copy_(torch.tensor([[mean], [log_deviation]])), layers[-1].bias.zero_()
    return head, head.read(torch.tensor([[1.0], [2.0]]), torch.empty(0, 1))


def test_a_difference_of_uncertain_utilities_is_normal():
    head, readings = perceptron(3.0, math.log(2.0))
    assert readings.flatten().tolist() == pytest.approx([3.0, math.log(2), 6.0, 2 * math.log(2)])
    with torch.no_grad():
        head.log_scale.fill_(math.log(10.0))
    assert head.utilities(readings).tolist() == pytest.approx([30.0, 60.0])
    # Standard deviations of 2 and 4.
    found = head.compare(readings[:1], readings[1:])
    assert found.flatten().tolist() == pytest.approx([-30.0, 10 * math.sqrt(2**2 + 4**2)])
    head.uncertainty = "ignore"
    assert head.compare(readings[:1], readings[1:]).tolist() == pytest.approx([-30.0])


def test_the_variance_of_several_readouts_is_the_sum_of_theirs():
    head, readings = perceptron(3.0, math.log(2.0), readouts=2)
    # Of one candidate, whose readouts have standard deviations of 2 and 4.
    found = head.compare(readings[None], readings[None])
    assert found.flatten().tolist() == pytest.approx([0.0, math.sqrt(2 * (2**2 + 4**2))])


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 3.0), (0.7, 0.2), (-2.0, 2.0), (5.0, 4.0)])
def test_uncertainty_is_integrated_over(mean: float, deviation: float):
    z, tie = log_odds(torch.tensor([[mean, deviation]]))
    grid = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    weights = torch.exp(-(grid**2) / 2)
    expected = (torch.sigmoid(mean + deviation * grid) * weights).sum() / weights.sum()
    assert z.sigmoid().item() == pytest.approx(expected.item(), abs=0.02)
    assert tie is None


@pytest.mark.parametrize("widths", [(4,), (5, 3)])
def test_a_perceptron_is_linear_layers_with_relu_between_them(widths: tuple[int, ...]):
    head = MlpHead(hidden=6, widths=widths).eval()
    hidden = x = torch.randn(3, 6)
    *inner, last = (layer for layer in head.layers[0] if isinstance(layer, torch.nn.Linear))
    assert [layer.out_features for layer in inner] == list(widths)
    for layer in inner:
        x = (x @ layer.weight.T + layer.bias).clamp(min=0)
    readings = head.read(hidden, torch.empty(0, 6))
    torch.testing.assert_close(readings, x @ last.weight.T + last.bias)
    d = head.compare(readings[:1], readings[1:2])
    torch.testing.assert_close(d, readings[0] - readings[1])
    # While it learns, some numbers of the first hidden layer are dropped.
    assert isinstance(head.layers[0][2], torch.nn.Dropout)


def test_each_readout_has_its_own_weights_and_their_utilities_add_up():
    """A candidate's readings are of all readouts by all weights, of which the diagonal counts."""
    head = ScalarHead(hidden=2, ties=False, readouts=2)
    with torch.no_grad():
        head.weight_D.copy_(torch.tensor([[1.0, 0.0], [0.0, 10.0]]))
    readings = head.read(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.empty(0, 2))
    assert head.utilities(readings[None]).tolist() == [1.0 + 40.0]
    uncertain = MlpHead(hidden=2, widths=(3,), uncertainty="ignore", readouts=2).eval()
    readings = uncertain.read(torch.randn(2, 2), torch.empty(0, 2))
    assert readings.shape == (2, 2, 2)
    expected = readings[0, 0, 0] + readings[1, 1, 0]
    torch.testing.assert_close(uncertain.utilities(readings[None]), expected[None])


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
    [
        ({}, VerdictHead),
        ({"head": "scalar"}, ScalarHead),
        ({"head": "scalar", "mlp": (4, 2), "uncertainty": "integrate"}, MlpHead),
        ({"head": "embedding"}, EmbeddingHead),
    ],
)
def test_a_specification_names_its_head(fields: dict, kind: type):
    head = build_head(JudgeSpec(base_model="x", **fields), hidden=16)
    assert type(head) is kind
    assert head.log_scale.requires_grad
