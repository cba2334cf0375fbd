"""The options of a command that may ask a judge by several criteria."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prefrm.errors import ConfigError

if TYPE_CHECKING:
    from prefrm.rewards import Criteria

__all__ = ["ByCriteria"]

NUMBER_BEGINS = re.compile(r"\s*([-+.]*\d|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ByCriteria:
    """What candidates are compared by, as options of a command."""

    criterion: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT[=WEIGHT]",
            help="what candidates are compared by, such as alignment; may be given several times",
            show_default="overall preference",
        ),
    ] = None
    combine: Annotated[
        Literal["mean", "vote", "worst", "uncertainty", "lexicographic"],
        typer.Option(help="how the matrices of several criteria become one"),
    ] = "mean"
    margin: Annotated[
        float,
        typer.Option(help="of lexicographic: the first criterion decides whose |2 p - 1| exceeds it"),
    ] = 0.0

    def criteria(self) -> "Criteria | None":
        """The criteria, or None if none was given, which leaves each group its own.

        Raises:
            ConfigError: one is given twice, or an option is out of range or without effect.
        """
        from prefrm.rewards import Combination, Criteria

        if len(given := self.criterion or []) < 2 and (self.combine != "mean" or self.margin):
            raise ConfigError(
                "--combine and --margin are for several criteria; give --criterion each of them"
            )
        if self.margin and self.combine != "lexicographic":
            raise ConfigError(f"--margin is for --combine lexicographic; received --combine {self.combine}")
        if not given:
            return None
        named = [_weighted(one) for one in given]
        combination = Combination(rule=self.combine, margin=self.margin, weights=dict(named))
        return Criteria(names=tuple(name for name, _ in named), combination=combination)


def _weighted(option: str) -> tuple[str, float]:
    """A criterion and its weight, which may stand behind the last `=`."""
    name, equals, weight = option.rpartition("=")
    if not equals:
        return option, 1.0
    try:
        return name, float(weight)
    except ValueError:
        if NUMBER_BEGINS.match(weight):
            raise ConfigError(
                f"--criterion {option!r}: the weight behind the last = must be a number >= 0; "
                f"received {weight!r}"
            ) from None
        return option, 1.0
