"""A folder of images used as a dataset: built by the recipe `folder`, and ranked file by file."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefrm.errors import ConfigError

if TYPE_CHECKING:
    from prefrm.records import PreferenceGroup

__all__ = ["SPLIT", "build_groups", "is_dataset", "rank_files"]

SPLIT = "train"  # the one that all images of a folder are in
FOLDER = "dataset"  # of the dataset, in the folder of the labels


def is_dataset(data: Path) -> bool:
    """Whether a folder holds a dataset, or a split of one, rather than images."""
    return (data / "dataset.json").exists() or any(data.glob("*.parquet"))


def build_groups(images: Path, out: Path) -> Path:
    """Build the dataset of a folder of images inside `out`, and print its counts; returns its folder.

    It is built each time, so that it is what the folder holds now; what was labelled from another state is
    then refused by `prefrm.label`.

    Raises:
        ConfigError: `out` has a dataset of another folder.
        DatasetError: the folder has no images, no two under one prompt, or files that cannot be understood.
    """
    from data_recipes.commands import show_progress
    from data_recipes.folder import first_prompts
    from data_recipes.registry import get_recipe
    from prefrm.records import read_info

    folder, source = out / FOLDER, str(images.absolute())
    if (folder / "dataset.json").exists():
        before = read_info(folder).options.get("source")
        if before != source:
            raise ConfigError(f"{out} has labels of {before}; give another --out for {images}")
    with show_progress() as progress:
        built = get_recipe("folder").build(
            folder, overwrite=True, processes=os.cpu_count() or 1, progress=progress, source=source
        )
    for line in built.left_out:
        print(f"left out: {line}", file=sys.stderr)
    print(first_prompts(folder), file=sys.stderr)
    counts = built.info.splits[SPLIT]
    left_out = ", ".join(f"{n} {reason}" for reason, n in counts.left_out.items())
    print(
        f"{images}: {counts.candidates} images in {counts.groups} groups"
        f"{f'; left out: {left_out}' if left_out else ''}"
    )
    return folder


def rank_files(images: Path, dataset: Path, out: Path) -> Path:
    """Write `out/ranking.csv`, the files of each group from the best on; returns its path."""
    from data_recipes.folder import find_images
    from prefrm.label import write_ranking
    from prefrm.media import digest
    from prefrm.records import prompt_key, read_groups

    files = find_images(images)

    def names(group: "PreferenceGroup") -> list[list[str]]:
        key = prompt_key(group.prompt)
        return [files.get((key, digest(image or b"")), []) for image in group.candidates]

    return write_ranking(read_groups(dataset, SPLIT), out, names)
