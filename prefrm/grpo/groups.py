"""Candidates of a group and their rewards, the part that all trainers' contracts share. Asks no scorer.

A candidate that the policy failed to make is no gap in the scorer's answer: the others are compared without
it, and a group of fewer than two is not scored at all.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prefrm.errors import ConfigError, IncompleteMatrixError, MediaError
from prefrm.grpo.layout import Candidate
from prefrm.pixels import encode_image
from prefrm.rewards import REWARDS, RewardFunction
from prefrm.winmatrix import Group, OnMissing, WinMatrix, check_answer, check_on_missing

__all__ = ["GroupRule", "Rewards", "to_group"]

logger = logging.getLogger(__name__)

Rewards = list[float | None]


def to_group(rows: Sequence[Candidate]) -> Group:
    """The group of these candidates. Raises `ConfigError` if their prompts differ."""
    if different := sorted({row.prompt for row in rows} - {rows[0].prompt}):
        raise ConfigError(
            f"a group of {len(rows)} candidates has more than one prompt, {rows[0].prompt[:60]!r} "
            f"and {different[0][:60]!r}"
        )
    return Group(prompt=rows[0].prompt, images=tuple(row.image for row in rows))


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """How a group's matrix becomes rewards.

    Attributes:
        reward: turns a matrix into one number for each candidate.
        on_missing: what to do about an image that cannot be encoded, and about a pair that was neither judged
            nor inferred.
    """

    reward: RewardFunction
    on_missing: OnMissing

    @classmethod
    def of(cls, reward: str | RewardFunction, on_missing: OnMissing) -> "GroupRule":
        """The rule of a reward's name in `prefrm.rewards.REWARDS`, or of a function. Raises `ConfigError`."""
        if isinstance(reward, str) and reward not in REWARDS:
            raise ConfigError(
                f"reward must be one of {', '.join(REWARDS)} or a function; received {reward!r}"
            )
        check_on_missing(on_missing)
        return cls(reward=REWARDS[reward] if isinstance(reward, str) else reward, on_missing=on_missing)

    def candidate(self, prompt: str, image: Any) -> Candidate:
        """The candidate of an image in any form that `encode_image` takes; None and b"" are missing.

        Raises:
            ConfigError: it is not an image in one of these forms.
            MediaError: its pixels cannot be encoded and `on_missing` is "raise"; with "drop" it is missing.
        """
        try:
            encoded = b"" if image is None else encode_image(image)
        except MediaError as error:
            if self.on_missing == "raise":
                raise
            logger.warning("a candidate for %.60r is dropped: %s", prompt, error)
            encoded = b""
        return Candidate(prompt=prompt, image=encoded or None)

    def to_score(self, groups: Sequence[Sequence[Candidate]]) -> list[Group]:
        """The groups that a scorer is to be asked about: those with two candidates at least."""
        return [to_group(rows) for rows in groups if len(_present(rows)) > 1]

    def settle(
        self,
        groups: Sequence[Sequence[Candidate]],
        scored: Sequence[Group],
        matrices: Sequence[WinMatrix],
        *,
        each: Callable[[WinMatrix], None] = lambda matrix: None,
    ) -> list[Rewards]:
        """The rewards of every group, None for a candidate that has none.

        Args:
            groups: all of them.
            scored: what `to_score` made of them.
            matrices: the scorer's answer to that.
            each: told of the matrix of each group; of one that was not scored, a matrix of nothing.

        Raises:
            ProtocolError: the matrices are not those of `scored`.
            IncompleteMatrixError: a pair was neither judged nor inferred and `on_missing` is "raise".
        """
        check_answer(matrices, scored)
        answers = iter(matrices)
        rewards: list[Rewards] = []
        for rows in groups:
            present = _present(rows)
            matrix = next(answers) if len(present) > 1 else WinMatrix.missing(["not scored"] * len(rows))
            each(matrix)
            rewards.append(self._rewards(matrix, present))
        return rewards

    def numbers(self, rewards: Rewards) -> list[float]:
        """The rewards for a trainer that knows no None: NaN, where `on_missing` is "drop".

        Raises:
            IncompleteMatrixError: a candidate has none and `on_missing` is "raise".
        """
        if self.on_missing == "raise" and None in rewards:
            raise IncompleteMatrixError(
                f"{rewards.count(None)} of {len(rewards)} candidates have no reward, first that in place "
                f'{rewards.index(None)}: they have no image or no opponent; on_missing="drop" gives NaN'
            )
        return [float("nan") if reward is None else reward for reward in rewards]

    def _rewards(self, matrix: WinMatrix, present: list[int]) -> Rewards:
        rewards: Rewards = [None] * matrix.size
        if len(present) > 1:
            values = self.reward(matrix.subset(present), on_missing=self.on_missing)
            for n, value in zip(present, values, strict=True):
                rewards[n] = None if np.isnan(value) else float(value)
        return rewards


def _present(rows: Sequence[Candidate]) -> list[int]:
    return [n for n, row in enumerate(rows) if row.image is not None]
