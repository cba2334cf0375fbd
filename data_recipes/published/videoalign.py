"""The recipe `videoalign`: pairs of videos as VideoAlign and VideoGen-RewardBench have them (KwaiVGI, arXiv
2501.13918).

    path_A, path_B, prompt, VQ, MQ, TA (A, B, same or anything else), fps_A, num_frames_A, ...; of the
    benchmark also A_model, B_model and Overall

VQ is visual quality, MQ motion quality and TA text alignment; they disagree about one pair. "same" is a tie;
a value that is empty or neither of the three, such as "invalid", is not labelled. Paths are relative to the
CSV file, in several spellings. Some rows stand several times: each is one judgement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Judgement, LeftOut, Statement, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source

__all__ = ["RECIPE", "VideoalignOptions"]

P_A = {"A": 1.0, "B": 0.0, "same": 0.5}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoalignOptions(AxisOptions):
    """What videos are compared by."""

    AXES: ClassVar = {"VQ": "VQ", "MQ": "MQ", "TA": "TA", "overall": "Overall"}
    CRITERIA: ClassVar = {"VQ": "visual quality", "MQ": "motion quality", "TA": "text alignment"}
    ALL_AXES: ClassVar = ("VQ", "MQ", "TA")

    axis: Annotated[str, "VQ, MQ, TA, all (of the three), or overall, which only the benchmark has"] = "VQ"


def _read(options: VideoalignOptions) -> Sequence[Part]:
    # Of videogen-rewardbench.csv, the name up to the first "-".
    return read_source(options.source, files="*.csv", splits={"train": "train", "videogen": "test"})


def _judge(row: Row, options: VideoalignOptions) -> Statement:
    verdict = (row[options.key] or "").strip()
    if verdict not in P_A:
        return LeftOut(reason="not labelled", prompt=row["prompt"])
    return Judgement(
        prompt=row["prompt"],
        first=row["path_A"],
        second=row["path_B"],
        p=P_A[verdict],
        set="pairs",
    )


RECIPE = dataset(
    name="videoalign",
    summary="VideoAlign: pairs of videos by visual quality, motion quality and text alignment",
    source=Source(
        url="https://huggingface.co/datasets/KwaiVGI/VideoGen-RewardBench",
        licence="MIT (VideoAlign), Apache-2.0 (VideoGen-RewardBench)",
        size="VideoGen-RewardBench: 26,500 pairs, 13 GB",
        needs="the CSV file and its videos, unpacked beside it or as --set images=; PyAV: prefrm[video]",
    ),
    read=_read,
    judge=_judge,
    options_type=VideoalignOptions,
)
