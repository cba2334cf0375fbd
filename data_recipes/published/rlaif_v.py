"""The recipe `rlaif_v`: RLAIF-V (openbmb, arXiv 2405.17220), pairs of answers to a question about an image.

    image, question, chosen, rejected, ds_name, origin_dataset, origin_split, idx, image_path

`chosen` is preferred, by the feedback of a model and not of people. An image has several questions, and many
images the same one. The form that TRL reads, trl-lib/rlaif-v, is for the recipe `trl`.
"""

from collections.abc import Sequence

from data_recipes.pipeline import Judgement, SourceOptions, Text, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE"]

COLUMNS = ("image", "question", "chosen", "rejected", "origin_dataset")


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, columns=COLUMNS)


def _judge(row: Row, options: SourceOptions) -> Judgement:
    return Judgement(
        prompt=row["question"],
        first=Text(row["chosen"]),
        second=Text(row["rejected"]),
        p=1.0,
        context=[row["image"]],
        tags={"source": row["origin_dataset"]} if row.get("origin_dataset") else {},
    )


RECIPE = dataset(
    name="rlaif_v",
    summary="RLAIF-V: pairs of answers to a question about an image, by the feedback of a model",
    source=Source(
        url="https://huggingface.co/datasets/openbmb/RLAIF-V-Dataset",
        licence="CC-BY-NC-4.0",
        size="83,132 pairs",
        needs="the parquet files, or hf://",
    ),
    read=_read,
    judge=_judge,
)
