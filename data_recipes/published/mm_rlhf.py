"""The recipe `mm_rlhf`: MM-RLHF (arXiv 2502.10391), pairs of answers to a question about an image.

    dpo_pairs.jsonl, and of the benchmark mm_reward_bench.jsonl: prompt, image or video (a path), chosen,
    rejected, ...

`chosen` is preferred. A question about a video is left out: the context of a prompt is images. data.jsonl,
with three to five answers and their scores a row, could not be looked into and is not read; its pairs are
those of dpo_pairs.jsonl. The licence of the data could not be found out.
"""

from collections.abc import Sequence

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, Text, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE"]

FILES = {"dpo_pairs": "train", "mm_reward_bench": "test"}


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, files="*.jsonl", splits=FILES)


def _judge(row: Row, options: SourceOptions) -> Statement:
    prompt = row["prompt"]
    if row.get("video"):
        return LeftOut(reason="about a video", prompt=prompt)
    return Judgement(
        # Where the image stands is a token of LLaVA's templates.
        prompt=prompt.replace("<image>", "").strip(),
        first=Text(row["chosen"]),
        second=Text(row["rejected"]),
        p=1.0,
        context=[row["image"]],
    )


RECIPE = dataset(
    name="mm_rlhf",
    summary="MM-RLHF: pairs of answers to a question about an image",
    source=Source(
        url="https://huggingface.co/datasets/yifanzhang114/MM-RLHF",
        licence="not stated",
        size="80,000 pairs, with those about videos; images 21 GB",
        needs="dpo_pairs.jsonl and the unpacked long.zip, short.zip, mcq.zip and safety.zip beside it",
    ),
    read=_read,
    judge=_judge,
)
