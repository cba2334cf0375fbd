"""The recipe `pairs`: one's own judged pairs of images, from a CSV or JSONL file.

Each row (or each line's JSON object) is one judgement and has at least

    prompt      what both images answer
    image_1     path of an image file, relative to the folder of the CSV or JSONL file: PNG, JPEG or WebP,
                kept as it is, or GIF, BMP, TIFF or AVIF, of which the first frame is kept as PNG
    image_2     path of another
    preferred   1, 2 or tie

Other columns are ignored. Pairs of one prompt that share images, directly or through others, become one
group, or several where there are more than `MAX_CANDIDATES` images; no pair is lost.

The split of a prompt is decided by its hash, whatever its letter case and spacing, so it does not change
as rows are added. Prompts that share an image stay in one split: that of the first in the alphabet.
"""

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from data_recipes.questionable import Questionable
from data_recipes.recipe import LeftOut, Plan, Recipe, Split
from data_recipes.rows import read_rows, read_text
from prefrm import media
from prefrm.errors import ConfigError, DataError, DatasetError, MediaError
from prefrm.records import SPLITS, Comparison, PreferenceGroup, prompt_key

__all__ = [
    "COLUMNS",
    "MAX_CANDIDATES",
    "RECIPE",
    "Pair",
    "PairsOptions",
    "group_pairs",
    "read_pairs",
    "split_of",
    "split_pairs",
]

COLUMNS = ("prompt", "image_1", "image_2", "preferred")
MAX_CANDIDATES = 8  # a judge compares every two candidates of a group, in both orders

_NAMED = 5  # bad rows that an error describes; the rest are counted
P_FIRST = {"1": 1.0, "2": 0.0, "tie": 0.5}
"""P(image_1 is preferred to image_2) by the column `preferred`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsOptions:
    """Where the pairs are, and the shares of prompts that are held out; 0 leaves the split out."""

    source: Annotated[Path, "the CSV or JSONL file; image paths in it are relative to its folder"]
    validation: Annotated[float, "share of the prompts in the validation split"] = 0.05
    test: Annotated[float, "share of the prompts in the test split"] = 0.1

    def __post_init__(self) -> None:
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test < 1):
            raise ConfigError(
                "validation and test must be at least 0 and leave something for train; "
                f"received validation={self.validation}, test={self.test}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One judgement; `id` is the file's name and line, `preferred` is "1", "2" or "tie"."""

    id: str
    prompt: str
    image_1: Path
    image_2: Path
    preferred: str


def read_pairs(source: Path) -> list[Pair]:
    """Every row of the file, checked; images are not opened yet.

    Raises:
        DatasetError: the file is absent, empty, of another format, or has bad rows, named by line.
    """
    pairs, problems = [], []
    for line, row in read_rows(source, COLUMNS):
        try:
            if isinstance(row, DataError):
                raise row
            pairs.append(_pair(row, source, line))
        except DataError as error:
            problems.append(f"line {line}: {error}")
    if problems:
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise DatasetError(f"{source} has {len(problems)} bad rows: {'; '.join(problems[:_NAMED])}{more}")
    if not pairs:
        raise DatasetError(f"{source} has no rows; each needs {', '.join(COLUMNS)}")
    return pairs


def split_of(prompt: str, options: PairsOptions, seed: int) -> str:
    """The split of a prompt, by the hash of its `prompt_key`."""
    raw = hashlib.sha256(f"{seed}\n{prompt_key(prompt)}".encode()).digest()
    place = int.from_bytes(raw[:8], "big") / 2**64
    if place < options.test:
        return "test"
    return "validation" if place < options.test + options.validation else "train"


def split_pairs(pairs: Sequence[Pair], options: PairsOptions, seed: int) -> dict[str, list[Pair]]:
    """The pairs by split; neither a prompt nor an image, by its content, is in two."""
    paths = {path for pair in pairs for path in (pair.image_1, pair.image_2)}
    image = {path: _identity(path) for path in paths}

    def ends(pair: Pair) -> tuple[Hashable, ...]:
        return ("prompt", prompt_key(pair.prompt)), image[pair.image_1], image[pair.image_2]

    by_split: dict[str, list[Pair]] = {split: [] for split in SPLITS}
    for together in _clusters(pairs, ends):
        first = min(prompt_key(pair.prompt) for pair in together)
        by_split[split_of(first, options, seed)] += together
    return by_split


def group_pairs(
    pairs: Sequence[Pair], left_out: LeftOut, questionable: Questionable
) -> Iterator[PreferenceGroup]:
    """The groups of linked pairs of each prompt, of at most `MAX_CANDIDATES`, as read from the images.

    Candidates stand in the order of their digests, so an image's place says nothing of its label. A pair
    with an unreadable image is left out, with a line in `left_out`, and takes nothing else with it.
    """
    for part in _parts(pairs):
        images: dict[Path, bytes | MediaError] = {}
        usable = []
        for pair in part:
            problems = [e for e in (_read(pair.image_1, images), _read(pair.image_2, images)) if e]
            left_out.lines.extend(f"record {pair.id}: {error}" for error in problems)
            if not problems:
                usable.append(pair)
                _take_in(questionable, pair, images)
        left_out.images.update(path for path, image in images.items() if isinstance(image, MediaError))
        left_out.pairs += len(part) - len(usable)
        left_out.groups += not usable
        # What is left may have fallen into several groups.
        yield from (_group(linked, images) for linked in _linked(usable))


def _plan(options: PairsOptions, seed: int) -> Plan:
    by_split = split_pairs(read_pairs(options.source), options, seed)
    wanted = {"train": 1.0, "validation": options.validation, "test": options.test}
    for split, pairs in by_split.items():
        if wanted[split] > 0 and not pairs:
            raise DatasetError(
                f"{options.source} has too few prompts: none falls into the {split} split; "
                f"set {split} higher, or to 0 to do without, or try another seed "
                "(prompts that share an image stay together)"
            )
    plan = Plan(splits={})
    splits = {
        split: Split(groups=group_pairs(pairs, plan.left_out, plan.questionable), total=len(_parts(pairs)))
        for split, pairs in by_split.items()
        if pairs
    }
    return Plan(splits=splits, left_out=plan.left_out, questionable=plan.questionable)


def _pair(row: dict[str, Any], source: Path, line: int) -> Pair:
    text = {column: read_text(row, column) for column in COLUMNS}
    # A spreadsheet writes whole numbers so where an empty cell made the column one of floats.
    preferred = text["preferred"].lower().removesuffix(".0")
    if preferred not in P_FIRST:
        raise DataError(f"preferred must be 1, 2 or tie; received {row['preferred']!r}")
    image_1, image_2 = (_path(source, name, text[name]) for name in ("image_1", "image_2"))
    if image_1 == image_2:
        raise DataError(f"image_1 and image_2 are the same file, {text['image_1']}")
    # The name of a file may have bytes in it that are not UTF-8.
    name = source.name.encode("utf-8", "replace").decode()
    return Pair(
        id=f"{name}:{line}", prompt=text["prompt"], image_1=image_1, image_2=image_2, preferred=preferred
    )


def _path(source: Path, column: str, text: str) -> Path:
    if media.URL.match(text):
        raise DataError(
            f"{column} is a URL, {text[:60]}; nothing is fetched: download the image and give its path"
        )
    try:
        return (source.parent / text).resolve()
    # Links that go round in a circle.
    except (OSError, RuntimeError) as error:
        raise DataError(f"{column} is not a valid path, {text[:60]}: {error}") from error


def _parts(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Linked pairs, in parts of at most `MAX_CANDIDATES` images; each pair is in one."""
    return [part for linked in _linked(pairs) for part in _bounded(linked)]


def _bounded(pairs: list[Pair]) -> Iterator[list[Pair]]:
    """Part after part takes, in order, each remaining pair that shares an image with it and still fits."""
    while pairs:
        images, part, rest = {pairs[0].image_1}, [], []
        for pair in pairs:
            both = {pair.image_1, pair.image_2}
            if images & both and len(images | both) <= MAX_CANDIDATES:
                images |= both
                part.append(pair)
            else:
                rest.append(pair)
        yield part
        pairs = rest


def _linked(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs of one prompt that share images, directly or through others; in order of first appearance."""
    return _clusters(pairs, lambda pair: ((pair.prompt, pair.image_1), (pair.prompt, pair.image_2)))


def _clusters(pairs: Sequence[Pair], ends: Callable[[Pair], tuple[Hashable, ...]]) -> list[list[Pair]]:
    """Pairs that share an end, directly or through others; in order of first appearance."""
    above: dict[Hashable, Hashable] = {}

    def top(node: Hashable) -> Hashable:
        while (parent := above.setdefault(node, node)) != node:
            above[node] = node = above[parent]
        return node

    for pair in pairs:
        first, *others = ends(pair)
        for other in others:
            above[top(first)] = top(other)
    clusters: dict[Hashable, list[Pair]] = {}
    for pair in pairs:
        clusters.setdefault(top(ends(pair)[0]), []).append(pair)
    return list(clusters.values())


def _identity(path: Path) -> str:
    """The digest of an image file's content, by which equal images are found, or its path if unreadable."""
    try:
        return media.digest(media.read_bytes(path))
    except MediaError:
        return str(path)


def _read(path: Path, images: dict[Path, bytes | MediaError]) -> MediaError | None:
    """Read and decode an image once; returns why it cannot be used, if so."""
    if path not in images:
        try:
            data = media.read(path)
            media.decode(data)
            images[path] = data
        except MediaError as error:
            named = str(error) if str(path) in str(error) else f"{path}: {error}"
            images[path] = MediaError(named)
    found = images[path]
    return found if isinstance(found, MediaError) else None


def _take_in(questionable: Questionable, pair: Pair, images: Mapping[Path, bytes | MediaError]) -> None:
    both = (images[pair.image_1], images[pair.image_2])
    first, second = (media.digest(data) for data in both if isinstance(data, bytes))
    questionable.add(pair.id, prompt_key(pair.prompt), first, second, P_FIRST[pair.preferred])


def _group(pairs: list[Pair], images: dict[Path, bytes | MediaError]) -> PreferenceGroup:
    used = {path for pair in pairs for path in (pair.image_1, pair.image_2)}
    data = {path: image for path, image in images.items() if path in used and isinstance(image, bytes)}
    order = sorted(data, key=lambda path: (media.digest(data[path]), path))
    place = {path: n for n, path in enumerate(order)}
    return PreferenceGroup(
        id=pairs[0].id,
        prompt=pairs[0].prompt,
        images=tuple(data[path] for path in order),
        comparisons=tuple(_comparison(pair, place) for pair in pairs),
    )


def _comparison(pair: Pair, place: dict[Path, int]) -> Comparison:
    """Lower place first."""
    first, second = place[pair.image_1], place[pair.image_2]
    if pair.preferred == "tie":
        comparison = Comparison.tie(first, second)
    elif pair.preferred == "1":
        comparison = Comparison.preferred(first, second)
    else:
        comparison = Comparison.preferred(second, first)
    return comparison if comparison.i < comparison.j else comparison.swapped()


RECIPE = Recipe(
    name="pairs",
    summary="your own pairs, from a CSV or JSONL file: prompt, image_1, image_2, preferred (1, 2 or tie)",
    options_type=PairsOptions,
    plan=_plan,
)
