"""The recipe `hpdv2`: Human Preference Dataset v2 (arXiv 2306.09341).

    train.json  prompt, file_path or image_path (two names), human_preference ([1, 0] or [0, 1]; 1 is better)
    test.json   prompt, image_path (nine names), rank (smaller = better), raw_annotations ({rank, user_hash})

The README calls the paths of train.json `file_path`, files on the Hub also `image_path`. Names are those of
files in `train/` and `test/`, as the two archives unpack. Four images of train are damaged (00006811,
00168743, 00310087 and 00331911): HPSv2's loader gives the next row instead of theirs, which counts that one
twice.

`rank` is the consensus that published accuracies are computed against: 400 x 36 pairs of test. The 153,000
pairs that others report are those of each annotator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from data_recipes.pipeline import Judgement, Rating, SourceOptions, Statement, dataset, one_of, ranked
from data_recipes.readers import Part, Row, read_files
from data_recipes.recipe import Source

__all__ = ["RECIPE", "Hpdv2Options"]

LABELS = ("consensus", "annotators")
ARCHIVES = "t*.tar.gz"  # of the repository: train and test, and not those below benchmark/


@dataclass(frozen=True, slots=True, kw_only=True)
class Hpdv2Options(SourceOptions):
    """Which labels of test are read."""

    labels: Annotated[str, "of test: consensus (the averaged ranking) or annotators (shares of votes)"] = (
        "consensus"
    )

    def __post_init__(self) -> None:
        super(Hpdv2Options, self).__post_init__()
        one_of("labels", self.labels, LABELS)


def _read(options: Hpdv2Options) -> Sequence[Part]:
    return read_files(options.source, "*.json", splits={"train": "train", "test": "test"})


def _judge(row: Row, options: Hpdv2Options) -> Statement | Iterator[Rating]:
    prompt, names = row["prompt"], row.get("file_path") or row["image_path"]
    folder = f"{row['__split__']}/" if row["__split__"] else ""
    images = [name if name is None or "/" in name else f"{folder}{name}" for name in names]
    if "human_preference" in row:
        first, second = images
        votes = row["human_preference"]
        return Judgement.voted(prompt, first, second, (votes[0], votes[1]))
    consensus = options.labels == "consensus"
    rankings = [row["rank"]] if consensus else [one["rank"] for one in row["raw_annotations"]]
    return (
        rating
        for n, ranks in enumerate(rankings)
        for rating in ranked(prompt, images, ranks, set=f"{images[0]} {n}")
    )


RECIPE = dataset(
    name="hpdv2",
    summary="HPDv2: pairs of images of 9 models and of photographs; test has rankings of nine",
    source=Source(
        url="https://huggingface.co/datasets/ymhao/HPDv2",
        licence="Apache-2.0",
        size="645,000 pairs to train (32 GB), 400 rankings of nine images to test (158 MB)",
        needs="train.json, test.json and the unpacked train.tar.gz and test.tar.gz, or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=Hpdv2Options,
    archives=ARCHIVES,
    max_candidates=16,
)
