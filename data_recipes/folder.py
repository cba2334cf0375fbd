"""The recipe `folder`: images or videos in folders, without labels, as `prefrm label` takes them.

The prompt of an image is the first that is found, in its folder and then in those above,

    metadata.jsonl, metadata.csv    as `imagefolder` of `datasets` has them: `file_name`, relative to them,
                                    and a column `prompt`, `text` or `caption`; without `file_name`, of all
                                    images below
    prompt.txt                      of all images below

or else the name of the topmost folder that it is in, after those that are called train, test, ..., or, of an
image in no other folder, its file name without a counter: "a red cat_1.png", "a red cat (2).png". In names
without spaces, "_" is read as a space. A name without a letter is not a valid prompt. Images with the same
prompt are one group, or several if there are many; videos, which are looked up in the same way, are groups of
their own. Hidden files and folders are not read.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import dropwhile, islice
from pathlib import Path
from posixpath import normpath
from typing import Annotated

from data_recipes.pipeline import Rating, SourceOptions, dataset
from data_recipes.readers import SPLIT_NAMES, Numbered, Part, Row, read_rows
from data_recipes.readers.part import is_hidden, stamp
from data_recipes.recipe import Source
from prefrm import media
from prefrm.errors import DataError, DatasetError, MediaError
from prefrm.records import SPLITS, prompt_key, read_info, read_prompts

__all__ = ["RECIPE", "FolderOptions", "find_images", "first_prompts", "read_parts"]

TEXT_COLUMNS = ("prompt", "text", "caption")
METADATA = ("metadata.jsonl", "metadata.csv")
PROMPT = "prompt.txt"
SHOWN = 5  # prompts that a person is shown
COUNTER = re.compile(r"([_-]\d+|\s*\(\d+\))$")


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOptions(SourceOptions):
    """A folder, all of it in one split."""

    source: Annotated[str, "the folder of images or videos"]
    validation: Annotated[float, "share of the prompts in the validation split"] = 0.0
    test: Annotated[float, "share of the prompts in the test split"] = 0.0


def find_images(source: Path) -> Mapping[tuple[str, str], list[str]]:
    """The paths of readable images by `prompt_key` and digest: which files a candidate of a group is."""
    found = defaultdict(list)
    for _, row in _rows(source, 0):
        if not isinstance(row, DataError):
            try:
                image = media.convert(media.read_bytes(source / row["image"]))
            except MediaError:
                continue
            found[prompt_key(row["prompt"]), media.digest(image)].append(row["image"])
    return found


def first_prompts(dataset: Path) -> str:
    """A line with the first prompts of a dataset: names of folders may not be the prompts that were meant."""
    known = read_info(dataset).fingerprints
    prompts = (prompt for split in SPLITS if split in known for prompt in read_prompts(dataset, split))
    shown: dict[str, None] = {}
    while len(shown) <= SHOWN and (prompt := next(prompts, None)) is not None:
        shown[repr(prompt)] = None
    more = ", ..." if len(shown) > SHOWN else ""
    return f"prompts: {', '.join(islice(shown, SHOWN))}{more}"


def read_parts(options: FolderOptions) -> Sequence[Part]:
    """The folder as one part. Raises `DatasetError` if it is not a folder, or holds no image."""
    root = Path(options.source)
    if not root.is_dir():
        raise DatasetError(f"{options.source} {'is not a folder' if root.exists() else 'does not exist'}")
    if not any(_is_image(path) for path in _files(root)):
        raise DatasetError(
            f"{root} has no images or videos: no file name ends with {', '.join(media.MEDIA_SUFFIXES)}"
        )
    return [Part(name=root.resolve().name, read=partial(_rows, root), folder=root, stamp=_stamp(root))]


def _judge(row: Row, options: FolderOptions) -> Rating:
    return Rating(prompt=row["prompt"], candidate=row["image"], score=None)


def _rows(root: Path, start: int) -> Iterator[Numbered]:
    prompts = _Prompts(root)
    for number, image in enumerate(islice(_images(root, prompts), start, None), start):
        try:
            yield number, {"prompt": prompts.of(image), "image": image.relative_to(root).as_posix()}
        except DataError as error:
            if isinstance(error, DatasetError):
                raise
            yield number, error


def _images(root: Path, prompts: "_Prompts") -> Iterator[Path]:
    """The image files, and the files that metadata names and that do not exist, folder by folder."""
    for folder in (root, *(path for path in _files(root) if path.is_dir())):
        yield from sorted(path for path in folder.iterdir() if _is_image(path))
        listed = (folder / name for name in prompts.listed_in(folder).listed)
        # Of a name that no file can have, `Path.exists` raises.
        yield from sorted(path for path in listed if not os.path.exists(path))


def _files(root: Path) -> list[Path]:
    """Every file and folder below, in an order that never changes."""
    found = (path for path in root.rglob("*") if not is_hidden(path.relative_to(root)))
    return sorted(found)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in media.MEDIA_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _stamp(root: Path) -> str:
    """A digest that changes with every file that the rows depend on: images and files of prompts."""
    state = hashlib.sha256()
    for path in _files(root):
        if path.is_file() and (_is_image(path) or path.name in (*METADATA, PROMPT)):
            state.update(f"{path.relative_to(root)}\0{stamp(path)}\0".encode(errors="surrogateescape"))
    return state.hexdigest()


@dataclass(frozen=True, slots=True)
class _Listed:
    """The prompts that the files of a folder give: by relative path, and one for all other images below."""

    listed: dict[str, str] = field(default_factory=dict)
    every: str | None = None


class _Prompts:
    """The prompts of the images below a folder; each metadata file is read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[Path, _Listed] = {}

    def of(self, image: Path) -> str:
        """The prompt of an image. Raises `DataError` if it has none."""
        for folder in image.parents:
            found = self.listed_in(folder)
            text = found.listed.get(image.relative_to(folder).as_posix(), found.every)
            if text is not None:
                return text
            if folder == self._root:
                break
        return self._name(image.relative_to(self._root))

    def listed_in(self, folder: Path) -> _Listed:
        """The prompts that the files of a folder give. Raises `DatasetError` if one is malformed."""
        if folder not in self._listed:
            self._listed[folder] = _read_listed(folder)
        return self._listed[folder]

    def _name(self, image: Path) -> str:
        folders = dropwhile(lambda folder: folder.lower() in SPLIT_NAMES, image.parts[:-1])
        name = next(folders, None) or COUNTER.sub("", image.stem)
        if not any(character.isalpha() for character in name):
            raise DataError(
                f"{image}: no prompt found ({name!r} is not a valid prompt); write the prompt into a "
                f"{PROMPT} or metadata.jsonl beside the image, or name the folder after it"
            )
        return name if " " in name else name.replace("_", " ")


def _read_listed(folder: Path) -> _Listed:
    listed: dict[str, str] = {}
    every = None
    for path in (folder / name for name in METADATA):
        rows = list(_metadata(path)) if path.is_file() else []
        if rows and not any(name in row for row in rows for name in TEXT_COLUMNS):
            raise DatasetError(
                f"{path} has none of the columns {', '.join(TEXT_COLUMNS)}; it has {', '.join(rows[0])}"
            )
        for row in rows:
            text = str(next((row[name] for name in TEXT_COLUMNS if row.get(name)), ""))
            if row.get("file_name"):
                name = normpath(str(row["file_name"]))
                if name.startswith(("/", "../")):
                    raise DatasetError(f"{path} names {name[:60]!r}, which is not below {folder}")
                listed[name] = text
            else:
                every = text
    if every is None and (file := folder / PROMPT).is_file():
        try:
            every = file.read_text(encoding="utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise DatasetError(f"{file} is not UTF-8 text: {error.reason}") from error
    return _Listed(listed, every)


def _metadata(path: Path) -> Iterator[Row]:
    for line, row in read_rows(path):
        if isinstance(row, DataError):
            raise DatasetError(f"{path} line {line}: {row}")
        yield row


RECIPE = dataset(
    name="folder",
    summary="images or videos in folders, without labels: prompts are folders, metadata.jsonl or file names",
    source=Source(needs="a folder of images or videos"),
    read=read_parts,
    judge=_judge,
    options_type=FolderOptions,
    max_candidates=16,
)
