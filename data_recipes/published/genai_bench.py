"""The recipe `genai_bench`: votes on images, edits and videos in GenAI-Arena (TIGER-Lab, arXiv 2406.04485).

    image_generation    prompt, left_image, right_image
    image_edition       instruct_prompt, source_image, left_output_image, right_output_image; and captions of
                        the source and of the target, source_prompt and target_prompt, which are not read
    video_generation    prompt, left_video, right_video (names of files, which are not in the repository)
    each                left_model, right_model, vote_type (leftvote, rightvote, tievote, bothbad_vote)

The prompt of an edit is its instruction, and its context the source image. "Both bad" is a tie, and is
tagged. Popular prompts recur, with opposite votes on the same images. Where the videos are published could
not be found out: their folder is `--set images=`. The splits test and test_v1 overlap and are never read
together: official accuracies, over four classes, are on test_v1; those of later papers, over strict votes, on
test. Everything is in this dataset's test split. The dataset of the same name with human ratings is the
recipe `genai_bench_ratings`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import ConfigError, DataError

__all__ = ["RECIPE", "GenaiBenchOptions"]

# By task: the configuration, then the columns of the prompt, of both candidates and of the context.
TASKS: Mapping[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    "image": ("image_generation", "prompt", "left_image", "right_image", ()),
    "edit": (
        "image_edition",
        "instruct_prompt",
        "left_output_image",
        "right_output_image",
        ("source_image",),
    ),
    "video": ("video_generation", "prompt", "left_video", "right_video", ()),
}
VERSIONS = ("test", "test_v1")
P_LEFT = {"leftvote": 1.0, "rightvote": 0.0, "tievote": 0.5, "bothbad_vote": 0.5}
TAGS = {"bothbad_vote": {"vote": "both bad"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenaiBenchOptions(SourceOptions):
    """Which of the three tasks and of the two published splits is read."""

    task: Annotated[str, "image, edit or video"] = "image"
    version: Annotated[str, "test, or test_v1 (that of the official leaderboard)"] = "test"

    def __post_init__(self) -> None:
        super(GenaiBenchOptions, self).__post_init__()
        one_of("task", self.task, tuple(TASKS))
        one_of("version", self.version, VERSIONS)


def _read(options: GenaiBenchOptions) -> Sequence[Part]:
    config, *columns, context = TASKS[options.task]
    parts = read_source(
        options.source,
        columns=(*columns, *context, "vote_type"),
        files=f"{config}/*",
        splits={options.version: "test"},
        config=config,
    )
    if others := [part.name for part in parts if part.split is None]:
        raise ConfigError(f"version={options.version} is not in {options.source}, but {', '.join(others)}")
    return parts


def _judge(row: Row, options: GenaiBenchOptions) -> Statement:
    _, asked, left, right, context = TASKS[options.task]
    prompt, vote = row[asked], row["vote_type"]
    if vote is None:
        return LeftOut(reason="not labelled", prompt=prompt)
    if vote not in P_LEFT:
        raise DataError(f"vote_type must be one of {', '.join(P_LEFT)}; received {vote!r}")
    return Judgement(
        prompt=prompt,
        first=row[left],
        second=row[right],
        p=P_LEFT[vote],
        context=[row[name] for name in context],
        tags=TAGS.get(vote, {}),
    )


RECIPE = dataset(
    name="genai_bench",
    summary="GenAI-Bench (TIGER-Lab): votes of an arena on pairs of images, edits or videos",
    source=Source(
        url="https://huggingface.co/datasets/TIGER-Lab/GenAI-Bench",
        licence="CC-BY-4.0",
        size="test: 3,192 votes on images, 983 on edits, 1,889 on videos; test_v1: 1,735, 919, 1,069",
        needs="the folder of a task with its parquet files, one of them, or hf://; of videos, their folder",
    ),
    read=_read,
    judge=_judge,
    options_type=GenaiBenchOptions,
)
