"""The recipe `table`: pairs in any parquet, Arrow, JSON, JSON Lines or CSV file or dataset on the Hub, by
its columns.

    --set prompt=caption --set image_1=jpg_0 --set image_2=jpg_1 --set label=label_0

A column of a column is named with dots: `images.0`, `votes.left`. Who is preferred stands in one of

    label               a number, P(image_1 is preferred), or a value that `first`, `second` or `tie` lists;
                        a value that no list has is no label
    score_1, score_2    numbers of the two images, of which the higher is better
    votes_1, votes_2    numbers of votes
    preferred           no column: image_1 or image_2, for a table whose winner always has the same place
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import ConfigError, DataError

__all__ = ["RECIPE", "TableOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions(SourceOptions):
    """The columns of a table."""

    prompt: Annotated[str, "column of the prompt"] = "prompt"
    image_1: Annotated[str, "column of an image: bytes, an Image feature, or a path"] = "image_1"
    image_2: Annotated[str, "column of the other image"] = "image_2"
    label: Annotated[str, "column of P(image_1 is preferred), or of the values below"] = ""
    first: Annotated[str, "labels that prefer image_1, with commas between"] = ""
    second: Annotated[str, "labels that prefer image_2"] = ""
    tie: Annotated[str, "labels of ties"] = ""
    score_1: Annotated[str, "column of image_1's score, higher is better"] = ""
    score_2: Annotated[str, "column of image_2's score"] = ""
    votes_1: Annotated[str, "column of the votes for image_1"] = ""
    votes_2: Annotated[str, "column of the votes for image_2"] = ""
    preferred: Annotated[str, "image_1 or image_2, if it is always the same"] = ""
    weight: Annotated[str, "column of the number of votes"] = ""
    config: Annotated[str, "which configuration of a dataset on the Hub"] = ""

    def __post_init__(self) -> None:
        super(TableOptions, self).__post_init__()
        ways = [self.label, self.score_1 and self.score_2, self.votes_1 and self.votes_2, self.preferred]
        if sum(map(bool, ways)) != 1:
            raise ConfigError(
                "say who is preferred by one of label, score_1 and score_2, votes_1 and votes_2, or preferred"
            )
        one_of("preferred", self.preferred, ("", "image_1", "image_2"))


COLUMNS = ("prompt", "image_1", "image_2", "label", "score_1", "score_2", "votes_1", "votes_2", "weight")


def _read(options: TableOptions) -> Sequence[Part]:
    named = [getattr(options, f.name) for f in fields(options) if f.name in COLUMNS]
    columns = tuple(name.split(".")[0] for name in named if name)
    return read_source(options.source, columns=columns, config=options.config or None)


def _judge(row: Row, options: TableOptions) -> Statement:
    prompt = _at(row, options.prompt)
    if options.votes_1:
        votes = (float(_at(row, options.votes_1)), float(_at(row, options.votes_2)))
        return Judgement.voted(prompt, _at(row, options.image_1), _at(row, options.image_2), votes)
    found = _p(row, options)
    if found is None:
        return LeftOut(reason="not labelled", prompt=prompt)
    weight = float(_at(row, options.weight)) if options.weight else 1.0
    first, second = _at(row, options.image_1), _at(row, options.image_2)
    return Judgement(prompt=prompt, first=first, second=second, p=found, weight=weight)


def _p(row: Row, options: TableOptions) -> float | None:
    """P(image_1 is preferred); None without a label."""
    if options.preferred:
        return float(options.preferred == "image_1")
    if options.score_1:
        scores = (_at(row, options.score_1), _at(row, options.score_2))
        return None if None in scores else (float(scores[0] > scores[1]) + float(scores[0] >= scores[1])) / 2
    label = _at(row, options.label)
    if not (options.first or options.second):
        try:
            return None if label is None else float(label)
        except ValueError as error:
            raise DataError(
                f"label {str(label)[:40]!r} is not a number; say what it means by first=, second= and tie="
            ) from error
    meant = {1.0: options.first, 0.0: options.second, 0.5: options.tie}
    return next((p for p, values in meant.items() if str(label) in values.split(",")), None)


def _at(row: Any, path: str) -> Any:
    for step in path.split("."):
        row = row[int(step)] if isinstance(row, list) else row[step]
    return row


RECIPE = dataset(
    name="table",
    summary="any table of pairs by a map of its columns: parquet, Arrow, JSON, CSV, webdataset, the Hub",
    source=Source(needs="the file or folder, or hf://org/name"),
    read=_read,
    judge=_judge,
    options_type=TableOptions,
)
