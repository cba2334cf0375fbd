"""The recipe `multimodal_rewardbench`: Multimodal RewardBench (arXiv 2502.14191), pairs of answers to a
question about an image.

    all_data.json: ID, Text (the question), Image (a path), Output1, Output2, Better ("Output1" or "Output2"),
    Category

The repository's script writes all_data.json and downloads the images; all_data_release.json, which it makes
it of, lacks questions, and its rows are left out. The questions of visitbench do not belong to their answers
(issue 8 of facebookresearch/multimodal_rewardbench); `visitbench=no` leaves them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, Text, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "MultimodalRewardbenchOptions"]

VISITBENCH = "visitbench"
P_FIRST = {"Output1": 1.0, "Output2": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class MultimodalRewardbenchOptions(SourceOptions):
    """Which rows are read."""

    visitbench: Annotated[str, "yes, or no: leave out rows whose question is that of another row"] = "yes"

    def __post_init__(self) -> None:
        super(MultimodalRewardbenchOptions, self).__post_init__()
        one_of("visitbench", self.visitbench, ("yes", "no"))


def _read(options: MultimodalRewardbenchOptions) -> Sequence[Part]:
    return read_source(options.source, files="all_data.json", splits={"all_data": "test"})


def _judge(row: Row, options: MultimodalRewardbenchOptions) -> Statement:
    if not row.get("Text"):
        return LeftOut(reason="no question")
    if options.visitbench == "no" and row["ID"].startswith(VISITBENCH):
        return LeftOut(reason=VISITBENCH, prompt=row["Text"])
    if row["Better"] not in P_FIRST:
        raise DataError(f"Better must be Output1 or Output2; received {row['Better']!r}")
    return Judgement(
        prompt=row["Text"],
        first=Text(row["Output1"]),
        second=Text(row["Output2"]),
        p=P_FIRST[row["Better"]],
        context=[row["Image"]],
        tags={"category": row["Category"]} if row.get("Category") else {},
    )


RECIPE = dataset(
    name="multimodal_rewardbench",
    summary="Multimodal RewardBench: pairs of answers to a question about an image, in six areas",
    source=Source(
        url="https://github.com/facebookresearch/multimodal_rewardbench",
        licence="CC-BY-NC-4.0; images are those of several datasets",
        size="5,000 pairs, to test",
        needs="data/all_data.json and data/images/, as the repository's script makes them",
    ),
    read=_read,
    judge=_judge,
    options_type=MultimodalRewardbenchOptions,
)
