"""The recipe `pickapic`: Pick-a-Pic v1 and v2 (arXiv 2305.01569), as parquet files or as the webdataset
mirror.

    caption, jpg_0, jpg_1 (encoded images), label_0, label_1 (1 = preferred; 0.5 each = tie), has_label, ...

P(image 0 is preferred) is `label_0`, as in PickScore's trainer. The rows of `validation_unique` and
`test_unique` are also in `validation` and `test`: one of the two is read, or votes would count twice. The
published baselines are on `test_unique`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from data_recipes.pipeline import Judgement, LeftOut, SourceOptions, Statement, dataset, one_of
from data_recipes.readers import Part, Row, read_source
from data_recipes.recipe import Source
from prefrm.errors import DataError

__all__ = ["RECIPE", "PickapicOptions"]

COLUMNS = ("caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label")
COLUMNS_CHECKED = ("best_image_uid", "image_0_uid", "image_1_uid")
MIRROR = {
    "original_prompt.txt": "caption",
    "jpg_0.jpg": "jpg_0",
    "jpg_1.jpg": "jpg_1",
    "label_0.txt": "label_0",
    "label_1.txt": "label_1",
}
EVALUATION = {
    "unique": {"validation_unique": "validation", "test_unique": "test"},
    "all": {"validation": "validation", "test": "test"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PickapicOptions(SourceOptions):
    """Which of the published splits are held out."""

    evaluation: Annotated[str, "unique (one pair a prompt, as in published results) or all"] = "unique"

    def __post_init__(self) -> None:
        super(PickapicOptions, self).__post_init__()
        one_of("evaluation", self.evaluation, tuple(EVALUATION))


def _read(options: PickapicOptions) -> Sequence[Part]:
    splits = {"train": "train", **EVALUATION[options.evaluation]}
    return read_source(options.source, columns=(*COLUMNS, *COLUMNS_CHECKED, *MIRROR), splits=splits)


def _judge(row: Row, options: PickapicOptions) -> Iterator[Statement]:
    row = {MIRROR.get(name, name): value for name, value in row.items()}
    prompt = row["caption"]
    if not row.get("has_label", True):
        yield LeftOut(reason="not labelled", prompt=prompt)
        return
    p, other = float(row["label_0"]), float(row["label_1"])
    if p + other != 1:
        raise DataError(f"label_0 and label_1 must add up to 1; received {p} and {other}")
    if _best(row) not in (p, None):
        yield LeftOut(reason="label against best_image_uid", prompt=prompt)
        return
    yield Judgement(prompt=prompt, first=row["jpg_0"], second=row["jpg_1"], p=p)


def _best(row: dict[str, Any]) -> float | None:
    """What `best_image_uid` says of label_0; None if it is not there."""
    meant = {row.get("image_0_uid"): 1.0, row.get("image_1_uid"): 0.0, "tie": 0.5}
    return meant.get(row.get("best_image_uid") or "")


RECIPE = dataset(
    name="pickapic",
    summary="Pick-a-Pic v1 and v2: pairs that users of a web application chose between",
    source=Source(
        url="https://huggingface.co/datasets/yuvalkirstain/pickapic_v2",
        licence="not stated (the code is MIT)",
        size="v1: 0.6 million pairs, 204 GB; v2: 1.0 million pairs, 335 GB",
        needs="the parquet files, or hf://, also of a mirror: pickapic-anonymous/pickapic_v1, "
        "liuhuohuo2/pick-a-pic-v2, sayakpaul/pickapic_v2_webdataset (tars)",
    ),
    read=_read,
    judge=_judge,
    options_type=PickapicOptions,
)
