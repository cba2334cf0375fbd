"""Answers of several tokens, read off the logits without generating one.

The answers of a template branch off one sequence of tokens, the path: of "Image 1", "Image 2" and "Both" it
is "Image ", off which the third branches at once. The path is read after the question, so one pass has the
logits at every branch, and an answer's probability is that of its tokens, one after another.

Shapes: R readouts, P positions of a readout, D hidden, V vocabulary, A answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from prefrm.errors import ConfigError

__all__ = ["Labels", "label_log_probs"]

CHUNK = 2**14
"""Rows of the vocabulary that are converted to float32 at once: of 152,000 rows of 3584, all take 2 GB."""

Branch = tuple[int, int]
"""Number of tokens of the path, and the token that follows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Where answers branch off their path.

    Attributes:
        path: token ids.
        branches: of each answer those of its spellings. A branch ends with the first token that tells a
            spelling from all other answers: what would follow is not read.
    """

    path: tuple[int, ...] = ()
    branches: tuple[tuple[Branch, ...], ...] = ()

    @classmethod
    def of(cls, answers: Sequence[Sequence[Sequence[int]]]) -> "Labels":
        """The labels of answers, each of which has one spelling or several, in token ids.

        Raises:
            ConfigError: an answer is the start of another one, or they do not branch off one path.
        """
        paths: list[Sequence[int]] = []
        branches = []
        for n, spellings in enumerate(answers):
            others = [other for m, each in enumerate(answers) if m != n for other in each]
            found: dict[Branch, None] = {}
            for ids in spellings:
                depth = max((_common(ids, other) for other in others), default=0)
                if depth == len(ids):
                    raise ConfigError("one is the start of another")
                paths.append(ids[:depth])
                found[depth, ids[depth]] = None
            branches.append(tuple(found))
        path = max(paths, key=len, default=())
        if any(path[: len(other)] != other for other in paths):
            raise ConfigError("they do not branch off one sequence of tokens")
        return cls(path=tuple(path), branches=tuple(branches))

    @property
    def is_plain(self) -> bool:
        """Whether each answer is told by one token of one spelling, at the last position."""
        return not self.path and all(len(spellings) == 1 for spellings in self.branches)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common start."""
    return next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def label_log_probs(hidden_RPD: torch.Tensor, weight_VD: torch.Tensor, labels: Labels) -> torch.Tensor:
    """Log-probabilities [R, A] of the answers, of the whole vocabulary at every branch, in float32.

    Args:
        hidden_RPD: the last hidden states at the position before the path and at each token of it.
        weight_VD: rows of the output embeddings.
        labels: of A answers, with a path of P - 1 tokens.
    """
    with torch.autocast(hidden_RPD.device.type, enabled=False):
        hidden_RPD = hidden_RPD.float()
        total_RP = torch.stack(
            [(hidden_RPD @ rows_CD.float().T).logsumexp(dim=-1) for rows_CD in weight_VD.split(CHUNK)]
        ).logsumexp(dim=0)

        def step(depth: int, token: int) -> torch.Tensor:
            """Log-probability [R] of a token after a number of tokens of the path."""
            return hidden_RPD[:, depth] @ weight_VD[token].float() - total_RP[:, depth]

        reached = [torch.zeros_like(total_RP[:, 0])]
        for depth, token in enumerate(labels.path):
            reached.append(reached[-1] + step(depth, token))
        answers = [
            torch.stack([reached[depth] + step(depth, token) for depth, token in spellings]).logsumexp(dim=0)
            for spellings in labels.branches
        ]
        return torch.stack(answers, dim=-1)
