"""The verdict head is the difference of two output rows, times a positive scale."""

import pytest
import torch

from prefrm.judge import VerdictHead


def test_an_untrained_head_gives_the_difference_of_the_two_logits():
    hidden = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    rows = torch.tensor([[3.0, 1.0], [1.0, 2.0]])
    logits = hidden @ rows.T
    torch.testing.assert_close(VerdictHead()(hidden, rows[0], rows[1]), logits[:, 0] - logits[:, 1])


def test_the_scale_multiplies_and_naming_the_answers_the_other_way_round_negates():
    head = VerdictHead()
    hidden, first, second = torch.randn(3, 4), torch.randn(4), torch.randn(4)
    plain = head(hidden, first, second)
    torch.testing.assert_close(head(hidden, second, first), -plain)
    with torch.no_grad():
        head.log_scale.fill_(torch.log(torch.tensor(2.0)))
    torch.testing.assert_close(head(hidden, first, second), 2 * plain)


def test_half_precision_states_give_float32_and_the_scale_learns():
    head = VerdictHead()
    out = head(torch.ones(1, 4, dtype=torch.bfloat16), torch.ones(4), torch.zeros(4))
    assert out.dtype == torch.float32
    out.sum().backward()
    assert head.log_scale.grad is not None
    assert head.log_scale.grad.item() == pytest.approx(4.0)
