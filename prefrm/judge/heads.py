"""Heads: from the last hidden state of each readout to outcomes. Independent of tokenizer and images.

A head reads each hidden state (`read`) and compares two readings (`compare`). The verdict head
reads a pair at once, so its reading is the outcome. Outcomes are log-odds [N] that the first of two
is preferred; of a judge with ties, log-probabilities [N, 3] of first, second and neither; of uncertain
utilities, mean and standard deviation [N, 2] of normally distributed log-odds. `log_odds` turns each into
what an engine merges. All is computed in float32, under autocast as well.

Shapes: R readouts, N comparisons, Q readouts of a candidate, D hidden, M embedding, A answers.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import linear, logsigmoid, normalize

from prefrm.judge.precision import full_precision
from prefrm.manifest.spec import JudgeSpec
from prefrm.prompts import Template

__all__ = [
    "TIE_STRENGTH",
    "AnswerHead",
    "EmbeddingHead",
    "Head",
    "MlpHead",
    "ScalarHead",
    "VerdictHead",
    "build_head",
    "log_odds",
]

TIE_STRENGTH = 5.0
"""The k of Bradley-Terry with ties: 1 never ties. VideoAlign's value (arXiv 2501.13918, section 3.3)."""
GPM_TEMPERATURE = 0.1
"""Where the scale of an embedding head starts (arXiv 2410.02197)."""
MLP_DROPOUT = 0.05
"""After the first hidden layer of an MLP, while it is trained: HPSv3's value (arXiv 2508.03789)."""


class Head(nn.Module, ABC):
    """A positive learnable scale on the log-odds, kept as its logarithm, and a reading in two steps."""

    def __init__(self, *, scale: float = 1.0) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale), dtype=torch.float32))

    @property
    def scale(self) -> torch.Tensor:
        """The factor of the log-odds."""
        return self.log_scale.float().exp()

    @abstractmethod
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        """A reading of each hidden state, in float32.

        Args:
            hidden_RD: the last hidden states at the readout positions, after the final norm.
            answers_AD: the language model's output rows of the template's answers.
        """

    @abstractmethod
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The outcomes of N comparisons, in float32, from the readings of their first and second images."""


class VerdictHead(Head):
    """Log-odds of answering "1" rather than "2", read off the language model's own output rows.

    Its one parameter is the scale, 1 at the start, so an untrained head gives exactly the language
    model's log-odds. With a third answer, the log-probabilities of the three.
    """

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        """Log-odds [R] of two answers, or logits [R, 3] of three."""
        if len(answers_AD) == 2:
            return hidden_RD @ (answers_AD[0] - answers_AD[1])
        return hidden_RD @ answers_AD.T

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Of readings as `read` gives them, or log-probabilities of the answers [N, 2] or [N, 3]."""
        # Both are the one reading of the pair.
        if first.ndim == 1:
            return first * self.scale
        if first.shape[-1] == 2:
            return (first[:, 0] - first[:, 1]) * self.scale
        return (first * self.scale).log_softmax(dim=-1)


class ScalarHead(Head):
    """A utility for each image; the log-odds of a comparison are the difference (Bradley-Terry 1952).

    With ties, Bradley-Terry with ties (Rao and Kupper 1967; VideoAlign, arXiv 2501.13918).

    Args:
        hidden: size of the hidden states.
        ties: whether outcomes are those of Bradley-Terry with ties.
        readouts: of a candidate, whose utility is the sum of one for each, by weights of its own.
    """

    def __init__(self, *, hidden: int, ties: bool, readouts: int = 1) -> None:
        super().__init__()
        shape = (hidden,) if readouts == 1 else (readouts, hidden)
        self.weight_D = nn.Parameter(torch.randn(shape, dtype=torch.float32) / math.sqrt(hidden + 1))
        self.ties = ties
        self.readouts = readouts

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        """Utilities [R]; with several readouts [R, Q], by the weights of each of them."""
        return linear(hidden_RD, self.weight_D) * self.scale

    @full_precision
    def utilities(self, readings: torch.Tensor) -> torch.Tensor:
        """Utilities [N] of candidates from their readings [N], or [N, Q, Q] of several readouts."""
        return readings if self.readouts == 1 else _own(readings).sum(dim=-1)

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return _outcomes(self.utilities(first) - self.utilities(second), ties=self.ties)


class AnswerHead(Head):
    """A utility for each image: the log-odds of answering yes and not no to a question about it.

    That is VQAScore (arXiv 2404.01291) in log-odds. It has no weights; its readings are log-probabilities of
    the two answers (`prefrm.judge.labels`).

    Args:
        ties: as of `ScalarHead`.
    """

    def __init__(self, *, ties: bool) -> None:
        super().__init__()
        self.ties = ties

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        """Logits [R, 2]."""
        return hidden_RD @ answers_AD.T

    @full_precision
    def utilities(self, readings_N2: torch.Tensor) -> torch.Tensor:
        """Utilities [N] of candidates."""
        return (readings_N2[:, 0] - readings_N2[:, 1]) * self.scale

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return _outcomes(self.utilities(first) - self.utilities(second), ties=self.ties)


class MlpHead(Head):
    """A utility for each image by a multilayer perceptron, and perhaps its standard deviation.

    The utility of an uncertain head is normally distributed, its second output being the logarithm of the
    standard deviation (HPSv3, arXiv 2508.03789).

    Args:
        hidden: size of the hidden states.
        widths: of the hidden layers.
        ties: as of `ScalarHead`.
        uncertainty: as in `JudgeSpec`.
        readouts: as of `ScalarHead`; means are summed, and so are variances.
    """

    def __init__(
        self,
        *,
        hidden: int,
        widths: Sequence[int],
        ties: bool = False,
        uncertainty: str | None = None,
        readouts: int = 1,
    ) -> None:
        super().__init__()
        outputs = 1 if uncertainty is None else 2
        self.layers = nn.ModuleList(_perceptron(hidden, widths, outputs) for _ in range(readouts))
        self.ties = ties
        self.uncertainty = uncertainty
        self.readouts = readouts

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        """Outputs [R, O] of the perceptron, or [R, Q, O] of several; O is 2 with uncertainty, else 1."""
        outputs = [layers(hidden_RD) for layers in self.layers]
        return outputs[0] if self.readouts == 1 else torch.stack(outputs, dim=1)

    @full_precision
    def utilities(self, readings: torch.Tensor) -> torch.Tensor:
        """Mean utilities [N] of candidates from their readings [N, O], or [N, Q, Q, O]."""
        return self._outputs(readings)[..., 0, :].sum(dim=-1) * self.scale

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        d_N = self.utilities(first) - self.utilities(second)
        if self.uncertainty != "integrate":
            return _outcomes(d_N, ties=self.ties)
        # The variance of a sum, and of a difference, is the sum of the variances.
        log_variances = [
            (2 * self._outputs(readings)[..., 1, :]).logsumexp(dim=-1) for readings in (first, second)
        ]
        deviation_N = torch.logaddexp(*log_variances).div(2).exp() * self.scale
        return torch.stack([d_N, deviation_N], dim=-1)

    def _outputs(self, readings: torch.Tensor) -> torch.Tensor:
        """Outputs [N, O, Q] of each readout by its own perceptron."""
        return readings[..., None] if self.readouts == 1 else _own(readings)


class EmbeddingHead(Head):
    """A vector for each image; log-odds are `scale * <R v_first, v_second>` (arXiv 2410.02197).

    R is block-diagonal and skew-symmetric, with blocks [[0, -1], [1, 0]], so the comparison of an image
    with itself is 0 and a swap changes the sign; unlike differences, it can be intransitive.

    Args:
        hidden: size of the hidden states.
        size: M, even.
        unit: whether vectors are scaled to unit length.
    """

    def __init__(self, *, hidden: int, size: int, unit: bool = True) -> None:
        super().__init__(scale=1 / GPM_TEMPERATURE)
        self.unit = unit
        self.weight_MD = nn.Parameter(torch.randn(size, hidden, dtype=torch.float32) / math.sqrt(hidden + 1))

    @full_precision
    def read(self, hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        vectors_RM = hidden_RD @ self.weight_MD.T
        return normalize(vectors_RM, dim=-1) if self.unit else vectors_RM

    @full_precision
    def compare(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        a, b = first[..., 0::2], first[..., 1::2]
        c, d = second[..., 0::2], second[..., 1::2]
        return (a * d - b * c).sum(dim=-1) * self.scale


def build_head(spec: JudgeSpec, hidden: int, template: Template | None = None) -> Head:
    """The head that a specification names, for hidden states of that size; random where it has weights.

    A scalar judge whose template has answers reads its utility off them. None is a built-in template.
    """
    readouts = max(1, len(spec.readouts))
    if spec.head == "scalar" and template is not None and template.answers:
        return AnswerHead(ties=spec.ties)
    if spec.head == "scalar" and spec.mlp:
        return MlpHead(
            hidden=hidden,
            widths=spec.mlp,
            ties=spec.ties,
            uncertainty=spec.uncertainty,
            readouts=readouts,
        )
    if spec.head == "scalar":
        return ScalarHead(hidden=hidden, ties=spec.ties, readouts=readouts)
    if spec.head == "embedding":
        return EmbeddingHead(hidden=hidden, size=spec.embedding_dim, unit=spec.normalize)
    return VerdictHead()


@full_precision
def log_odds(outcomes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-odds [N] that the first is preferred, a tie counting half to each, and P(tie) [N] if known.

    Of normally distributed log-odds z it is the logit of the expectation of sigmoid(z), to 0.02 in
    probability: z is divided by sqrt(1 + pi / 8 * variance) (MacKay 1992, "The evidence framework").
    """
    if outcomes.ndim == 1:
        return outcomes, None
    if outcomes.shape[-1] == 2:
        mean_N, deviation_N = outcomes.unbind(dim=-1)
        return mean_N / torch.sqrt(1 + math.pi / 8 * deviation_N.square()), None
    win_N, loss_N, tie_N = outcomes.unbind(dim=-1)
    half_N = tie_N - math.log(2)
    return torch.logaddexp(win_N, half_N) - torch.logaddexp(loss_N, half_N), tie_N.exp()


def _outcomes(d_N: torch.Tensor, *, ties: bool) -> torch.Tensor:
    """Of differences of utilities: themselves, or log-probabilities [N, 3] of Bradley-Terry with ties."""
    if not ties:
        return d_N
    bar = math.log(TIE_STRENGTH)
    win_N, loss_N = logsigmoid(d_N - bar), logsigmoid(-d_N - bar)
    tie_N = win_N + loss_N + math.log(TIE_STRENGTH**2 - 1)
    return torch.stack([win_N, loss_N, tie_N], dim=-1)


def _own(readings: torch.Tensor) -> torch.Tensor:
    """[N, ..., Q] of readings [N, Q, Q, ...]: of readout q, what the weights of q give."""
    return readings.diagonal(dim1=1, dim2=2)


def _perceptron(hidden: int, widths: Sequence[int], outputs: int) -> nn.Sequential:
    sizes = (hidden, *widths)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after, dtype=torch.float32), nn.ReLU()]
    layers.insert(2, nn.Dropout(MLP_DROPOUT))
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs, dtype=torch.float32))
