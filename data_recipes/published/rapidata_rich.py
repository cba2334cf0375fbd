"""The recipe `rapidata_rich`: Rapidata's Rich Human Feedback, ratings of single images.

    image, prompt, alignment_score, coherence_score, style_score (about 1 to 5, higher is better), the same
    with _norm (0 to 1), word_scores, heatmaps

In `word_scores` a higher score is a word that is shown worse; they are not read. Earlier revisions have the
normalized score as `*_score`, and the larger variant calls the columns image_name and sentence. A row is one
image: only images whose prompt recurs are compared, all others are counted as left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Rating, SourceOptions, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE", "RapidataRichOptions"]

AXES = ("alignment", "coherence", "style")


@dataclass(frozen=True, slots=True, kw_only=True)
class RapidataRichOptions(SourceOptions):
    """What images are compared by."""

    axis: Annotated[str, "alignment, coherence or style"] = "alignment"

    def __post_init__(self) -> None:
        super(RapidataRichOptions, self).__post_init__()
        one_of("axis", self.axis, AXES)


def _read(options: RapidataRichOptions) -> Sequence[Part]:
    columns = ("image", "prompt", "image_name", "sentence", f"{options.axis}_score")
    return read_source(options.source, columns=columns)


def _judge(row: Row, options: RapidataRichOptions) -> Rating:
    return Rating(
        prompt=row["prompt"] if "prompt" in row else row["sentence"],
        image=row["image"] if "image" in row else row["image_name"],
        score=row[f"{options.axis}_score"],
    )


RECIPE = dataset(
    name="rapidata_rich",
    summary="Rapidata Rich Human Feedback: images rated on alignment, coherence and style",
    source=Source(
        url="https://huggingface.co/datasets/Rapidata/text-2-image-Rich-Human-Feedback",
        licence="Apache-2.0",
        size="13,024 images, 18 GB (the variant of 32,000 images is read as well)",
        needs="the parquet files, or hf://Rapidata/text-2-image-Rich-Human-Feedback",
    ),
    read=_read,
    judge=_judge,
    options_type=RapidataRichOptions,
    max_candidates=16,
)
