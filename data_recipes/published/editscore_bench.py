"""The recipe `editscore_bench`: EditReward-Bench of EditScore (VectorSpaceLab, arXiv 2509.23909), pairs of
edits by prompt following, consistency and overall.

    key, instruction, input_image, output_images (two), task_type, dimension

`output_images[0]` is always the preferred one. A row is about one dimension, and a pair may stand once for
each, in another order. Everything is in this dataset's test split. TIGER-Lab's dataset of the same name is
the recipe `editreward_bench`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Judgement, dataset
from data_recipes.readers import Part, Row, in_split, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "EditscoreBenchOptions"]

COLUMNS = ("instruction", "input_image", "output_images", "task_type", "dimension")


@dataclass(frozen=True, slots=True, kw_only=True)
class EditscoreBenchOptions(AxisOptions):
    """What edits are compared by."""

    AXES: ClassVar = {name: name for name in ("overall", "prompt_following", "consistency")}
    CRITERIA: ClassVar = {"overall": "", "prompt_following": "prompt following"}

    axis: Annotated[str, "overall, prompt_following, consistency or all"] = "overall"


def _read(options: EditscoreBenchOptions) -> Sequence[Part]:
    return in_split(read_source(options.source, columns=COLUMNS), "test")


def _judge(row: Row, options: EditscoreBenchOptions) -> list[Judgement]:
    dimension = row["dimension"]
    if dimension not in options.AXES:
        raise DataError(f"dimension must be one of {', '.join(options.AXES)}; received {dimension!r}")
    if dimension != options.key:
        return []
    first, second = row["output_images"]
    return [
        Judgement(
            prompt=row["instruction"],
            first=first,
            second=second,
            p=1.0,
            context=[row["input_image"]],
            tags={"task": row["task_type"]} if row.get("task_type") else {},
        )
    ]


RECIPE = dataset(
    name="editscore_bench",
    summary="EditReward-Bench (EditScore): pairs of edits by prompt following, consistency and overall",
    source=Source(
        url="https://huggingface.co/datasets/EditScore/EditReward-Bench",
        licence="Apache-2.0",
        size="13 kinds of edits, 11 models",
        needs="the folder of datasets.save_to_disk, the parquet files, or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=EditscoreBenchOptions,
)
