"""The recipe `imagereward`: ImageRewardDB (arXiv 2304.05977), from its repository or from the Hub.

    repository  id, prompt, generations (paths), ranking (1 = best, equal ranks tie, gaps are allowed)
    Hub         prompt_id, prompt, image_path, rank, overall_rating, image_text_alignment_rating,
                fidelity_rating

The rows of one `id` or `prompt_id` are one ranking. Three prompts of the test split recur with another id:
their rankings are not comparable and give groups of their own. On the Hub an image is beside the JSON file
that names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Rating, Statement, dataset, ranked
from data_recipes.readers import HUB, Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import ConfigError, DataError

__all__ = ["RECIPE", "ImageRewardOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRewardOptions(AxisOptions):
    """What images are compared by."""

    AXES: ClassVar = {
        "rank": "rank",
        "overall": "overall_rating",
        "alignment": "image_text_alignment_rating",
        "fidelity": "fidelity_rating",
    }
    CRITERIA: ClassVar = {"rank": "", "overall": "overall rating"}

    axis: Annotated[str, "rank, or of the Hub's files overall, alignment, fidelity (ratings) or all"] = "rank"


def _read(options: ImageRewardOptions) -> Sequence[Part]:
    if options.source.startswith(HUB):
        raise ConfigError(
            "on the Hub, ImageRewardDB is a loading script, which datasets does not run, over zip files: "
            "download the repository, unpack its zips, and give the folder as source"
        )
    return read_source(options.source, files="*.json")


def _judge(row: Row, options: ImageRewardOptions) -> list[Rating] | Statement:
    if "ranking" in row:
        if options.axis != "rank":
            raise DataError("the repository's files have only ranks; axis must be rank")
        return ranked(row["prompt"], row["generations"], row["ranking"], set=str(row["id"]))
    score = row[options.key]
    if score is not None and options.axis == "rank":
        score = -score
    return Rating(
        prompt=row["prompt"],
        candidate=None if row["image_path"] is None else PurePosixPath(row["image_path"]).name,
        score=score,
        set=str(row["prompt_id"]),
        tags={"classification": row["classification"]} if row.get("classification") else {},
    )


RECIPE = dataset(
    name="imagereward",
    summary="ImageRewardDB: rankings of 4 to 9 images under a prompt, with ties",
    source=Source(
        url="https://huggingface.co/datasets/zai-org/ImageRewardDB",
        licence="Apache-2.0 (images of DiffusionDB: CC0)",
        size="141,000 pairs to train (21 GB), 7,320 to validate, 7,230 to test",
        needs="the repository's JSON and its images, or the Hub's folders with their zips unpacked; not hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=ImageRewardOptions,
    max_candidates=16,
)
