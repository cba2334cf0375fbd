"""The recipe `hpdv3`: Human Preference Dataset v3 (arXiv 2508.03789).

    prompt, path1, path2, choice_dist (votes, or null), confidence (or null), model1, model2

`path1` is always the preferred image. `choice_dist` is sorted or not, but never aligned with the paths: the
larger number are the votes for `path1`. The training split holds images of HPDv2: build with `--apart-from` a
dataset of HPDv2's test split before reporting on that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset
from data_recipes.readers import Part, Row, read_files
from data_recipes.recipe import Source

__all__ = ["RECIPE", "Hpdv3Options"]

PIECES = "images.tar.gz.*"  # of the repository: one tar, cut in pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Hpdv3Options(SourceOptions):
    """Which rows train is made of."""

    min_confidence: Annotated[float, "leave out rows below it, but of test; HPSv3 trains with 0.95"] = 0.0


def _read(options: Hpdv3Options) -> Sequence[Part]:
    return read_files(options.source, "*.json", splits={"train": "train", "test": "test"})


def _judge(row: Row, options: Hpdv3Options) -> Statement:
    prompt, votes, confidence = row["prompt"], row.get("choice_dist"), row.get("confidence")
    if row["__split__"] != "test" and confidence is not None and confidence < options.min_confidence:
        return LeftOut(reason="low confidence", prompt=prompt)
    first, second = row["path1"], row["path2"]
    if not votes:
        return Judgement(prompt=prompt, first=first, second=second, p=1.0)
    return Judgement.voted(prompt, first, second, (max(votes), sum(votes) - max(votes)))


RECIPE = dataset(
    name="hpdv3",
    summary="HPDv3: pairs of images of 16 models and of photographs, with votes",
    source=Source(
        url="https://huggingface.co/datasets/MizzenAI/HPDv3",
        licence="MIT",
        size="1.17 million pairs of 1.08 million images, 141 GB",
        needs="train.json, test.json and the images (cat images.tar.gz.* | tar xz), or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=Hpdv3Options,
    archives=PIECES,
)
