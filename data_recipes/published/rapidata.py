"""The recipe `rapidata`: pairs of images with votes that Rapidata collected.

    prompt, image1, image2, model1, model2 and either numbers of votes on the axis of the dataset's name,
        votes_image1, votes_image2
    or, for each of preference, coherence and alignment, weighted shares of votes and their list as JSON:
        weighted_results_image1_AXIS, weighted_results_image2_AXIS, detailed_results_AXIS

P(image1 is preferred) is its share. The axes of one pair disagree and are never added up. Shares are null
where nobody was asked.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from data_recipes.pipeline import AxisOptions, Judgement, LeftOut, Statement, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "RapidataOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RapidataOptions(AxisOptions):
    """What images are compared by."""

    AXES: ClassVar = {
        axis: axis or "preference" for axis in ("", "preference", "alignment", "coherence", "style")
    }
    CRITERIA: ClassVar = {"preference": ""}
    ALL_AXES = ("preference", "alignment", "coherence")

    axis: Annotated[
        str,
        "preference (the default), alignment, coherence, style, or all of the first three; not for files of "
        "one axis",
    ] = ""


def _columns(axis: str) -> tuple[str, str, str]:
    """The shares of both images, and the votes that they are made of."""
    return f"weighted_results_image1_{axis}", f"weighted_results_image2_{axis}", f"detailed_results_{axis}"


def _read(options: RapidataOptions) -> Sequence[Part]:
    pair = ("prompt", "image1", "image2", "votes_image1", "votes_image2")
    return read_source(
        options.source, columns=(*pair, *(column for axis in options.keys for column in _columns(axis)))
    )


def _judge(row: Row, options: RapidataOptions) -> Statement:
    prompt, first, second = row["prompt"], row["image1"], row["image2"]
    if "votes_image1" in row:
        if options.axis:
            raise DataError("the file has votes on one axis only, which its name gives; leave axis out")
        return Judgement.voted(prompt, first, second, (row["votes_image1"] or 0, row["votes_image2"] or 0))
    column_1, column_2, details = _columns(options.key)
    shares = row[column_1], row[column_2]
    if None in shares or not sum(shares):
        return LeftOut(reason="no votes", prompt=prompt)
    weight = _count(row.get(details))
    return Judgement(prompt=prompt, first=first, second=second, p=shares[0] / sum(shares), weight=weight)


def _count(details: Any) -> float:
    """The number of votes; 1 where they are not listed."""
    votes = json.loads(details) if isinstance(details, str) else details
    return float(len(votes)) if isinstance(votes, list) and votes else 1.0


RECIPE = dataset(
    name="rapidata",
    summary="Rapidata: pairs of images of two models with votes on preference, alignment, coherence or style",
    source=Source(
        url="https://huggingface.co/Rapidata",
        licence="CDLA-Permissive-2.0 for most; see each dataset's card",
        size="from 4,500 pairs (0.8 GB) to 63,700 pairs",
        needs="the parquet files of one of its t2i datasets, or hf://Rapidata/...",
    ),
    read=_read,
    judge=_judge,
    options_type=RapidataOptions,
)
