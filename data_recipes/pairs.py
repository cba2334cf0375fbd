"""The recipe `pairs`: one's own judged pairs of images, from a CSV or JSONL file.

Each row (or each line's JSON object) is one judgement and has at least

    prompt      what both images answer
    image_1     path of an image file, relative to the folder of the CSV or JSONL file: PNG, JPEG or WebP,
                kept as it is, or GIF, BMP, TIFF or AVIF, of which the first frame is kept as PNG
    image_2     path of another
    preferred   1, 2 or tie; or p instead: the share of votes for image_1, in [0, 1]

and may have

    weight      number of votes, or how much the judgement counts; 1 if it is empty

Other columns are ignored. A row that is not right is refused with its line: a person wrote it.
"""

import os
from collections.abc import Sequence

from data_recipes.pipeline import Judgement, SourceOptions, dataset
from data_recipes.readers import Part, Row, read_source, read_text
from data_recipes.recipe import Source
from prefrm.errors import DataError, DatasetError

__all__ = ["RECIPE"]

REQUIRED = ("prompt", "image_1", "image_2")
P_FIRST = {"1": 1.0, "2": 0.0, "tie": 0.5}
"""P(image_1 is preferred to image_2) by the column `preferred`."""


def _read(options: SourceOptions) -> Sequence[Part]:
    if not options.source.lower().endswith((".csv", ".jsonl")):
        raise DatasetError(f"{options.source} must be a .csv or a .jsonl file")
    return read_source(options.source, required=REQUIRED, splits={})


def _judge(row: Row, options: SourceOptions) -> Judgement:
    prompt, first, second = (read_text(row, column) for column in REQUIRED)
    if os.path.normpath(first) == os.path.normpath(second):
        raise DataError(f"image_1 and image_2 are the same file, {first}")
    weight = row.get("weight")
    return Judgement(
        prompt=prompt,
        first=first,
        second=second,
        p=_p(row),
        weight=1.0 if weight in (None, "") else float(read_text(row, "weight")),
    )


def _p(row: Row) -> float:
    if row.get("p") not in (None, ""):
        return float(read_text(row, "p"))
    # A spreadsheet writes whole numbers so where an empty cell made the column one of floats.
    preferred = read_text(row, "preferred").lower().removesuffix(".0")
    if preferred not in P_FIRST:
        raise DataError(f"preferred must be 1, 2 or tie; received {row['preferred']!r}")
    return P_FIRST[preferred]


RECIPE = dataset(
    name="pairs",
    summary="your own pairs, from a CSV or JSONL file: prompt, image_1, image_2, preferred (1, 2, tie) or p",
    source=Source(needs="a CSV or JSONL file and its images"),
    read=_read,
    judge=_judge,
    strict=True,
)
