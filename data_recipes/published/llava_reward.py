"""The recipe `llava_reward`: ImageRewardDB and other images as pairs, by LLaVA-Reward (arXiv 2507.21391).

    prompt_id, prompt (text, or a list of two), chosen_path, c_rate, reject_path, r_rate

The folders ranking, overall_rating, alignment and fidelity of data/ImageReward are axes. In the last three,
images are compared by their rates, 1 to 7, and equal rates are a tie, although one of the images stands in
`chosen_path`. In ranking, `chosen_path` is the image with the better rank, whatever the rates: a rate is
given to an image alone, and raters ranked images that they had rated alike.

`prompt` has one text twice; where the two differ, the captions were swapped and the row does not compare two
images under one prompt. Paths are those of the authors' disk or relative to their repository: the file's name
is looked up in `images`, as the repository's own re_path.py does. Files of (path, label, prompt) classify
single images and are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Judgement, LeftOut, Statement, dataset
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import ConfigError

__all__ = ["RECIPE", "LlavaRewardOptions"]

RANKING = "ranking"


@dataclass(frozen=True, slots=True, kw_only=True)
class LlavaRewardOptions(AxisOptions):
    """What images are compared by."""

    AXES: ClassVar = {
        RANKING: "ranking",
        "overall": "overall_rating",
        "alignment": "alignment",
        "fidelity": "fidelity",
    }
    ALL_AXES = ()

    axis: Annotated[str, "ranking, overall, alignment or fidelity: a folder of data/ImageReward"] = RANKING


def _read(options: LlavaRewardOptions) -> Sequence[Part]:
    folder = PurePath(options.source).parent.name
    if folder in options.AXES.values() and folder != options.key:
        raise ConfigError(f"axis={options.axis} is in {options.key}/, not in {options.source}")
    return read_source(options.source, files=f"{options.key}/*.json")


def _judge(row: Row, options: LlavaRewardOptions) -> Statement:
    prompts = row["prompt"] if isinstance(row["prompt"], list) else [row["prompt"]]
    if len(set(prompts)) > 1:
        return LeftOut(reason="two prompts", prompt=prompts[0])
    chosen, rejected = (PurePosixPath(row[name]).name for name in ("chosen_path", "reject_path"))
    tied = options.axis != RANKING and row["c_rate"] == row["r_rate"]
    return Judgement(prompt=prompts[0], first=chosen, second=rejected, p=0.5 if tied else 1.0)


RECIPE = dataset(
    name="llava_reward",
    summary="LLaVA-Reward: ImageRewardDB as pairs, by rank, overall rating, alignment or fidelity",
    source=Source(
        url="https://github.com/sjz5202/LLaVA-Reward",
        licence="Apache-2.0",
        size="the pairs of ImageRewardDB's train split",
        needs="data/ImageReward of the repository, and the images in one folder (--set images=)",
    ),
    read=_read,
    judge=_judge,
    options_type=LlavaRewardOptions,
)
