"""The recipe `genai_bench`: votes on text-to-image pairs in GenAI-Arena (TIGER-Lab, arXiv 2406.04485).

    prompt, left_model, left_image, right_model, right_image,
    vote_type (leftvote, rightvote, tievote, bothbad_vote)

"Both bad" is a tie between two images, and is tagged. Popular prompts recur, with opposite votes on the same
images. The splits test and test_v1 overlap and are never read together: official accuracies, over four
classes, are on test_v1; those of later papers, over strict votes, on test. Everything is in this dataset's
test split. The dataset of the same name with human ratings is the recipe `genai_bench_ratings`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import ConfigError, DataError

__all__ = ["RECIPE", "GenaiBenchOptions"]

COLUMNS = ("prompt", "left_image", "right_image", "vote_type")
CONFIG = "image_generation"
VERSIONS = ("test", "test_v1")
P_LEFT = {"leftvote": 1.0, "rightvote": 0.0, "tievote": 0.5, "bothbad_vote": 0.5}
TAGS = {"bothbad_vote": {"vote": "both bad"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenaiBenchOptions(SourceOptions):
    """Which of the two published splits is read."""

    version: Annotated[str, "test, or test_v1 (that of the official leaderboard)"] = "test"

    def __post_init__(self) -> None:
        super(GenaiBenchOptions, self).__post_init__()
        one_of("version", self.version, VERSIONS)


def _read(options: GenaiBenchOptions) -> Sequence[Part]:
    parts = read_source(
        options.source,
        columns=COLUMNS,
        files=f"{CONFIG}/*",
        splits={options.version: "test"},
        config=CONFIG,
    )
    if others := [part.name for part in parts if part.split is None]:
        raise ConfigError(f"version={options.version} is not in {options.source}, but {', '.join(others)}")
    return parts


def _judge(row: Row, options: GenaiBenchOptions) -> Statement:
    prompt, vote = row["prompt"], row["vote_type"]
    if vote is None:
        return LeftOut(reason="not labelled", prompt=prompt)
    if vote not in P_LEFT:
        raise DataError(f"vote_type must be one of {', '.join(P_LEFT)}; received {vote!r}")
    return Judgement(
        prompt=prompt,
        first=row["left_image"],
        second=row["right_image"],
        p=P_LEFT[vote],
        tags=TAGS.get(vote, {}),
    )


RECIPE = dataset(
    name="genai_bench",
    summary="GenAI-Bench (TIGER-Lab): votes of an arena on text-to-image pairs",
    source=Source(
        url="https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench",
        licence="CC-BY-4.0",
        size="test: 3,192 votes (0.4 GB); test_v1: 1,735 (0.2 GB)",
        needs="the folder image_generation with its parquet files, one of them, or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=GenaiBenchOptions,
)
