"""The recipe `genai_bench_ratings`: GenAI-Bench with human ratings (BaiqiL, arXiv 2406.13743).

    Index, Prompt, Tags {basic, advanced}, HumanRatings {model: three ratings of 1 to 5}, and an image column
    for each model

An image's score is the mean of its ratings, of how well it matches the prompt; images of one row are
compared, and equal means tie. On the Hub all rows are called train though they are a benchmark: splits are
drawn here. The dataset of the same name with votes of an arena is the recipe `genai_bench`.
"""

from collections.abc import Iterator, Sequence
from statistics import fmean

from data_recipes.pipeline import Rating, SourceOptions, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE"]

MODELS = ("DALLE_3", "DeepFloyd_I_XL_v1", "Midjourney_6", "SDXL_2_1", "SDXL_Base", "SDXL_Turbo")


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(
        options.source, columns=("Index", "Prompt", "Tags", "HumanRatings", *MODELS), splits={}
    )


def _judge(row: Row, options: SourceOptions) -> Iterator[Rating]:
    skills = "advanced" if (row.get("Tags") or {}).get("advanced") else "basic"
    for model, ratings in row["HumanRatings"].items():
        yield Rating(
            prompt=row["Prompt"],
            candidate=row[model],
            score=fmean(ratings) if ratings else None,
            set=str(row["Index"]),
            tags={"skills": skills},
        )


RECIPE = dataset(
    name="genai_bench_ratings",
    summary="GenAI-Bench (BaiqiL): images of six models, rated 1 to 5 by three people for alignment",
    source=Source(
        url="https://huggingface.co/datasets/BaiqiL/GenAI-Bench",
        licence="Apache-2.0",
        size="1,600 prompts, 9,600 images, 4.8 GB",
        needs="the parquet files, or hf://",
    ),
    read=_read,
    judge=_judge,
)
