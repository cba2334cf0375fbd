"""The recipe `agiqa3k`: AGIQA-3K (arXiv 2306.04717), mean opinion scores of the images of six models.

    name (of the image file), prompt, adj1, adj2, style (parts of the prompt, or empty),
    mos_quality, std_quality, mos_align, std_align (0 to about 4.5, higher is better)

Quality and alignment are two axes and disagree. A standard deviation is that of the raters: with
`labels=soft`, P(a is preferred) is that of a rater, Phi((a - b) / sqrt(s_a^2 + s_b^2)). Of 300 prompts, 13
have fewer than ten images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Rating, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE", "Agiqa3kOptions"]

LABELS = ("strict", "soft")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agiqa3kOptions(AxisOptions):
    """What images are compared by."""

    AXES: ClassVar = {"alignment": "align", "quality": "quality"}

    axis: Annotated[str, "alignment (with the prompt), quality (as perceived) or all"] = "alignment"
    labels: Annotated[str, "strict (the higher mean wins) or soft (a rater's, by the deviations)"] = "strict"

    def __post_init__(self) -> None:
        super(Agiqa3kOptions, self).__post_init__()
        one_of("labels", self.labels, LABELS)


def _read(options: Agiqa3kOptions) -> Sequence[Part]:
    return read_source(options.source, files="data.csv", splits={})


def _judge(row: Row, options: Agiqa3kOptions) -> Rating:
    score, deviation = row[f"mos_{options.key}"], row[f"std_{options.key}"]
    return Rating(
        prompt=row["prompt"],
        candidate=row["name"],
        score=float(score) if score else None,
        deviation=float(deviation) if options.labels == "soft" else 0.0,
        tags={"style": row["style"]} if row["style"] else {},
    )


RECIPE = dataset(
    name="agiqa3k",
    summary="AGIQA-3K: mean opinion scores on quality and alignment of ten images a prompt",
    source=Source(
        url="https://github.com/lcysyzxdxc/AGIQA-3k-Database",
        licence="MIT",
        size="2,982 images of 300 prompts",
        needs="data.csv and the folder of images (a link in the repository), as --set images=",
    ),
    read=_read,
    judge=_judge,
    options_type=Agiqa3kOptions,
    max_candidates=16,
)
