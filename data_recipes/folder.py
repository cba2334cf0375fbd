"""The recipe `folder`: images in folders, without labels: what `prefrm label` and a comparison of models
take.

The prompt of an image is, in this order,

    metadata.jsonl, metadata.csv    beside it, as `imagefolder` of `datasets` has them: `file_name` and a
                                    column `prompt`, `text` or `caption`; without `file_name`, of all images
                                    below
    prompt.txt                      in its folder or in one above
    the name of its folder          if the images are in folders of their own
    its file name                   without a counter: "a red cat_1.png", "a red cat (2).png"

In names without blanks, "_" stands for one. Images under one prompt are one group, or several if there are
many.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from data_recipes.pipeline import Rating, SourceOptions, dataset
from data_recipes.readers import Numbered, Part, Row, read_rows
from data_recipes.recipe import Source
from prefrm.errors import DataError, DatasetError

__all__ = ["RECIPE", "FolderOptions"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
TEXT_COLUMNS = ("prompt", "text", "caption")
COUNTER = re.compile(r"([_-]\d+|\s*\(\d+\))$")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions(SourceOptions):
    """A folder, all of it in one split."""

    source: Annotated[str, "the folder of images"]
    validation: Annotated[float, "share of the prompts in the validation split"] = 0.0
    test: Annotated[float, "share of the prompts in the test split"] = 0.0


def _read(options: FolderOptions) -> Sequence[Part]:
    root = Path(options.source)
    if not root.is_dir():
        raise DatasetError(f"{options.source} is not a folder")
    return [Part(name=root.resolve().name, read=partial(_rows, root), folder=root)]


def _judge(row: Row, options: FolderOptions) -> Rating:
    return Rating(prompt=row["prompt"], image=row["image"], score=None)


def _rows(root: Path, start: int) -> Iterator[Numbered]:
    number = 0
    for folder in (root, *sorted(path for path in root.rglob("*") if path.is_dir())):
        listed = _metadata(folder)
        for image in sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES):
            if number >= start:
                prompt = listed.get(image.name) or _prompt(image, root)
                yield number, {"prompt": prompt, "image": str(image.relative_to(root))}
            number += 1


def _metadata(folder: Path) -> dict[str, str]:
    """Prompt by file name; under "", that of all images."""
    found: dict[str, str] = {}
    for path in (folder / "metadata.jsonl", folder / "metadata.csv"):
        for line, row in read_rows(path) if path.is_file() else ():
            if isinstance(row, DataError):
                raise DatasetError(f"{path}:{line}: {row}")
            text = next((row[name] for name in TEXT_COLUMNS if row.get(name)), None)
            if text is not None:
                found[Path(row.get("file_name") or "").name] = str(text)
    return found


def _prompt(image: Path, root: Path) -> str:
    """The prompt of an image that no metadata lists by name."""
    for folder in image.parents:
        if text := _metadata(folder).get(""):
            return text
        if (file := folder / "prompt.txt").is_file():
            return file.read_text(encoding="utf-8").strip()
        if folder == root:
            break
    name = COUNTER.sub("", image.stem) if image.parent == root else image.relative_to(root).parts[0]
    return name if " " in name else name.replace("_", " ")


RECIPE = dataset(
    name="folder",
    summary="images in folders, without labels: a folder a prompt, metadata.jsonl, or prompts as file names",
    source=Source(needs="a folder of images"),
    read=_read,
    judge=_judge,
    options_type=FolderOptions,
    max_candidates=16,
)
