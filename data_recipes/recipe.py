"""What a recipe is, how its options are read, and how the folder that it describes is written.

A recipe turns a source (files on disk, or nothing but a seed) into splits of preference groups. It says
what is in each split; `Recipe.build` draws the groups, proves that no prompt is in two splits, and
writes the dataset. Which recipes exist is in `registry`.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

from data_recipes.questionable import Questionable
from prefrm.errors import ConfigError, DataError
from prefrm.records import (
    SPLITS,
    DatasetInfo,
    PreferenceGroup,
    fingerprint,
    prompt_key,
    read_groups,
    write_groups,
    write_info,
)

__all__ = ["Built", "LeftOut", "Option", "Plan", "Progress", "Recipe", "Split", "prove_disjoint", "silent"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the split being built, how many of its groups are done, and how many there are."""

_NAMED = 3  # offenders that an error names; the rest are counted
_FILES = ("dataset.json", *(f"{split}.parquet" for split in SPLITS))


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting of a recipe; one without a default (`required`) must be given."""

    name: str
    type: type
    default: Any
    required: bool
    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The groups of one split, drawn once, and how many there are at most."""

    groups: Iterable[PreferenceGroup]
    total: int


@dataclass(slots=True, kw_only=True)
class LeftOut:
    """The parts of a source that cannot be used; it grows as groups are drawn.

    Attributes:
        lines: a reason for each record that is affected, naming it.
        images: the images that cannot be used, each once.
        pairs: comparisons that are lost with them.
        groups: groups of which nothing remains.
    """

    lines: list[str] = field(default_factory=list)
    images: set[Path] = field(default_factory=set)
    pairs: int = 0
    groups: int = 0

    def counts(self) -> dict[str, int]:
        """Images, pairs and groups by these names; empty if nothing was left out."""
        counts = {"images": len(self.images), "pairs": self.pairs, "groups": self.groups}
        return counts if any(counts.values()) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a recipe will build.

    Attributes:
        splits: by name, one of `SPLITS`.
        left_out: the parts of the source that cannot be used.
        questionable: comparisons that are kept and cannot all be right; it grows as groups are drawn.
    """

    splits: Mapping[str, Split]
    left_out: LeftOut = field(default_factory=LeftOut)
    questionable: Questionable = field(default_factory=Questionable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What was written.

    Attributes:
        info: of the dataset.
        groups: number of groups by split.
        left_out: a line for each record left out.
        questionable: by kind, a line for each comparison that is kept although it cannot be right, or not
            together with another.
    """

    info: DatasetInfo
    groups: Mapping[str, int]
    left_out: tuple[str, ...]
    questionable: Mapping[str, tuple[str, ...]]


def silent(split: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One way to make a dataset.

    Attributes:
        name: what the command line calls it.
        summary: one line about it.
        options_type: a frozen dataclass that checks its own ranges and raises `ConfigError`. Each field
            is `name: Annotated[type, "a line of help"]`, of type int, float, str or Path; one without a
            default must be given.
        plan: from checked options and a seed to the splits; equal arguments give equal groups.
    """

    name: str
    summary: str
    options_type: type
    plan: Callable[[Any, int], Plan]

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
        progress: Progress = silent,
        **options: Any,
    ) -> Built:
        """Build the dataset into a folder; `dataset.json` comes last, so a folder with it is complete.

        What the folder holds is replaced only when the new dataset is whole; other files there stay.
        Option values may be of their type or text, as from a command line.

        Raises:
            ConfigError: an option is unknown, missing, ill-typed or out of range, or the seed is negative.
            DataError: the source is not what it should be, a prompt is in two splits, or the folder
                holds a split or a `dataset.json` and `overwrite` is not set.
        """
        folder = Path(out)
        checked = self.read_options(options)
        if seed < 0:
            raise ConfigError(f"seed must be a whole number of at least 0; received {seed}")
        if not overwrite:
            _require_room(folder)
        plan = self.plan(checked, seed)
        folder.mkdir(parents=True, exist_ok=True)
        # Inside the folder, so that what is done can be moved and need not be copied.
        with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as unfinished:
            built = self._write(plan, Path(unfinished), {"seed": seed, **_plain(checked)}, progress)
            _move(Path(unfinished), folder)
        return built

    def _write(self, plan: Plan, folder: Path, options: Mapping[str, Any], progress: Progress) -> Built:
        counts, fingerprints, prompts = {}, {}, {}
        for name, split in plan.splits.items():
            counts[name] = write_groups(_watched(name, split, progress), folder, name)
            if not counts[name]:
                raise DataError(
                    f"the {name} split has no usable group; left out: {_some(plan.left_out.lines)}"
                )
            fingerprints[name] = fingerprint(read_groups(folder, name))
            prompts[name] = {group.prompt for group in read_groups(folder, name)}
        prove_disjoint(prompts)
        info = DatasetInfo(
            recipe=self.name,
            options=options,
            fingerprints=fingerprints,
            left_out=plan.left_out.counts(),
        )
        write_info(folder, info)
        return Built(
            info=info,
            groups=counts,
            left_out=tuple(plan.left_out.lines),
            questionable=plan.questionable.lines(),
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


def prove_disjoint(prompts: Mapping[str, Iterable[str]]) -> None:
    """Prove that no prompt is in two splits, in whatever letter case and spacing; `prompts` is by split.

    Raises:
        DataError: one is; it and its splits are named.
    """
    home: dict[str, str] = {}
    shared = []
    for split, texts in prompts.items():
        for text in sorted(set(texts)):
            if (first := home.setdefault(prompt_key(text), split)) != split:
                shared.append(f"{text!r} in {first} and {split}")
    if shared:
        raise DataError(
            f"{len(shared)} prompts are in two splits: {_some(shared)}; "
            "results on a split that shares prompts with train mean nothing"
        )


def _some(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _NAMED} more" if len(lines) > _NAMED else ""
    return "; ".join(lines[:_NAMED]) + more


def _convert(value: Any, to: Option) -> Any:
    """The value as the option's type: it has it, or is an int for a float, or text of a command line."""
    accepted = (to.type, str, int) if to.type is float else (to.type, str)
    # A bool is an int to Python and a mistake to us.
    if isinstance(value, accepted) and not isinstance(value, bool):
        try:
            return to.type(value)
        except ValueError:
            pass
    raise ConfigError(f"option {to.name!r} must be of type {to.type.__name__}, received {value!r}")


def _plain(options: Any) -> dict[str, Any]:
    """The options as `dataset.json` records them."""
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()}


def _require_room(folder: Path) -> None:
    if found := [name for name in _FILES if (folder / name).exists()]:
        raise DataError(
            f"{folder} already holds {', '.join(found)}; choose another folder, or pass --overwrite"
        )


def _move(dataset: Path, folder: Path) -> None:
    """Put a whole dataset in the place of what the folder holds, so that no stale split outlives it."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in reversed(_FILES):
        if (dataset / name).exists():
            (dataset / name).replace(folder / name)


def _watched(name: str, split: Split, progress: Progress) -> Iterator[PreferenceGroup]:
    progress(name, 0, split.total)
    for done, group in enumerate(split.groups, 1):
        yield group
        progress(name, done, split.total)
