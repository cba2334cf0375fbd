"""The recipe `videodpo`: pairs of videos of one model that VideoDPO's OmniScore orders (arXiv 2412.14167).

    pair.json: video1, video2 (numbers of videos), frame_caption, label (always 0: video1 is preferred), ...

An even number is a file of winvideos/, an odd one of losevideos/, both with half the number as their name: 7
is losevideos/000003.mp4. The labels are those of a scorer, not of people. The layout is that which LightRFT's
loader reads; the files themselves could not be looked into.
"""

from collections.abc import Sequence

from data_recipes.pipeline import Judgement, SourceOptions, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE"]

FOLDERS = ("winvideos", "losevideos")
P_FIRST = {0: 1.0, 1: 0.0}


def _read(options: SourceOptions) -> Sequence[Part]:
    return read_source(options.source, files="pair.json", splits={})


def _judge(row: Row, options: SourceOptions) -> Judgement:
    caption, label = row["frame_caption"], row["label"]
    if label not in P_FIRST:
        raise DataError(f"label must be 0 (video1 is preferred) or 1; received {label!r}")
    return Judgement(
        prompt=caption[0] if isinstance(caption, list) and caption else caption,
        first=_file(int(row["video1"])),
        second=_file(int(row["video2"])),
        p=P_FIRST[label],
    )


def _file(number: int) -> str:
    return f"{FOLDERS[number % 2]}/{number // 2:06d}.mp4"


RECIPE = dataset(
    name="videodpo",
    summary="VideoDPO: pairs of videos of one model, ordered by a scorer",
    source=Source(
        url="https://huggingface.co/datasets/VideoDPOData/VCDPO2Data",
        licence="MIT",
        size="10,000 prompts, 32 GB",
        needs="pair.json beside winvideos/ and losevideos/; PyAV: prefrm[video]",
    ),
    read=_read,
    judge=_judge,
)
