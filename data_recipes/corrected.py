"""The recipe `corrected`: a dataset with corrections of its labels, from the page "Audit" of `prefrm app`.

`source` is the dataset, `corrections` the CSV file (`prefrm.records.Corrections`). Every split is rebuilt;
a group that lost all of its comparisons stays, without any.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from data_recipes.plan import Context, Plan, Split
from data_recipes.recipe import Recipe
from prefrm.data import dataset_folder
from prefrm.errors import ConfigError, DatasetError
from prefrm.records import Corrections, PreferenceGroup, count_groups, read_groups, read_info

__all__ = ["RECIPE", "CorrectedOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectedOptions:
    """A dataset and a file of corrections."""

    source: Annotated[str, "folder or hf://org/name of the dataset"]
    corrections: Annotated[Path, "the CSV file of the corrections"]


def _plan(options: CorrectedOptions, context: Context) -> Plan:
    if context.apart_from:
        raise ConfigError("apart_from is for recipes that choose groups; this one keeps them all")
    if not options.corrections.exists():
        raise DatasetError(f"{options.corrections} does not exist; the page Audit of `prefrm app` writes it")
    corrections = Corrections(options.corrections)
    folder = dataset_folder(options.source)
    splits = list(read_info(folder).fingerprints)
    seen: set[str] = set()

    def groups(split: str) -> Iterator[PreferenceGroup]:
        yield from corrections.apply_all(read_groups(folder, split), seen)
        if split == splits[-1] and (unknown := corrections.records() - seen):
            raise DatasetError(
                f"{options.corrections} corrects {len(unknown)} records that {options.source} lacks, such as "
                f"{min(unknown)!r}; it belongs to another dataset"
            )

    return Plan(
        splits={split: Split(groups=groups(split), total=count_groups(folder, split)) for split in splits}
    )


RECIPE = Recipe(
    name="corrected",
    summary="a dataset with corrections of its labels (prefrm app)",
    options_type=CorrectedOptions,
    plan=_plan,
)
