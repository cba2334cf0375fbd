"""Candidates of a group and their rewards, the part that all trainers' contracts share. Asks no scorer.

A candidate that the policy failed to make is no gap in the scorer's answer: the others are compared without
it, and a group of fewer than two is not scored at all.
"""

import logging
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from prefrm.errors import ConfigError, IncompleteMatrixError, MediaError
from prefrm.group_log import GroupLog, LoggedGroup
from prefrm.grpo.layout import Candidate
from prefrm.grpo.references import Reference, reference_folder
from prefrm.pixels import encode_image
from prefrm.rewards import REWARDS, Criteria, RewardFunction, criterion_name
from prefrm.winmatrix import Group, OnMissing, WinMatrix, check_answer, check_on_missing, kind_of

__all__ = ["GroupRule", "LogGroups", "OnSingle", "RewardOptions", "Rewards", "to_group"]

logger = logging.getLogger(__name__)

Rewards = list[float | None]
OnSingle = Literal["reference", "nan", "raise"]
LogGroups = GroupLog | str | Path | None
"""A log of groups, or the folder of one; None logs nothing."""
ALONE = "let the trainer make several images of a prompt"


class RewardOptions(TypedDict, total=False):
    """The arguments of every trainer's reward that say how a group becomes rewards.

    Attributes:
        reward: a name in `prefrm.rewards.REWARDS`, or such a function; by default "win_rate".
        on_missing: what to do about a candidate that cannot be encoded (a pixel is NaN or out of range), and
            about a pair that was neither judged nor inferred: by default "raise", which stops the run; "drop"
            leaves them out.
        on_single: what to do about a group of one, as trainers make them in evaluation. It has no comparison:
            "nan", the default, gives NaN, "raise" stops the run, and "reference" compares it with a reference
            image, so that a win rate is the probability that it is preferred to that image.
        reference: gives the reference of a prompt and whatever its trainer knows beside it (metadata,
            columns): an image, or a text where the candidates are texts; None if there is none, which leaves
            the candidate without a reward. Or a folder of images as `reference_folder` reads it.
        criteria: by which candidates are compared: names, which are combined by their mean, or
            `prefrm.rewards.Criteria`; by default, overall preference.
        log_groups: a folder, or a `prefrm.group_log.GroupLog`, into which each process writes the groups
            that it scored; by default nothing is logged.
    """

    reward: str | RewardFunction
    on_missing: OnMissing
    on_single: OnSingle
    reference: Reference | str | Path | None
    criteria: Criteria | Sequence[str] | None
    log_groups: LogGroups


def to_group(rows: Sequence[Candidate]) -> Group:
    """The group of these candidates. Raises `ConfigError` if their prompts or contexts differ."""
    if different := sorted({row.prompt for row in rows} - {rows[0].prompt}):
        raise ConfigError(
            f"a group of {len(rows)} candidates has more than one prompt, {rows[0].prompt[:60]!r} "
            f"and {different[0][:60]!r}"
        )
    if any(row.context != rows[0].context for row in rows):
        raise ConfigError(
            f"a group of {len(rows)} candidates for {rows[0].prompt[:60]!r} has more than one context"
        )
    return Group(
        prompt=rows[0].prompt, candidates=tuple(row.content for row in rows), context=rows[0].context
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRule:
    """How a group becomes rewards, the same under every trainer.

    Attributes:
        reward: turns a matrix into one number for each candidate.
        on_missing, on_single, reference: as of `RewardOptions`.
        alone: where the trainer makes groups of one and which setting says so, for the message of "raise".
        criteria: by which groups are compared, and how the matrices become one; None is overall preference.
        log: where groups are logged with their matrices and rewards.
        name: of the reward in the log.
    """

    reward: RewardFunction
    on_missing: OnMissing
    on_single: OnSingle = "nan"
    reference: Reference | None = None
    alone: str = ALONE
    criteria: Criteria | None = None
    log: GroupLog | None = None
    name: str = "preference"

    @classmethod
    def of(
        cls,
        *,
        reward: str | RewardFunction = "win_rate",
        on_missing: OnMissing = "raise",
        on_single: OnSingle = "nan",
        reference: Reference | str | Path | None = None,
        criteria: Criteria | Sequence[str] | None = None,
        log_groups: LogGroups = None,
        alone: str = ALONE,
        name: str = "preference",
    ) -> "GroupRule":
        """The rule of `RewardOptions`, with `alone` and `name` as of the rule.

        Raises:
            ConfigError: a setting is wrong.
            MissingExtraError: groups are logged and pyarrow is not installed.
            DatasetError: the folder cannot be read.
        """
        if isinstance(reward, str) and reward not in REWARDS:
            raise ConfigError(
                f"reward must be one of {', '.join(REWARDS)} or a function; received {reward!r}"
            )
        check_on_missing(on_missing)
        if on_single not in get_args(OnSingle):
            raise ConfigError(f'on_single must be "reference", "nan" or "raise"; received {on_single!r}')
        if (on_single == "reference") != (reference is not None):
            raise ConfigError(
                f'on_single="reference" and reference=... go together; received on_single={on_single!r} '
                f"{'without a' if reference is None else 'with a'} reference"
            )
        return cls(
            reward=REWARDS[reward] if isinstance(reward, str) else reward,
            on_missing=on_missing,
            on_single=on_single,
            reference=reference_folder(reference) if isinstance(reference, str | Path) else reference,
            alone=alone,
            criteria=None if criteria is None else Criteria.of(criteria),
            log=GroupLog.of(log_groups),
            name=name,
        )

    def candidate(
        self, prompt: str, content: Any, context: Sequence[Any] = (), *, is_text: bool = False
    ) -> Candidate:
        """The candidate of an image in any form that `encode_image` takes, or of a text.

        None and what is empty are missing.

        Args:
            prompt: what it answers.
            content: of the candidate.
            context: images that belong to the prompt, in such a form.
            is_text: whether `content` is a text; otherwise a string, such as a path, is refused.

        Raises:
            ConfigError: it is not an image in one of these forms, or not a text.
            MediaError: an image of the context cannot be encoded, or the candidate cannot and `on_missing` is
                "raise"; with "drop" it is missing.
        """
        images = tuple(map(encode_image, context))
        if is_text:
            if not isinstance(content, str | None):
                raise ConfigError(f"a text is a string; received {type(content).__name__}")
            text = content if content and content.strip() else None
            return Candidate(prompt=prompt, content=text, context=images)
        try:
            encoded = b"" if content is None else encode_image(content)
        except MediaError as error:
            if self.on_missing == "raise":
                raise
            logger.warning("a candidate for %.60r is dropped: %s", prompt, error)
            encoded = b""
        return Candidate(prompt=prompt, content=encoded or None, context=images)

    def completed(self, rows: Sequence[Candidate], about: Any = None) -> list[Candidate]:
        """The candidates, and their reference if there is but one of them and `on_single` is "reference".

        Args:
            rows: the candidates of a group.
            about: passed to `reference` beside the prompt.

        Raises:
            ConfigError: there is one candidate and `on_single` is "raise", or the reference is of another
                kind.
            MediaError: the reference cannot be encoded and `on_missing` is "raise".
        """
        if len(rows) != 1 or self.on_single == "nan":
            return list(rows)
        (only,) = rows
        if self.reference is None:
            raise ConfigError(
                f"a group of one image, for {only.prompt[:60]!r}, has no other to be compared with; "
                f'{self.alone}; on_single="nan" gives NaN, and "reference" compares it with a reference image'
            )
        found = self.reference(only.prompt, about)
        reference = self.candidate(only.prompt, found, is_text=isinstance(found, str))
        kinds = [kind_of(one.content) for one in (only, reference) if one.content is not None]
        if len(set(kinds)) > 1:
            raise ConfigError(
                f"the reference of {only.prompt[:60]!r} must be of the kind of its candidate, {kinds[0]}; "
                f"received {reprlib.repr(found)}, of the kind {kinds[1]}: let `reference` return another"
            )
        return [only, replace(reference, context=only.context, reference=True)]

    def to_score(self, groups: Sequence[Sequence[Candidate]]) -> list[Group]:
        """The groups that a scorer is to be asked: those with two candidates at least, by each criterion."""
        whole = [to_group(rows) for rows in groups if len(_present(rows)) > 1]
        return whole if self.criteria is None else self.criteria.groups(whole)

    def settle(
        self,
        groups: Sequence[Sequence[Candidate]],
        scored: Sequence[Group],
        matrices: Sequence[WinMatrix],
        *,
        each: Callable[[WinMatrix], None] = lambda matrix: None,
        step: int | None = None,
        evaluation: bool = False,
    ) -> list[Rewards]:
        """The rewards of every group without its references, None for a candidate that has none.

        Args:
            groups: all of them.
            scored: what `to_score` made of them.
            matrices: the scorer's answer to that.
            each: told of the matrix of each group, the combined one of several criteria; of a group that was
                not scored, a matrix of nothing.
            step, evaluation: as of `LoggedGroup`, for the log.

        Raises:
            ProtocolError: the matrices are not those of `scored`.
            IncompleteMatrixError: a pair was neither judged nor inferred and `on_missing` is "raise".
        """
        check_answer(matrices, scored)
        answers = iter(self._answers(matrices))
        rewards: list[Rewards] = []
        logged: list[LoggedGroup] = []
        for rows in groups:
            present = _present(rows)
            named = next(answers) if len(present) > 1 else self._unanswered(len(rows))
            matrix = named[self.name]
            each(matrix)
            values = self._rewards(matrix, present)
            rewards.append([value for row, value in zip(rows, values, strict=True) if not row.reference])
            if self.log is not None and len(rows) > 1:
                logged.append(
                    LoggedGroup(
                        group=self._shown(rows),
                        matrices=named,
                        rewards={self.name: rewards[-1]},
                        step=step,
                        evaluation=evaluation,
                    )
                )
        if self.log is not None:
            self.log.add(logged)
        return rewards

    def _answers(self, matrices: Sequence[WinMatrix]) -> list[dict[str, WinMatrix]]:
        """For each scored group its matrix by the reward's name, and those by each of several criteria."""
        if self.criteria is None:
            return [{self.name: matrix} for matrix in matrices]
        return [
            {self.name: combined}
            | (
                {f"{self.name}/{criterion_name(name)}": part for name, part in parts.items()}
                if len(parts) > 1
                else {}
            )
            for combined, parts in zip(
                self.criteria.combined(matrices), self.criteria.answers(matrices), strict=True
            )
        ]

    def _unanswered(self, size: int) -> dict[str, WinMatrix]:
        return {self.name: WinMatrix.missing(["not scored"] * size)}

    def _shown(self, rows: Sequence[Candidate]) -> Group:
        """The group of these rows, with the criterion if there is one alone."""
        group, names = to_group(rows), () if self.criteria is None else self.criteria.names
        return replace(group, criterion=names[0]) if len(names) == 1 else group

    def numbers(self, rewards: Rewards) -> list[float]:
        """The rewards of a group for a trainer that knows no None, which becomes NaN.

        Raises:
            IncompleteMatrixError: a candidate of several, or one with a reference, has no reward and
                `on_missing` is "raise".
        """
        without_opponent = len(rewards) == 1 and self.on_single == "nan"
        if self.on_missing == "raise" and None in rewards and not without_opponent:
            raise IncompleteMatrixError(
                f"{rewards.count(None)} of {len(rewards)} candidates have no reward, first that in place "
                f'{rewards.index(None)}: they have no image or no opponent; on_missing="drop" gives NaN'
            )
        return [float("nan") if reward is None else reward for reward in rewards]

    def _rewards(self, matrix: WinMatrix, present: Sequence[int]) -> Rewards:
        rewards: Rewards = [None] * matrix.size
        if len(present) > 1:
            values = self.reward(matrix.subset(present), on_missing=self.on_missing)
            for n, value in zip(present, values, strict=True):
                rewards[n] = None if np.isnan(value) else float(value)
        return rewards


def _present(rows: Sequence[Candidate]) -> list[int]:
    return [n for n, row in enumerate(rows) if row.content is not None]
