"""The recipe `hpdv3_plus`: HPDv3++, pairs of images of Qwen-Image (arXiv 2606.14657).

    train/train_aes.json, train/train_tf.json, test/test_aes.json, test/test_tf.json: prompt, path1, path2

`path1` is always the preferred image. There are two axes, aesthetics and text-following, and they may prefer
different images of one pair: each is a dataset. Paths are relative to the folder that holds train/ and
test/, not to the file that names them. The other files of train/ (stage1_labeled, stage1_ref,
stage2_labeled, rollout, ogd_std) belong to the training of HPSv3++ and are not read; stage1_ref.json names
images of HPDv3 that are not in the repository.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from data_recipes.pipeline import AxisOptions, Judgement, dataset
from data_recipes.readers import HUB, Part, Row, read_files
from data_recipes.recipe import Source
from prefrm.errors import ConfigError

__all__ = ["RECIPE", "Hpdv3PlusOptions"]

FOLDERS = ("train", "test")
PIECES = "images.tar.part*"  # of the repository: one tar, cut in pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Hpdv3PlusOptions(AxisOptions):
    """What images are compared by."""

    AXES: ClassVar = {"aesthetics": "aes", "alignment": "tf"}
    ALL_AXES = ()

    axis: Annotated[str, "aesthetics, or alignment (text-following)"] = "aesthetics"


def _read(options: Hpdv3PlusOptions) -> Sequence[Part]:
    axis = options.key
    splits = {f"{split}_{axis}": split for split in FOLDERS}
    parts = read_files(options.source, f"*_{axis}.json", splits=splits)
    if others := [part.name for part in parts if part.split is None]:
        raise ConfigError(
            f"axis={options.axis} is in train_{axis}.json and test_{axis}.json, not {others[0]}"
        )
    return parts


def _judge(row: Row, options: Hpdv3PlusOptions) -> Judgement:
    return Judgement(prompt=row["prompt"], first=row["path1"], second=row["path2"], p=1.0)


def _images(options: Hpdv3PlusOptions) -> tuple[str, str]:
    if options.images:
        return options.images, ""
    if options.source.startswith(HUB):
        return options.source, PIECES
    place = Path(options.source).absolute()
    root = place if place.is_dir() else place.parent
    return str(root.parent if root.name in FOLDERS else root), ""


RECIPE = dataset(
    name="hpdv3_plus",
    summary="HPDv3++: pairs of images of Qwen-Image, by aesthetics or by text-following",
    source=Source(
        url="https://huggingface.co/datasets/Junjun2333/HPDv3-PlusPlus",
        licence="Apache-2.0",
        size="aesthetics: 100,463 pairs to train, 5,720 to test; text-following: 90,908 and 4,465",
        needs="train/, test/ and the images (cat images.tar.part* | tar x), or hf://",
    ),
    read=_read,
    judge=_judge,
    options_type=Hpdv3PlusOptions,
    images=_images,
)
