"""The recipe `videofeedback`: VideoFeedback of VideoScore (TIGER-Lab, arXiv 2406.15252), videos with five
ratings.

    id, conversations: [{from: human, value: ... text prompt is "PROMPT", ...},
                        {from: gpt, value: "visual quality: 3\\ntemporal consistency: 2\\n..."}]

Ratings are 1 to 4, higher is better. Only videos of one prompt are compared; the others are counted as left
out. The files called real hold real videos with the best ratings throughout, of which a judge would learn to
tell real from generated: they are not read. A video is `<id>.mp4` in the unpacked zips of videos, by their
commits on the Hub (videos_annotated_train.zip, ...); the files themselves could not be looked into, so `--set
images=` is the folder that holds them. The frames of other zips are not read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Rating, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "VideofeedbackOptions"]

PROMPT = re.compile(r'text prompt is "(.*?)",\s*\n', re.DOTALL)
REAL = "real"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideofeedbackOptions(AxisOptions):
    """What videos are compared by."""

    AXES: ClassVar = {
        "visual_quality": "visual quality",
        "temporal_consistency": "temporal consistency",
        "dynamic_degree": "dynamic degree",
        "alignment": "text-to-video alignment",
        "factual_consistency": "factual consistency",
    }
    CRITERIA: ClassVar = AXES

    axis: Annotated[
        str,
        "visual_quality, temporal_consistency, dynamic_degree, alignment, factual_consistency or all",
    ] = "visual_quality"


def _read(options: VideofeedbackOptions) -> Sequence[Part]:
    parts = read_source(options.source, columns=("id", "conversations"), config="annotated")
    return [part for part in parts if REAL not in part.name]


def _judge(row: Row, options: VideofeedbackOptions) -> Rating:
    said = {turn["from"]: turn["value"] for turn in row["conversations"]}
    prompt = PROMPT.search(said["human"])
    score = re.search(rf"{re.escape(options.key)}:\s*(\d+(?:\.\d+)?)", said["gpt"])
    if prompt is None or score is None:
        raise DataError(f"no text prompt, or no rating of {options.key} in the answer {said['gpt']:.60}")
    return Rating(prompt=prompt[1], candidate=f"{row['id']}.mp4", score=float(score[1]))


RECIPE = dataset(
    name="videofeedback",
    summary="VideoFeedback: generated videos rated on five aspects",
    source=Source(
        url="https://huggingface.co/datasets/TIGER-Lab/VideoFeedback",
        licence="Apache-2.0",
        size="32,900 videos to train, 680 to test, of which few share a prompt",
        needs="the JSON or parquet files, and the unpacked videos as --set images=; PyAV: prefrm[video]",
    ),
    read=_read,
    judge=_judge,
    options_type=VideofeedbackOptions,
)
