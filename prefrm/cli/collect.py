"""The options of `prefrm app` for the view Collect."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from prefrm.errors import ConfigError
from prefrm.options import given_options

if TYPE_CHECKING:
    from prefrm.app import Judges
    from prefrm.app.collect.collection import Collection

__all__ = ["Collecting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collecting:
    """What people compare, and where their answers are kept, as options of a command."""

    collect: Annotated[
        Path | None,
        typer.Option(
            metavar="ANSWERS",
            help="show the page Collect: a SQLite file for the answers, new or to go on with",
        ),
    ] = None
    pairs_of: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="the dataset whose candidates people compare: its folder or hf://org/name"
        ),
    ] = None
    pairs_split: Annotated[str, typer.Option(help="its split")] = "train"
    people: Annotated[int, typer.Option(min=1, help="how many people answer each pair")] = 1
    known: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="a dataset with known preferences, which measure the annotators"),
    ] = None
    known_split: Annotated[str, typer.Option(help="its split")] = "train"
    compare_by: Annotated[
        str | None,
        typer.Option(
            metavar="CRITERION", help="what candidates are compared by; each group's own by default"
        ),
    ] = None
    pair_order: Annotated[
        Literal["informative", "random"],
        typer.Option(help="where the judges are least certain first, or by chance"),
    ] = "informative"

    def check(self) -> None:
        """Raise `ConfigError` unless the options belong together."""
        if self.collect is None and (others := given_options(self)):
            raise ConfigError(
                f"{others} without --collect: name the file of the answers, --collect answers.sqlite"
            )
        if self.collect is not None and self.pairs_of is None:
            raise ConfigError("--collect needs the dataset whose candidates people compare: --pairs-of DATA")

    @contextmanager
    def open(self, judges: "Judges") -> "Iterator[Collection | None]":
        """The collection, whose groups the judges judge in the background; None without --collect."""
        from prefrm.app.collect.collection import Collection
        from prefrm.app.collect.queue import QueueSettings
        from prefrm.data import load_groups

        if self.collect is None or self.pairs_of is None:
            yield None
            return
        with Collection(
            self.collect,
            load_groups(self.pairs_of, self.pairs_split),
            settings=QueueSettings(annotators=self.people, order=self.pair_order),
            known=None if self.known is None else load_groups(self.known, self.known_split),
            criterion=self.compare_by,
        ) as collection:
            collection.start(judges)
            yield collection
