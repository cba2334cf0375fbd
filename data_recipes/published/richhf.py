"""The recipe `richhf`: RichHF-18K (arXiv 2312.10240), ratings of images of Pick-a-Pic v1.

    {train,dev,test}.tfrecord: filename, aesthetics_score, artifact_score, misalignment_score, overall_score,
    heatmaps and words that are not read

All four scores are higher for the better image, `artifact_score` and `misalignment_score` too. There are
neither images nor prompts: a file name without its folder and ending is an image uid of Pick-a-Pic v1,
whose parquet files have the caption of each. Few prompts have more than one image here; the others are
counted as left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, LeftOut, Rating, Statement, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.readers.part import Numbered
from data_recipes.recipe import Source

__all__ = ["RECIPE", "RichhfOptions"]

UIDS = ("image_0_uid", "image_1_uid")


@dataclass(frozen=True, slots=True, kw_only=True)
class RichhfOptions(AxisOptions):
    """Where the prompts are, and what images are compared by."""

    prompts: Annotated[str, "the files of Pick-a-Pic v1, or others with caption, image_0_uid, image_1_uid"]
    AXES: ClassVar = {axis: f"{axis}_score" for axis in ("overall", "aesthetics", "artifact", "misalignment")}
    # Higher is better of each.
    CRITERIA: ClassVar = {"overall": "", "artifact": "freedom from artifacts", "misalignment": "alignment"}

    axis: Annotated[str, "overall, aesthetics, artifact, misalignment (of each, higher is better) or all"] = (
        "overall"
    )


def _read(options: RichhfOptions) -> Sequence[Part]:
    tables = read_source(options.prompts, columns=("caption", *UIDS), splits={})
    stamp = " ".join(table.stamp for table in tables)
    return [
        replace(part, read=partial(_with_captions, part, tables), stamp=f"{part.stamp} {stamp}")
        for part in read_source(options.source, files="*.tfrecord")
    ]


def _with_captions(part: Part, tables: Sequence[Part], start: int) -> Iterator[Numbered]:
    """The rows of a part without their heatmaps, and with the captions of their images."""
    wanted = {_uid(row) for _, row in part.read(0) if isinstance(row, dict)}
    rows = (row for table in tables for _, row in table.read(0) if isinstance(row, dict))
    captions = {row[uid]: row.get("caption") for row in rows for uid in UIDS if row.get(uid) in wanted}
    for number, row in part.read(start):
        if isinstance(row, dict):
            scores = {name: row[name] for name in RichhfOptions.AXES.values() if name in row}
            row = {"filename": _filename(row), "caption": captions.get(_uid(row)), **scores}
        yield number, row


def _filename(row: Row) -> str:
    name: bytes = row.get("filename", b"")
    return name.decode()


def _uid(row: Row) -> str:
    return PurePosixPath(_filename(row)).stem


def _judge(row: Row, options: RichhfOptions) -> Statement:
    if row["caption"] is None:
        return LeftOut(reason="no prompt")
    return Rating(prompt=row["caption"], candidate=row["filename"], score=row[options.key])


RECIPE = dataset(
    name="richhf",
    summary="RichHF-18K: images of Pick-a-Pic rated on aesthetics, artifacts, alignment and overall",
    source=Source(
        url="https://github.com/google-research-datasets/richhf-18k",
        licence="not stated (images are those of Pick-a-Pic)",
        size="17,760 images, of which few share a prompt",
        needs="the tfrecord files, Pick-a-Pic v1 as --set prompts=, its images by file name as --set images=",
    ),
    read=_read,
    judge=_judge,
    options_type=RichhfOptions,
    max_candidates=16,
)
