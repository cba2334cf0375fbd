"""Context images and criteria of the groups that a judge was trained with, and a warning about other groups.

What a judge cannot read is refused (`prefrm.winmatrix.inputs`). A group that it can read and that is unlike
those that it was trained with is answered, and a warning says so.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from prefrm.display import shortened
from prefrm.errors import ConfigError

__all__ = ["MOST_CRITERIA", "TrainingCheck", "TrainingInputs"]

logger = logging.getLogger(__name__)

MOST_CRITERIA = 64
"""Number of criteria that are recorded; a judge that was trained with more is taken to read any."""
# Of all criteria together: a judge that was trained with paragraphs is taken to read any, too.
MOST_CHARACTERS = 8192
# Warnings of a judge; requests may have any number of context images.
MOST_WARNINGS = 8
# In a message: criteria, and characters of each.
SHOWN, SHOWN_CHARACTERS = 4, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingInputs:
    """What the groups that a judge was trained with had besides prompt and candidates.

    Attributes:
        least_context: the smallest number of context images of a group.
        most_context: the largest.
        criteria: of all groups, sorted; None for more than `MOST_CRITERIA`, or for long texts.
        no_criterion: whether a group had none.

    Raises:
        ConfigError: the numbers of images are not a range, or criteria are more than are recorded.
    """

    least_context: int
    most_context: int
    criteria: tuple[str, ...] | None
    no_criterion: bool

    def __post_init__(self) -> None:
        if not 0 <= self.least_context <= self.most_context:
            raise ConfigError(
                "least_context and most_context must be a range of numbers >= 0; received "
                f"{self.least_context} and {self.most_context}"
            )
        if self.criteria is not None and _recorded(self.criteria) is None:
            raise ConfigError(
                f"criteria must be at most {MOST_CRITERIA}, of {MOST_CHARACTERS} characters together, or "
                f"null; received {len(self.criteria)}"
            )

    @classmethod
    def of(cls, images: int, criterion: str) -> "TrainingInputs":
        """Of one group, with so many context images and that criterion; "" is none."""
        return cls(
            least_context=images,
            most_context=images,
            criteria=_recorded([criterion] if criterion else []),
            no_criterion=not criterion,
        )

    def merged(self, other: "TrainingInputs") -> "TrainingInputs":
        """Of the groups of both."""
        is_open = self.criteria is None or other.criteria is None
        return TrainingInputs(
            least_context=min(self.least_context, other.least_context),
            most_context=max(self.most_context, other.most_context),
            criteria=None if is_open else _recorded([*(self.criteria or ()), *(other.criteria or ())]),
            no_criterion=self.no_criterion or other.no_criterion,
        )

    def describe(self) -> str:
        """As part of a line: "1 context image and criterion 'hue' or 'size'"."""
        return f"{self._images} and {self._criteria}"

    def differences(self, images: int, criterion: str) -> dict[str, str]:
        """How a group differs from all of these, by what differs: "context" or "criterion".

        Args:
            images: number of context images of the group.
            criterion: of the group; "" is none.
        """
        found = {}
        if not self.least_context <= images <= self.most_context:
            found["context"] = (
                f"a group has {_images(images, images)}, and all in its training data had {self._images}"
            )
        known = self.no_criterion if not criterion else self.criteria is None or criterion in self.criteria
        if not known:
            # Not the criterion itself: it is a client's, and a server's log has no client's texts.
            given = "another criterion" if criterion else "no criterion"
            found["criterion"] = f"a group has {given}, and all in its training data had {self._criteria}"
        return found

    @property
    def _images(self) -> str:
        return _images(self.least_context, self.most_context)

    @property
    def _criteria(self) -> str:
        if self.criteria is None:
            choices = ["one of many criteria"]
        else:
            choices = [_quoted(name) for name in self.criteria[:SHOWN]]
            choices[:1] = [f"criterion {name}" for name in choices[:1]]
            if more := self.criteria[SHOWN:]:
                choices.append(f"one of {len(more)} more")
        return " or ".join([*choices, *["no criterion"] * self.no_criterion])


class TrainingCheck:
    """Warns of groups that differ from those that a judge was trained with: once for each difference.

    After `MOST_WARNINGS` it is silent.

    Args:
        trained: what the judge was trained with.
        judge: its name in the warning.
    """

    def __init__(self, trained: TrainingInputs, judge: str) -> None:
        self._trained = trained
        self._judge = judge
        self._reported: set[str] = set()

    def __call__(self, images: int, criterion: str) -> None:
        """Of a group; arguments are as of `TrainingInputs.differences`."""
        for difference in self._trained.differences(images, criterion).values():
            if difference not in self._reported and len(self._reported) < MOST_WARNINGS:
                self._reported.add(difference)
                logger.warning(
                    "judge %s: %s; its answers to such groups may mean nothing (reported once)",
                    self._judge,
                    difference,
                )


def _recorded(criteria: Iterable[str]) -> tuple[str, ...] | None:
    """Different criteria, sorted; None if they are too many."""
    found = tuple(sorted(set(criteria)))
    return None if len(found) > MOST_CRITERIA or sum(map(len, found)) > MOST_CHARACTERS else found


def _quoted(criterion: str) -> str:
    return repr(shortened(criterion, SHOWN_CHARACTERS))


def _images(least: int, most: int) -> str:
    number = f"{least} to {most}" if least < most else str(most or "no")
    return f"{number} context image{'s' * (most > 1)}"
