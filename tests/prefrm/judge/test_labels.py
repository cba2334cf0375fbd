"""Answers as sequences of tokens: where they branch, and their probabilities by hand."""

import pytest
import torch

from prefrm.errors import ConfigError
from prefrm.judge import labels as module
from prefrm.judge.labels import Labels, label_log_probs

IMAGE, SPACE, ONE, TWO, IS, BOTH, NEITHER = range(7)


@pytest.mark.parametrize(
    ("answers", "path", "branches"),
    [
        ([[[ONE]], [[TWO]]], (), (((0, ONE),), ((0, TWO),))),
        ([[[IMAGE, SPACE, ONE, IS]], [[IMAGE, SPACE, TWO, IS]]], (IMAGE, SPACE), (((2, ONE),), ((2, TWO),))),
        (
            [[[IMAGE, SPACE, ONE]], [[IMAGE, SPACE, TWO]], [[BOTH, IS], [NEITHER, IS]]],
            (IMAGE, SPACE),
            (((2, ONE),), ((2, TWO),), ((0, BOTH), (0, NEITHER))),
        ),
        # Spellings of one answer need not be told apart.
        ([[[ONE], [ONE, IS]], [[TWO]]], (), (((0, ONE),), ((0, TWO),))),
        ([], (), ()),
    ],
)
def test_answers_branch_off_where_a_token_tells_them_apart(answers, path, branches):
    labels = Labels.of(answers)
    assert labels.path == path and labels.branches == branches
    assert labels.is_plain == (not path and all(len(one) == 1 for one in branches))


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([[[ONE]], [[ONE, IS]]], "one is the start of another"),
        ([[[ONE, IS]], [[ONE]]], "one is the start of another"),
        ([[[ONE]], [[ONE]]], "one is the start of another"),
        ([[[ONE, IS]], [[ONE, BOTH]], [[TWO, IS], [TWO, BOTH]]], None),
        ([[[ONE, IS], [TWO, IS]], [[ONE, BOTH], [TWO, BOTH]]], "do not branch off one sequence"),
    ],
)
def test_answers_that_one_pass_cannot_tell_apart_are_refused(answers, message: str | None):
    if message is None:
        assert Labels.of(answers).branches[2] == ((0, TWO),)
        return
    with pytest.raises(ConfigError, match=message):
        Labels.of(answers)


@pytest.mark.parametrize("chunk", [2, 100])
def test_an_answer_has_the_probability_of_its_tokens_one_after_another(chunk: int, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    hidden, weight = torch.randn(2, 3, 8), torch.randn(7, 8)
    labels = Labels.of([[[IMAGE, SPACE, ONE]], [[IMAGE, SPACE, TWO]], [[BOTH], [NEITHER]]])
    p = (hidden @ weight.T).softmax(dim=-1)
    start = p[:, 0, IMAGE] * p[:, 1, SPACE]
    expected = [start * p[:, 2, ONE], start * p[:, 2, TWO], p[:, 0, BOTH] + p[:, 0, NEITHER]]
    found = label_log_probs(hidden, weight, labels)
    torch.testing.assert_close(found.exp(), torch.stack(expected, dim=-1))


def test_it_is_computed_in_float32_under_autocast_and_has_a_gradient():
    hidden, weight = torch.randn(2, 1, 8, dtype=torch.bfloat16, requires_grad=True), torch.randn(7, 8)
    labels = Labels.of([[[ONE]], [[TWO]]])
    expected = (hidden.float() @ weight.T).log_softmax(dim=-1)[:, 0, [ONE, TWO]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = label_log_probs(hidden, weight, labels)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    found.sum().backward()
    assert hidden.grad is not None and hidden.grad.abs().min() > 0
