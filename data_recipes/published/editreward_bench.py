"""The recipe `editreward_bench`: EditReward-Bench (TIGER-Lab, arXiv 2509.26346), rankings of two to four
edits.

    id, instruction, source_image, candidate_1, ..., candidate_4, ranking, dataset (2pair, 3pair, 4pair),
    scores

`ranking` names candidate_1 "A", candidate_2 "B", ...: "C>A>B", "A>B", and "A=B=Good" or "A=B=Bad" for a tie
of all. "Good" and "Bad" are no candidates; they are a tag. Some rows stand twice with opposite rankings
(issues 14 and 15 of TIGER-AI-Lab/EditReward): of such a pair, each ranking is a vote, so that it is a tie of
two, counted as contradictory. Everything is in this dataset's test split. EditScore's dataset of the same
name is the recipe `editscore_bench`.
"""

from collections.abc import Sequence

from data_recipes.pipeline import LeftOut, Rating, SourceOptions, Statement, content_name, dataset, ranked
from data_recipes.readers import Part, Row, in_split, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE"]

LETTERS = "ABCD"
NAMES = tuple(f"candidate_{n}" for n in range(1, len(LETTERS) + 1))
COLUMNS = ("id", "instruction", "source_image", *NAMES, "ranking", "dataset")
VERDICTS = ("Good", "Bad")


def _read(options: SourceOptions) -> Sequence[Part]:
    return in_split(read_source(options.source, columns=COLUMNS, splits={}), "test")


def _judge(row: Row, options: SourceOptions) -> Statement | list[Rating]:
    if not row["ranking"]:
        return LeftOut(reason="not labelled", prompt=row["instruction"])
    ranks, verdict = _ranks(row["ranking"])
    tags = {"dataset": row.get("dataset"), "verdict": verdict}
    candidates = [row[NAMES[LETTERS.index(letter)]] for letter in ranks]
    return ranked(
        row["instruction"],
        candidates,
        list(ranks.values()),
        # A set for each row, and for the two rankings of a row that stands twice, unless they agree.
        set=" ".join([row["ranking"], *map(content_name, candidates)]),
        context=[row["source_image"]],
        tags={name: value for name, value in tags.items() if value},
    )


def _ranks(ranking: str) -> tuple[dict[str, int], str]:
    """Rank by letter, 1 for the best, and "Good" or "Bad" where the ranking says so of all."""
    tiers = [[name.strip() for name in tier.split("=")] for tier in ranking.split(">")]
    named = [(name, rank) for rank, tier in enumerate(tiers, 1) for name in tier]
    placed = [(name, rank) for name, rank in named if name not in VERDICTS]
    if sorted(name for name, _ in placed) != list(LETTERS[: len(placed)]):
        raise DataError(
            f"ranking must name each of A, B, ... once, as in C>A>B or A=B=Good; received {ranking!r}"
        )
    return dict(placed), next((name for name, _ in named if name in VERDICTS), "")


RECIPE = dataset(
    name="editreward_bench",
    summary="EditReward-Bench (TIGER-Lab): rankings of two to four edits of an image",
    source=Source(
        url="https://huggingface.co/datasets/TIGER-Lab/EditReward-Bench",
        licence="Apache-2.0",
        size="1,739 images, 2.9 GB",
        needs="the folders 2pair, 3pair and 4pair with their parquet files, or one of them",
    ),
    read=_read,
    judge=_judge,
)
