"""Recipes and their options.

A recipe turns a source (files on disk, the Hub, or nothing but a seed) into splits of preference groups: it
plans what is in each, and `data_recipes.building` writes the dataset. Which recipes exist is in `registry`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from data_recipes.building import build_dataset
from data_recipes.plan import Built, Context, Plan, Progress, silent
from prefrm.errors import ConfigError
from prefrm.records import DatasetInfo

__all__ = ["Option", "Recipe", "Source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting of a recipe; one without a default (`required`) must be given."""

    name: str
    type: type
    default: Any
    required: bool
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The dataset that a recipe reads, as `prefrm data list` shows it.

    Attributes:
        url: where it is published.
        licence: as its publisher states it.
        size: pairs, images or videos, and bytes.
        needs: what must be downloaded or installed.
    """

    url: str = ""
    licence: str = ""
    size: str = ""
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make a dataset.

    Attributes:
        name: what the command line calls it.
        summary: one line about it.
        options_type: a frozen dataclass that checks its own ranges and raises `ConfigError`. Each field
            is `name: Annotated[type, "a line of help"]`, of type int, float, str or Path; one without a
            default must be given.
        plan: from checked options and the surroundings to the splits; equal arguments give equal groups.
        source: the dataset that it reads; empty if it draws its own.
    """

    name: str
    summary: str
    options_type: type
    plan: Callable[[Any, Context], Plan]
    source: Source = Source()

    @property
    def options(self) -> tuple[Option, ...]:
        """The settings, in order."""
        hints = get_type_hints(self.options_type, include_extras=True)
        return tuple(
            Option(
                name=f.name,
                type=hints[f.name].__origin__,
                default=None if f.default is dataclasses.MISSING else f.default,
                required=f.default is dataclasses.MISSING,
                help=hints[f.name].__metadata__[0],
            )
            for f in dataclasses.fields(self.options_type)
        )

    def build(
        self,
        out: Path | str,
        *,
        seed: int = 0,
        overwrite: bool = False,
        processes: int = 1,
        apart_from: Sequence[Path | str] = (),
        progress: Progress = silent,
        **options: Any,
    ) -> Built:
        """Build the dataset into a folder; `dataset.json` comes last, so a folder with it is complete.

        What the folder holds is replaced only when the new dataset is whole; other files there stay. A build
        that was killed resumes if it is started again with the same arguments.

        Args:
            out: the folder.
            seed: equal seeds build equal datasets.
            overwrite: replace a dataset that is there.
            processes: how many read images and videos; the dataset does not depend on it.
            apart_from: dataset folders, or datasets on the Hub: what shares a prompt, an image or a video
                with one of them is left out.
            progress: called as the work goes on.
            **options: of the recipe, of their type or as text, as from a command line.

        Raises:
            ConfigError: an option is unknown, missing, ill-typed or out of range, or the seed is negative.
            DataError: the source is not what it should be, a prompt is in two splits, or the folder
                holds a split or a `dataset.json` and `overwrite` is not set.
        """
        checked = self.read_options(options)
        if seed < 0:
            raise ConfigError(f"seed must be a whole number of at least 0; received {seed}")
        info = DatasetInfo(
            recipe=self.name,
            options={"seed": seed, **_plain(checked)},
            fingerprints={},
            licence=self.source.licence,
            source=self.source.url,
        )
        return build_dataset(
            Path(out),
            info,
            lambda context: self.plan(checked, context),
            seed=seed,
            overwrite=overwrite,
            processes=processes,
            apart_from=[str(other) for other in apart_from],
            progress=progress,
        )

    def read_options(self, given: Mapping[str, Any]) -> Any:
        """The options object; every unknown, missing and ill-typed option is named in one error."""
        known = {each.name: each for each in self.options}
        problems = [f"unknown option {name!r}" for name in given if name not in known]
        problems += [
            f"option {each.name!r} must be given ({each.help})"
            for each in known.values()
            if each.required and each.name not in given
        ]
        values = {}
        for name in given.keys() & known.keys():
            try:
                values[name] = _convert(given[name], known[name])
            except ConfigError as error:
                problems.append(str(error))
        if problems:
            listed = ", ".join(known)
            raise ConfigError(f"recipe {self.name}: {'; '.join(sorted(problems))}; its options are {listed}")
        return self.options_type(**values)


def _convert(value: Any, to: Option) -> Any:
    """The value as the option's type: it has it, or is an int for a float, a path for a text, or text."""
    accepted = (to.type, str, *{float: (int,), str: (Path,)}.get(to.type, ()))
    # A bool is an int to Python and a mistake to us.
    if isinstance(value, accepted) and not isinstance(value, bool):
        try:
            return to.type(value)
        except ValueError:
            pass
    raise ConfigError(f"option {to.name!r} must be of type {to.type.__name__}; received {value!r}")


def _plain(options: Any) -> dict[str, Any]:
    """The options as `dataset.json` records them."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()}
