"""What a scorer reads of a group, and why it cannot read another one."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, get_args, runtime_checkable

from prefrm.errors import RecordError
from prefrm.winmatrix.group import Group, Kind, kind_of

__all__ = ["EVERYTHING", "Inputs", "InputsScorer", "check_groups", "inputs_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a scorer reads of a group besides its prompt.

    Attributes:
        kinds: of candidates.
        context: whether it reads context images.
        criterion: whether it reads a criterion.
        needs_context: whether it cannot read a group without a context image.
        needs_criterion: whether it cannot read a group without a criterion.
    """

    kinds: tuple[Kind, ...] = ("image",)
    context: bool = False
    criterion: bool = False
    needs_context: bool = False
    needs_criterion: bool = False

    def refusal(self, group: Group) -> str:
        """Why the scorer cannot read a group; "" if it can.

        A scorer that ignored a context or a criterion would answer another question than the one asked. One
        candidate of a kind that it reads is enough: any other is an unreadable candidate.
        """
        if group.kinds and group.kinds.isdisjoint(self.kinds):
            read = _plural(self.kinds) or "no kind of candidate that all its members read"
            return f"the candidates are {_plural(group.kinds)}; this judge reads {read}"
        for name, one, value, is_read, is_needed in (
            ("context", "context image", group.context, self.context, self.needs_context),
            ("criterion", "criterion", group.criterion, self.criterion, self.needs_criterion),
        ):
            if value and not is_read:
                return (
                    f"the group has a {name}, which this judge does not read; use a judge whose template has "
                    f"{{{name}}}, or leave it out"
                )
            if is_needed and not value:
                return f"the group has no {one}, which this judge needs; give it one"
        return ""

    def read_as(self, candidate: bytes | str) -> Kind:
        """The kind as which a candidate is read.

        That is its own, if the scorer reads it. Any other bytes, such as a damaged video's, are read as a
        video by a scorer that reads no images, which names the formats that it reads.
        """
        kind = kind_of(candidate)
        if kind in self.kinds or kind == "text":
            return kind
        return "video" if "video" in self.kinds else "image"

    def by(self, criterion: str) -> "Inputs":
        """What is read of a group that is shown with this criterion in place of its own; "" leaves its own.

        A group that has one is then refused.
        """
        return replace(self, criterion=False, needs_criterion=False) if criterion else self

    def both(self, other: "Inputs") -> "Inputs":
        """What two scorers read that are given the same groups."""
        return Inputs(
            kinds=tuple(kind for kind in self.kinds if kind in other.kinds),
            context=self.context and other.context,
            criterion=self.criterion and other.criterion,
            needs_context=self.needs_context or other.needs_context,
            needs_criterion=self.needs_criterion or other.needs_criterion,
        )


def _plural(kinds: Iterable[Kind]) -> str:
    return " and ".join(f"{kind}s" for kind in sorted(kinds))


EVERYTHING = Inputs(kinds=get_args(Kind), context=True, criterion=True)


@runtime_checkable
class InputsScorer(Protocol):
    """A scorer that says what it reads."""

    def inputs(self) -> Inputs:
        """What it reads of a group."""
        ...


def inputs_of(scorer: object) -> Inputs:
    """What a scorer says that it reads; images alone for one that does not say."""
    return scorer.inputs() if isinstance(scorer, InputsScorer) else Inputs()


def check_groups(groups: Iterable[Group]) -> list[Group]:
    """The groups that a scorer is given, as a list. Raises `RecordError` if they are not groups."""
    if not isinstance(groups, Iterable):
        raise RecordError(
            f"score takes a list of groups; received {type(groups).__name__}: write score([group])"
        )
    found = list(groups)
    for n, group in enumerate(found):
        if not isinstance(group, Group):
            raise RecordError(f"score takes a list of groups; its item {n} is {type(group).__name__}")
    return found
