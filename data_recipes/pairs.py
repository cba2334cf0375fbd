"""The recipe `pairs`: one's own judged pairs of images, videos or texts, from a CSV or JSONL file.

Each row (or each line's JSON object) is one judgement and has at least

    prompt      what both candidates answer
    image_1     path of an image file, relative to the folder of the CSV or JSONL file: PNG, JPEG or WebP,
                kept as it is, or GIF, BMP, TIFF or AVIF, of which the first frame is kept as PNG
    image_2     path of another
    preferred   1, 2 or tie; or p instead: the share of votes for image_1, in [0, 1]

With `kind=video`, the columns are video_1 and video_2, paths of MP4 or WebM files; with `kind=text`, they are
text_1 and text_2, the texts themselves.

A row may have

    context     path of an image that belongs to the prompt, such as the source of an edit; in JSONL also a
                list of paths
    criterion   what the candidates are compared by; overall preference if it is empty
    weight      number of votes, or how much the judgement counts; 1 if it is empty

Other columns are ignored. A row that is not right is refused with its line: a person wrote it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Judgement, SourceOptions, Text, dataset, one_of
from data_recipes.readers import Part, Row, read_source, read_text
from data_recipes.recipe import Source
from prefrm.errors import DataError, DatasetError

__all__ = ["RECIPE", "PairsOptions"]

KINDS = ("image", "video", "text")
P_FIRST = {"1": 1.0, "2": 0.0, "tie": 0.5}
"""P(image_1 is preferred to image_2) by the column `preferred`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsOptions(SourceOptions):
    """A file of judged pairs."""

    kind: Annotated[str, "of the candidates: image, video or text"] = "image"

    def __post_init__(self) -> None:
        super(PairsOptions, self).__post_init__()
        one_of("kind", self.kind, KINDS)

    @property
    def required(self) -> tuple[str, str, str]:
        """The columns of the prompt and of both candidates."""
        return "prompt", f"{self.kind}_1", f"{self.kind}_2"


def _read(options: PairsOptions) -> Sequence[Part]:
    if not options.source.lower().endswith((".csv", ".jsonl")):
        raise DatasetError(f"{options.source} must be a .csv or a .jsonl file")
    return read_source(options.source, required=options.required, splits={})


def _judge(row: Row, options: PairsOptions) -> Judgement:
    prompt, first, second = (read_text(row, column) for column in options.required)
    is_text = options.kind == "text"
    if first == second if is_text else os.path.normpath(first) == os.path.normpath(second):
        what = "text" if is_text else "file"
        raise DataError(f"{' and '.join(options.required[1:])} are the same {what}, {first:.60}")
    weight = row.get("weight")
    return Judgement(
        prompt=prompt,
        first=Text(first) if is_text else first,
        second=Text(second) if is_text else second,
        p=_p(row),
        context=_context(row),
        criterion=read_text(row, "criterion") if row.get("criterion") not in (None, "") else "",
        weight=1.0 if weight in (None, "") else float(read_text(row, "weight")),
    )


def _context(row: Row) -> list[str]:
    given = row.get("context")
    paths = given if isinstance(given, list) else [given]
    return [read_text({"context": path}, "context") for path in paths if path not in (None, "")]


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
    summary="your own pairs of images, videos or texts, from a CSV or JSONL file: prompt, image_1, image_2, "
    "preferred (1, 2, tie) or p",
    source=Source(needs="a CSV or JSONL file and its images or videos"),
    read=_read,
    judge=_judge,
    options_type=PairsOptions,
    strict=True,
)
