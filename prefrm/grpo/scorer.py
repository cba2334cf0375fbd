"""Asynchronous scorers, as the rewards of trainers that await them ask them."""

from collections.abc import Sequence
from typing import Protocol

from prefrm.grpo.groups import GroupRule
from prefrm.grpo.layout import Candidate
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["AsyncScorer", "score_group"]


class AsyncScorer(Protocol):
    """A scorer whose `score` is awaited."""

    async def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises `ScoringError` when it cannot answer at all."""
        ...


async def score_group(
    rule: GroupRule, scorer: AsyncScorer, rows: Sequence[Candidate], *, evaluation: bool = False
) -> list[float]:
    """The reward of each candidate of one group but its reference; NaN for one without a reward.

    Args:
        rows: the candidates, as `GroupRule.completed` gives them.
        evaluation: whether the trainer evaluates, for the log.

    Raises:
        ConfigError: the prompts or contexts of the candidates differ.
        ScoringError: the scorer could not answer.
        IncompleteMatrixError: a candidate has no reward and `on_missing` is "raise".
    """
    groups = rule.to_score([rows])
    matrices = await scorer.score(groups) if groups else []
    (rewards,) = rule.settle([rows], groups, matrices, evaluation=evaluation)
    return rule.numbers(rewards)
