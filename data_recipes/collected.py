"""The recipe `collected`: answers of people to pairs of a dataset, from the page "Collect" of `prefrm app`.

`source` is the SQLite file of the answers, which names the dataset; `data` is its place if it has moved. Left
and right are preferences, a tie and "both bad" are ties, and skipped pairs are left out. Answers to known
pairs, which measure the annotators, are not part of the dataset. An annotator's equal answers to a repeated
pair count once.

With `annotators=reliable`, answers of annotators who are surely closer to chance than most others, or nearly
always prefer the same side, are left out (`prefrm.answers.annotators`). With `response_times=read`, p of a
strict answer is the probability that it is the annotator's true preference, by a drift-diffusion model of the
annotator's times (`prefrm.answers.response_times`): near 1 for a quick answer, lower for a slow one; and its
weight is the probability that the annotator attended to the pair at all.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, Text, dataset, one_of
from data_recipes.readers import Numbered, Part, Row
from data_recipes.recipe import Source
from prefrm import media
from prefrm.answers import Answer, AnswersOf, read_answers
from prefrm.answers.annotators import assess_annotators
from prefrm.answers.response_times import TimeReading, read_response_times
from prefrm.data import LoadedGroups, load_groups
from prefrm.errors import DatasetError
from prefrm.records import PreferenceGroup, read_info

__all__ = ["RECIPE", "CollectedOptions"]

ANNOTATORS = ("reliable", "all")
RESPONSE_TIMES = ("ignore", "read")
SKIPPED, UNRELIABLE, INATTENTIVE = "skipped", "unreliable annotator", "inattentive by its response time"
LEAST_ATTENTION = 0.01
"""An answer that is less likely to be a decision is left out."""
CERTAIN = TimeReading(certainty=1.0, attention=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedOptions(SourceOptions):
    """A file of answers."""

    source: Annotated[str, "the SQLite file of the answers"]
    data: Annotated[str, "folder or hf://org/name of the dataset, if it is not where it was"] = ""
    annotators: Annotated[str, "whose answers count: reliable or all"] = "reliable"
    response_times: Annotated[str, "ignore, or read them as certainty and attention"] = "ignore"

    def __post_init__(self) -> None:
        super(CollectedOptions, self).__post_init__()
        one_of("annotators", self.annotators, ANNOTATORS)
        one_of("response_times", self.response_times, RESPONSE_TIMES)


def _read(options: CollectedOptions) -> Sequence[Part]:
    answers_of, answers = read_answers(options.source)
    groups = _groups(options, answers_of)
    readings = read_response_times(answers) if options.response_times == "read" else {}
    unreliable = (
        {report.name for report in assess_annotators(answers) if report.unreliable}
        if options.annotators == "reliable"
        else set()
    )
    asked: defaultdict[str, list[Row]] = defaultdict(list)
    for answer in answers:
        if answer.question.purpose != "known":
            row = _row(answer, readings.get(answer.question.id, CERTAIN), unreliable)
            asked[answer.question.group].append(row)
    if not asked:
        raise DatasetError(f"{options.source} has no answers about {answers_of.data}; collect some first")
    return [
        Part(
            name="answers",
            read=partial(_rows, groups, dict(asked)),
            split=answers_of.split,
            total=sum(map(len, asked.values())),
            stamp=hashlib.sha256(repr((answers_of.fingerprint, answers)).encode()).hexdigest(),
        )
    ]


def _groups(options: CollectedOptions, answers_of: AnswersOf) -> LoadedGroups:
    data = options.data or answers_of.data
    try:
        groups = load_groups(data, answers_of.split)
        found = read_info(groups.folder).fingerprints.get(answers_of.split)
    except DatasetError as error:
        advice = "" if options.data else "; if the dataset has moved, give its place as --set data=FOLDER"
        raise DatasetError(f"{options.source}: {error}{advice}") from error
    if found != answers_of.fingerprint:
        raise DatasetError(
            f"{options.source} has answers about another dataset than {data}: its split "
            f"{answers_of.split} has the fingerprint {found}, that of the answers {answers_of.fingerprint}"
        )
    return groups


def _row(answer: Answer, reading: TimeReading, unreliable: set[str]) -> Row:
    asked, p = answer.question, answer.p_left
    reason = ""
    if p is None:
        reason = SKIPPED
    elif asked.annotator in unreliable:
        reason = UNRELIABLE
    elif reading.attention < LEAST_ATTENTION:
        reason = INATTENTIVE
    return {
        "first": asked.left,
        "second": asked.right,
        "p": 0.5 if p is None else p * reading.certainty + (1 - p) * (1 - reading.certainty),
        "weight": reading.attention,
        "criterion": asked.criterion,
        "set": asked.annotator,
        "reason": reason,
    }


def _rows(groups: LoadedGroups, asked: Mapping[str, Sequence[Row]], start: int) -> Iterator[Numbered]:
    yield from islice(enumerate(row for group in groups for row in _of_group(group, asked)), start, None)


def _of_group(group: PreferenceGroup, asked: Mapping[str, Sequence[Row]]) -> Iterator[Row]:
    contents = {media.digest(candidate): candidate for candidate in group.candidates if candidate}
    for row in asked.get(group.id, ()):
        first, second = (contents[row[side]] for side in ("first", "second"))
        yield {
            **row,
            "prompt": group.prompt,
            "first": Text(first) if isinstance(first, str) else first,
            "second": Text(second) if isinstance(second, str) else second,
            "context": group.context,
            "tags": dict(group.tags),
        }


def _judge(row: Row, options: CollectedOptions) -> Statement:
    if row["reason"]:
        return LeftOut(reason=row["reason"], prompt=row["prompt"])
    names = ("prompt", "first", "second", "p", "weight", "context", "criterion", "tags", "set")
    return Judgement(**{name: row[name] for name in names})


RECIPE = dataset(
    name="collected",
    summary="answers that people gave on the page Collect of `prefrm app`",
    source=Source(needs="the SQLite file of the answers, and the dataset that they are about"),
    read=_read,
    judge=_judge,
    options_type=CollectedOptions,
)
