"""The recipe `vl_rewardbench`: VL-RewardBench (arXiv 2411.17451), pairs of answers to a question about an
image.

    id, query, response (two), image, human_ranking (two; 0 = better), query_source, ...

`human_ranking[k]` is the rank of `response[k]`: it is [0, 1] in all but a few rows, so a judge that always
prefers the first response has an accuracy of 99.6%. `id` is not unique, and revisions differ in rows and in a
few labels. The tag `category` is that of the benchmark's macro average: general, hallucination or reasoning.
Everything is in this dataset's test split; of the Hub, only the split test is read: an early revision has a
"train" split, which is the same rows.
"""

from collections.abc import Sequence

from data_recipes.pipeline import Judgement, SourceOptions, Text, dataset
from data_recipes.readers import Part, Row, in_split, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE"]

# As in the benchmark's cal.py. It files by folders of images, which go with these parts of an id; all else is
# "general".
CATEGORIES = {
    "hallucination": ("hallucination_pair", "RLAIF-V", "RLHF-V"),
    "reasoning": ("mathverse", "mmmu_pro"),
}
COLUMNS = ("id", "query", "response", "image", "human_ranking", "query_source")


def _read(options: SourceOptions) -> Sequence[Part]:
    return in_split(read_source(options.source, columns=COLUMNS, splits={"test": "test"}), "test")


def _judge(row: Row, options: SourceOptions) -> Judgement:
    responses, ranking = row["response"], row["human_ranking"]
    if len(responses) != 2 or len(ranking) != 2:
        raise DataError(f"two responses have two ranks; received {len(responses)} and {len(ranking)}")
    tags = {"category": _category(row.get("id")), "source": row.get("query_source")}
    return Judgement(
        prompt=row["query"],
        first=Text(responses[0]),
        second=Text(responses[1]),
        p=0.5 if ranking[0] == ranking[1] else float(ranking[0] < ranking[1]),
        context=[row["image"]],
        tags={name: value for name, value in tags.items() if value},
    )


def _category(id: str | None) -> str | None:
    if not id:
        return None
    found = (name for name, parts in CATEGORIES.items() if any(part in id for part in parts))
    return next(found, "general")


RECIPE = dataset(
    name="vl_rewardbench",
    summary="VL-RewardBench: pairs of answers of vision-language models to a question about an image",
    source=Source(
        url="https://huggingface.co/datasets/MMInstruction/VL-RewardBench",
        licence="MIT; research only, subject to the terms of the models that answered",
        size="1,250 pairs, 150 MB",
        needs="the parquet files, or hf://, or the JSON of another repository and its images",
    ),
    read=_read,
    judge=_judge,
)
