"""The values between a recipe and the code that writes a dataset."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from prefrm.errors import DatasetError
from prefrm.records import DatasetInfo, PreferenceGroup

__all__ = ["Built", "Context", "InterruptedBuild", "Notes", "Plan", "Progress", "Split", "silent"]

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the stage (a split that is written, or "rows" or "files" that are read), how much of it is
done, and how much there is, None if that is not known."""

NAMED = 5  # contradictions that are named; the rest are counted


class InterruptedBuild(DatasetError):
    """A build stopped, and what it read is kept; the same command resumes it once the reason is gone."""


def silent(stage: str, done: int, total: int | None) -> None:
    """A `Progress` that shows nothing."""


@dataclass(slots=True, kw_only=True)
class Notes:
    """Remarks on the judgements of a split; they grow as its groups are drawn.

    Attributes:
        left_out: judgements that could not be used, by reason.
        first_wins: share of strict judgements that prefer the candidate that stands first in the source.
        contradictory: number of comparisons on which judgements disagree about the preferred side.
        examples: the first of them.
    """

    left_out: dict[str, int] = field(default_factory=dict)
    first_wins: float | None = None
    contradictory: int = 0
    examples: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, number: int) -> None:
        """Count judgements that are left out."""
        if number:
            self.left_out[reason] = self.left_out.get(reason, 0) + number

    def contradict(self, comparisons: Iterable[str]) -> None:
        """Count contradictory comparisons, each by its name."""
        for comparison in comparisons:
            self.contradictory += 1
            if len(self.examples) < NAMED:
                self.examples.append(comparison)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The groups of one split.

    Attributes:
        groups: iterated over once.
        total: about how many there are.
        notes: remarks on its judgements.
        drawn: as that of `SplitCounts`.
        complete: as that of `SplitCounts`.
    """

    groups: Iterable[PreferenceGroup]
    total: int
    notes: Notes = field(default_factory=Notes)
    drawn: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The splits that a recipe will build.

    Attributes:
        splits: by name, one of `SPLITS`.
        left_out: a line for each record of the source that cannot be used, up to a bound.
        apart_from: dataset -> fingerprint of each one that shares nothing with this one.
        state: changes if the content of the files of the source does, which the options do not name.
    """

    splits: Mapping[str, Split]
    left_out: Sequence[str] = ()
    apart_from: Mapping[str, str] = field(default_factory=dict)
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The surroundings of one build.

    Attributes:
        seed: equal seeds build equal datasets.
        folder: for files that a build which is killed leaves to the next one.
        keep: called with whether the folder holds work that an error must leave to the next build, too.
        processes: how many check and hash images and videos.
        apart_from: datasets, folders or on the Hub, that must share nothing with this one.
        progress: called as the work goes on.
        stack: closes files when the build ends.
    """

    seed: int
    folder: Path
    keep: Callable[[bool], None]
    processes: int
    apart_from: Sequence[str]
    progress: Progress
    stack: ExitStack


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The result of a build.

    Attributes:
        info: of the dataset.
        left_out: a line for each record left out, up to a bound.
        contradictory: by split, the first comparisons on which judgements disagree.
    """

    info: DatasetInfo
    left_out: tuple[str, ...]
    contradictory: Mapping[str, tuple[str, ...]]

    @property
    def groups(self) -> dict[str, int]:
        """Number of groups by split."""
        return {split: counts.groups for split, counts in self.info.splits.items()}
