"""The recipe `table`: pairs in any parquet, Arrow, JSON, JSON Lines or CSV file or dataset on the Hub, by
its columns.

    --set prompt=caption --set image_1=jpg_0 --set image_2=jpg_1 --set label=label_0

Candidates are images unless `video_1` and `video_2`, or `text_1` and `text_2`, name their columns. `context`
names the columns of images that belong to the prompt, with commas between; a list in one is several.

A column of a column is named with dots: `images.0`, `votes.left`. Who is preferred is given by one of

    label               a number, P(image_1 is preferred), or a value that `first`, `second` or `tie` lists;
                        rows with any other value are not labelled
    score_1, score_2    numbers of the two candidates, of which the higher is better
    votes_1, votes_2    numbers of votes
    preferred           no column: image_1 or image_2 (video_1, text_1, ...), for a table whose winner always
                        has the same place

A number may be a text, as in a CSV file; null, an empty text and NaN mean that a row is not labelled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, Text, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import ConfigError, DataError

__all__ = ["RECIPE", "TableOptions"]

KINDS = ("image", "video", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions(SourceOptions):
    """The columns of a table."""

    prompt: Annotated[str, "column of the prompt"] = "prompt"
    image_1: Annotated[str, "column of an image: bytes, an Image feature, or a path"] = "image_1"
    image_2: Annotated[str, "column of the other image"] = "image_2"
    video_1: Annotated[str, "column of a video, instead: bytes, a Video feature, or a path"] = ""
    video_2: Annotated[str, "column of the other video"] = ""
    text_1: Annotated[str, "column of a text, instead"] = ""
    text_2: Annotated[str, "column of the other text"] = ""
    context: Annotated[str, "columns of images that belong to the prompt, with commas between"] = ""
    criterion: Annotated[str, "column of what candidates are compared by"] = ""
    criterion_text: Annotated[str, "what candidates are compared by, if it is the same in all rows"] = ""
    label: Annotated[str, "column of P(image_1 is preferred), or of the values below"] = ""
    first: Annotated[str, "labels that prefer image_1, with commas between"] = ""
    second: Annotated[str, "labels that prefer image_2"] = ""
    tie: Annotated[str, "labels of ties"] = ""
    score_1: Annotated[str, "column of image_1's score, higher is better"] = ""
    score_2: Annotated[str, "column of image_2's score"] = ""
    votes_1: Annotated[str, "column of the votes for image_1"] = ""
    votes_2: Annotated[str, "column of the votes for image_2"] = ""
    preferred: Annotated[str, "image_1 or image_2 (or video_1, text_1, ...), if it is always the same"] = ""
    weight: Annotated[str, "column of the number of votes"] = ""
    config: Annotated[str, "which configuration of a dataset on the Hub"] = ""

    def __post_init__(self) -> None:
        super(TableOptions, self).__post_init__()
        ways = [self.label, self.score_1 and self.score_2, self.votes_1 and self.votes_2, self.preferred]
        if sum(map(bool, ways)) != 1:
            raise ConfigError(
                "give the preference by one of label; score_1 and score_2; votes_1 and votes_2; or preferred"
            )
        pairs = {kind: (getattr(self, f"{kind}_1"), getattr(self, f"{kind}_2")) for kind in KINDS}
        if any(bool(first) != bool(second) for first, second in pairs.values()):
            raise ConfigError("give the columns of both candidates, such as text_1 and text_2")
        if all(first for first, _ in (pairs["video"], pairs["text"])):
            raise ConfigError("give the columns of videos or of texts, not of both")
        if self.criterion and self.criterion_text:
            raise ConfigError("give criterion, a column, or criterion_text, not both")
        one_of("preferred", self.preferred, ("", f"{self.kind}_1", f"{self.kind}_2"))
        meant = [_words(values) for values in (self.first, self.second, self.tie)]
        if any(meant) and not (self.label and meant[0] and meant[1]):
            raise ConfigError(
                "first, second and tie list values of the column label: give label, first and second together"
            )
        if shared := (meant[0] & meant[1]) | (meant[2] & (meant[0] | meant[1])):
            raise ConfigError(f"the label {min(shared)!r} is in more than one of first, second and tie")

    @property
    def kind(self) -> str:
        """Of the candidates."""
        return next((kind for kind in ("video", "text") if getattr(self, f"{kind}_1")), "image")

    @property
    def candidates(self) -> tuple[str, str]:
        """The columns of both candidates."""
        return getattr(self, f"{self.kind}_1"), getattr(self, f"{self.kind}_2")

    @property
    def context_columns(self) -> list[str]:
        """The columns of context images."""
        return [column.strip() for column in self.context.split(",") if column.strip()]


COLUMNS = ("prompt", "criterion", "label", "score_1", "score_2", "votes_1", "votes_2", "weight")


def _read(options: TableOptions) -> Sequence[Part]:
    named = [getattr(options, name) for name in COLUMNS]
    named += [*options.candidates, *options.context_columns]
    # A name with dots is that of a column, or of one inside a column.
    columns = dict.fromkeys(column for name in named if name for column in (name, name.split(".")[0]))
    return read_source(options.source, columns=tuple(columns), config=options.config or None)


def _judge(row: Row, options: TableOptions) -> Statement:
    prompt = _at(row, options.prompt)
    first, second = (_at(row, column) for column in options.candidates)
    if options.kind == "text":
        first, second = Text(first), Text(second)
    more = {"context": _context(row, options), "criterion": _criterion(row, options)}
    if options.votes_1:
        votes = _number(row, options.votes_1), _number(row, options.votes_2)
        if votes[0] is None or votes[1] is None:
            return LeftOut(reason="not labelled", prompt=prompt)
        return Judgement.voted(prompt, first, second, (votes[0], votes[1]), **more)
    found = _p(row, options)
    if found is None:
        return LeftOut(reason="not labelled", prompt=prompt)
    weight = _number(row, options.weight) if options.weight else None
    weight = 1.0 if weight is None else weight
    return Judgement(prompt=prompt, first=first, second=second, p=found, weight=weight, **more)


def _context(row: Row, options: TableOptions) -> list[Any]:
    values = [_at(row, column) for column in options.context_columns]
    return [image for value in values for image in (value if isinstance(value, list) else [value])]


def _criterion(row: Row, options: TableOptions) -> Any:
    return (_at(row, options.criterion) or "") if options.criterion else options.criterion_text


def _p(row: Row, options: TableOptions) -> float | None:
    """P(image_1 is preferred); None without a label."""
    if options.preferred:
        return float(options.preferred == f"{options.kind}_1")
    if options.score_1:
        one, other = _number(row, options.score_1), _number(row, options.score_2)
        return None if one is None or other is None else ((one > other) + (one >= other)) / 2
    if not options.first:
        return _probability(row, options.label)
    label = _word(_at(row, options.label))
    meant = {1.0: options.first, 0.0: options.second, 0.5: options.tie}
    return next((p for p, values in meant.items() if label in _words(values)), None)


def _probability(row: Row, column: str) -> float | None:
    """A label that is a number.

    Raises:
        DataError: it is not a number.
        ConfigError: it is beyond [0, 1]: the column does not hold probabilities.
    """
    advice = "list the values that mean each in first=, second= and tie="
    try:
        p = _number(row, column)
    except DataError as error:
        raise DataError(f"{error}; {advice}") from error
    if p is not None and not 0 <= p <= 1:
        raise ConfigError(f"{column} is {p:g}, and P(image_1 is preferred) is in [0, 1]; {advice}")
    return p


def _number(row: Row, column: str) -> float | None:
    """A number, also as text; None where it is missing: null, an empty text or NaN."""
    value = _at(row, column)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{column} is not a number but {str(value)[:40]!r}") from error
    return None if math.isnan(number) else number


def _words(values: str) -> set[str]:
    return {_word(value) for value in values.split(",")} - {""}


def _word(value: Any) -> str:
    # A column of whole numbers with an empty cell among them is one of floats.
    return "" if value is None else str(value).strip().removesuffix(".0")


def _at(row: Any, path: str) -> Any:
    if path in row:
        return row[path]
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
