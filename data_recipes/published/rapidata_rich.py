"""The recipe `rapidata_rich`: Rapidata's Rich Human Feedback, ratings of single images.

    image, prompt, alignment_score, coherence_score, style_score (about 1 to 5, higher is better), the same
    with _norm (0 to 1), word_scores, heatmaps

In `word_scores` a higher score is a word that is shown worse; they are not read. Earlier revisions have the
normalized score as `*_score`, and the larger variant calls the columns image_name and sentence. A row is one
image: only images whose prompt recurs are compared, all others are counted as left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Rating, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE", "RapidataRichOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RapidataRichOptions(AxisOptions):
    """What images are compared by."""

    AXES: ClassVar = {axis: f"{axis}_score" for axis in ("alignment", "coherence", "style")}

    axis: Annotated[str, "alignment, coherence, style or all"] = "alignment"


def _read(options: RapidataRichOptions) -> Sequence[Part]:
    return read_source(options.source, columns=("image", "prompt", "image_name", "sentence", *options.keys))


def _judge(row: Row, options: RapidataRichOptions) -> Rating:
    return Rating(
        prompt=row["prompt"] if "prompt" in row else row["sentence"],
        candidate=row["image"] if "image" in row else row["image_name"],
        score=row[options.key],
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
