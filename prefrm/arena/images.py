"""Images of models that answer the same prompts: files in a folder for each model, by a pattern of names.

An image that is missing or unreadable counts as coverage, and never as a score.

Shapes: Q prompts, N images of a prompt by each model, M models.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from prefrm import media
from prefrm.arena.values import ArenaPrompt
from prefrm.errors import ConfigError, MediaError
from prefrm.progress import Advance
from prefrm.records import PreferenceGroup
from prefrm.winmatrix import Bools

__all__ = ["PATTERNS", "Answer", "Answers", "ImageFolder", "Place", "read_answers"]

PATTERNS = (
    "{id}_{n}",  # UniGenBench
    "{id:05}/samples/{n:04}",  # GenEval
    "{id:05}/samples/{n:05}",
    "{id}/{n}",
    "{id}-{n}",
    "{id}_{n+1}",
    "{id}/{n+1}",
    "{id}-{n+1}",
    "{id}",  # DPG-Bench
)
"""Names of files without their ending, in the order in which they are tried: `id` is the prompt's, `n` the
number of the image from 0 on, and `n+1` from 1 on."""
MOST_IMAGES = 64
SHOWN = 5


class _Id(str):
    """The id of a prompt, which a format such as `:05` reads as a number where it is one."""

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec and self.isdecimal() else format(str(self), spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolder:
    """The images of a model.

    Attributes:
        model: its name.
        folder: with its images, in further folders where the pattern says so.
        pattern: of their names, such as one of `PATTERNS`, with an ending or without.
        files: those of the folder, by their names without the ending, relative to it.
    """

    model: str
    folder: Path
    pattern: str
    files: Mapping[str, Path]

    @classmethod
    def find(
        cls, model: str, folder: Path, prompts: Sequence[ArenaPrompt], pattern: str | None = None
    ) -> "ImageFolder":
        """The images in a folder; without a pattern, that of `PATTERNS` by which most are found.

        Raises:
            ConfigError: it is not a folder, the pattern is malformed, or no file is an image of a prompt.
        """
        if not folder.is_dir():
            raise ConfigError(f"{model}: {folder} is not a folder; give the folder of its images")
        files, tried = _files(folder), PATTERNS if pattern is None else (pattern,)
        found = [cls(model=model, folder=folder, pattern=one, files=files) for one in tried]
        best = max(found, key=lambda one: one._matches(prompts))
        if best._matches(prompts) == (0, 0):
            names = ", ".join(path.relative_to(folder).as_posix() for path in islice(files.values(), SHOWN))
            raise ConfigError(
                f"{model}: {folder} has no image of the prompts by the names {', '.join(tried)}; it has "
                f"{names or 'no images'}; give a pattern such as {PATTERNS[0]}"
            )
        return best

    def file(self, prompt: ArenaPrompt, n: int) -> Path | None:
        """The file of the prompt's image `n`, from 0 on; None if there is none."""
        return self.files.get(self.name(prompt, n)) if n == 0 or "{n" in self.pattern else None

    def name(self, prompt: ArenaPrompt, n: int) -> str:
        """Of the file, without its ending. Raises `ConfigError` if the pattern is malformed."""
        try:
            name = self.pattern.format_map({"id": _Id(prompt.id), "n": n, "n+1": n + 1})
        except (LookupError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{self.pattern!r} is not a valid pattern of file names ({error}); write {{id}}, and {{n}} "
                f"or {{n+1}}, such as {', '.join(PATTERNS)}"
            ) from error
        stem, ending = os.path.splitext(name)
        return stem if ending.lower() in media.MEDIA_SUFFIXES else name

    def images(self, prompts: Sequence[ArenaPrompt]) -> int:
        """The most images of a prompt."""
        numbers = range(MOST_IMAGES)
        return max(n + 1 for n in numbers for prompt in prompts if self.file(prompt, n) is not None)

    def _matches(self, prompts: Sequence[ArenaPrompt]) -> tuple[int, int]:
        """How many prompts have a first image, and how many images there are."""
        found = [[self.file(prompt, n) is not None for n in range(MOST_IMAGES)] for prompt in prompts]
        return sum(row[0] for row in found), sum(map(sum, found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An image of each model for one prompt: the prompt's number in its set, and the images' number."""

    prompt: int
    image: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An encoded image with its prompt, and its place in [Q, N, M]."""

    prompt: ArenaPrompt
    place: tuple[int, int, int]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What models answer to prompts.

    Attributes:
        prompts: of the set, [Q].
        folders: of the models, [M].
        images: N, of a prompt by each model.
        readable: bool [Q, N, M]; whether the image is there and its header is that of an image within the
            limits.
        unreadable: why an image that is there cannot be used, by model and file.
    """

    prompts: tuple[ArenaPrompt, ...]
    folders: tuple[ImageFolder, ...]
    images: int
    readable: Bools
    unreadable: Mapping[tuple[str, str], str]

    @property
    def models(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(folder.model for folder in self.folders)

    @property
    def places(self) -> list[Place]:
        """Where at least two models have an image, prompt by prompt."""
        found = np.argwhere(self.readable.sum(2) >= 2)
        return [Place(prompt=int(q), image=int(n)) for q, n in found]

    def candidates(self, place: Place) -> tuple[bytes | None, ...]:
        """The encoded images of all models, None where one is not readable. Raises `MediaError`."""
        known = self.readable[place.prompt, place.image]
        files = (folder.file(self.prompts[place.prompt], place.image) for folder in self.folders)
        return tuple(media.read(file) if ok and file else None for file, ok in zip(files, known, strict=True))

    def groups(self) -> Iterator[PreferenceGroup]:
        """The group of each of `places`, in order: the prompt with the images of all models."""
        for place in self.places:
            prompt = self.prompts[place.prompt]
            yield PreferenceGroup(
                id=f"{prompt.id}_{place.image}",
                prompt=prompt.text,
                candidates=self.candidates(place),
                comparisons=(),
            )

    def each(self) -> Iterator[Answer]:
        """Every readable image, prompt by prompt. Raises `MediaError`."""
        for q, n, m in np.argwhere(self.readable).tolist():
            prompt = self.prompts[q]
            file = self.folders[m].file(prompt, n)
            assert file is not None
            yield Answer(prompt=prompt, place=(q, n, m), data=media.read(file))

    def coverage(self) -> dict[str, dict[str, Any]]:
        """By model: how many images are `expected`, `found`, `missing` and `unreadable`, the `share` that can
        be used, the `first` missing files, and the `reasons` of unreadable ones."""
        shape = self.readable.shape
        return {
            folder.model: self._coverage(folder, int(self.readable[:, :, m].sum()), shape[0] * shape[1])
            for m, folder in enumerate(self.folders)
        }

    def _coverage(self, folder: ImageFolder, found: int, expected: int) -> dict[str, Any]:
        missing = [
            folder.name(prompt, n)
            for prompt in self.prompts
            for n in range(self.images)
            if folder.file(prompt, n) is None
        ]
        reasons = {file: why for (model, file), why in self.unreadable.items() if model == folder.model}
        return {
            "expected": expected,
            "found": found,
            "missing": len(missing),
            "unreadable": len(reasons),
            "share": found / expected,
            "first": missing[:SHOWN],
            "reasons": dict(islice(reasons.items(), SHOWN)),
        }


def read_answers(
    prompts: Sequence[ArenaPrompt],
    folders: Sequence[ImageFolder],
    images: int | None = None,
    progress: Advance | None = None,
) -> Answers:
    """The images of models, each checked by its header.

    Args:
        prompts: [Q].
        folders: of at least two models.
        images: N; None for the most that a model has of a prompt.
        progress: called with the number of prompts done.

    Raises:
        ConfigError: there are fewer than two models, or no two have an image of the same prompt.
    """
    if len(folders) < 2:
        raise ConfigError(f"models are compared with each other; received {len(folders)}, give at least 2")
    number = max(folder.images(prompts) for folder in folders) if images is None else images
    readable = np.zeros((len(prompts), number, len(folders)), dtype=bool)
    unreadable = dict[tuple[str, str], str]()
    for q, prompt in enumerate(prompts):
        for n, m in np.ndindex(readable.shape[1:]):
            if (file := folders[m].file(prompt, n)) is None:
                continue
            try:
                readable[q, n, m] = bool(media.read(file))
            except MediaError as error:
                unreadable[folders[m].model, file.relative_to(folders[m].folder).as_posix()] = str(error)
        if progress is not None:
            progress(q + 1)
    if not (readable.sum(2) >= 2).any():
        raise ConfigError("no two models have an image of the same prompt; nothing can be compared")
    return Answers(
        prompts=tuple(prompts),
        folders=tuple(folders),
        images=number,
        readable=readable,
        unreadable=unreadable,
    )


def _files(folder: Path) -> dict[str, Path]:
    """Every image or video below a folder but hidden ones, in order; of equal names the first ending."""
    found = dict[str, Path]()
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(root, name) for name in sorted(names) if not name.startswith(".")):
            if path.suffix.lower() in media.MEDIA_SUFFIXES:
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found
