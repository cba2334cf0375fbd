"""Summary of a dataset folder: counts, ties, image sizes and problems. It changes nothing.

Works on any dataset of `prefrm.records`, whichever recipe or hand made it.
"""

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from data_recipes.questionable import Questionable
from prefrm import media
from prefrm.errors import ConfigError, DatasetError, MediaError
from prefrm.records import (
    SPLITS,
    DatasetInfo,
    Fingerprint,
    PreferenceGroup,
    prompt_key,
    read_groups,
    read_info,
    split_file,
)

__all__ = ["DatasetSummary", "SplitSummary", "TagSummary", "inspect_dataset", "summarize"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSummary:
    """The groups of a split that carry one value of a tag."""

    groups: int
    comparisons: int
    ties: int

    def with_group(self, comparisons: int, ties: int) -> "TagSummary":
        """The summary with one more group of so many comparisons and ties."""
        return TagSummary(
            groups=self.groups + 1, comparisons=self.comparisons + comparisons, ties=self.ties + ties
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """One split.

    Attributes:
        groups: preference groups.
        prompts: distinct prompt texts.
        candidates: images, an image of two groups counted twice.
        comparisons: statements about pairs of candidates.
        ties: those of them with p = 0.5.
        against_quality: strict comparisons that contradict the group's `quality`: label noise.
        group_sizes: candidates (present or missing) in a group -> groups.
        image_sizes: "width x height" -> images.
        tags: name of a tag -> its value -> the groups that carry it.
        missing: candidates without an image.
        unreadable: record id, candidate and reason, for each image that cannot be decoded.
        questionable: by kind, a line for each comparison that cannot be right, or not together with another.
        first_wins: share of the source's strict judgements that prefer the image that stands first in its
            row, which its place would have decided; None where `dataset.json` does not say.
        digest_wins: share of strict comparisons that prefer the image with the lower digest, by which
            candidates are
            ordered: about 0.5, or the order tells labels. None without strict comparisons.
        fingerprint: of the content.
        fingerprint_matches: whether `dataset.json` has the same; None where it says nothing.
    """

    groups: int
    prompts: int
    candidates: int
    comparisons: int
    ties: int
    against_quality: int
    group_sizes: Mapping[int, int]
    image_sizes: Mapping[str, int]
    tags: Mapping[str, Mapping[str, TagSummary]]
    missing: int
    unreadable: tuple[str, ...]
    questionable: Mapping[str, tuple[str, ...]]
    first_wins: float | None
    digest_wins: float | None
    fingerprint: str
    fingerprint_matches: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSummary:
    """A folder.

    Attributes:
        info: where it came from.
        splits: by name.
        shared_prompts: those in more than one split, in lower case and with single spaces.
        shared_images: how many distinct images are in more than one split.
    """

    info: DatasetInfo
    splits: Mapping[str, SplitSummary]
    shared_prompts: tuple[str, ...]
    shared_images: int


def inspect_dataset(folder: Path | str, split: str | None = None) -> DatasetSummary:
    """Summarize the splits of a folder, or one; leakage is looked for among all. Groups are read as a stream.

    Raises:
        ConfigError: the split's name is none of `SPLITS`.
        DatasetError: the folder holds no dataset, or a split that was asked for is absent.
        RecordError: a record breaks its own rules.
    """
    if split is not None and split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}; it must be one of {', '.join(SPLITS)}")
    info = read_info(folder)
    found = [name for name in SPLITS if (Path(folder) / f"{name}.parquet").is_file()]
    if not found:
        raise DatasetError(f"{folder} holds no split; build the dataset again")
    if split is not None:
        split_file(folder, split)
    contents = {name: _Content() for name in found}
    splits = {}
    for name, content in contents.items():
        groups = content.watch(read_groups(folder, name))
        if split in (None, name):
            splits[name] = summarize(groups, info, name)
        else:
            deque(groups, maxlen=0)
    return DatasetSummary(
        info=info,
        splits=splits,
        shared_prompts=tuple(sorted(_shared([content.prompts for content in contents.values()]))),
        shared_images=len(_shared([set(content.images) for content in contents.values()])),
    )


def summarize(groups: Iterable[PreferenceGroup], info: DatasetInfo, name: str) -> SplitSummary:
    """Summarize the groups of one split, named `name` in the dataset's `info`; every image is decoded."""
    counter = _Counter()
    for group in groups:
        counter.add(group)
    counts, expected = info.splits.get(name), info.fingerprints.get(name)
    numbers, actual = counter.numbers, counter.fingerprint.hexdigest()
    return SplitSummary(
        groups=numbers["groups"],
        prompts=len(counter.prompts),
        candidates=numbers["candidates"],
        comparisons=numbers["comparisons"],
        ties=numbers["ties"],
        against_quality=numbers["against quality"],
        group_sizes=dict(sorted(counter.group_sizes.items())),
        image_sizes=dict(counter.image_sizes.most_common()),
        tags={tag: dict(sorted(values.items())) for tag, values in sorted(counter.tags.items())},
        missing=numbers["missing"],
        unreadable=tuple(counter.unreadable),
        questionable=counter.questionable.lines(),
        first_wins=None if counts is None else counts.first_wins,
        digest_wins=numbers["lower digest wins"] / numbers["strict"] if numbers["strict"] else None,
        fingerprint=actual,
        fingerprint_matches=None if expected is None else actual == expected,
    )


class _Counter:
    """Numbers of a split, group by group."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.prompts: set[str] = set()
        self.group_sizes: Counter[int] = Counter()
        self.image_sizes: Counter[str] = Counter()
        self.tags: dict[str, dict[str, TagSummary]] = {}
        self.unreadable: list[str] = []
        self.questionable = Questionable()
        self.fingerprint = Fingerprint()

    def add(self, group: PreferenceGroup) -> None:
        """Take in a group."""
        self.fingerprint.add(group)
        self.prompts.add(group.prompt)
        self.group_sizes[len(group.candidates)] += 1
        missing = sum(image is None for image in group.candidates)
        ties = sum(not c.is_strict for c in group.comparisons)
        self.numbers.update(
            groups=1,
            candidates=len(group.candidates) - missing,
            missing=missing,
            comparisons=len(group.comparisons),
            ties=ties,
            strict=len(group.comparisons) - ties,
        )
        for tag, value in group.tags.items():
            values = self.tags.setdefault(tag, {})
            before = values.get(value, TagSummary(groups=0, comparisons=0, ties=0))
            values[value] = before.with_group(len(group.comparisons), ties)
        for n, image in enumerate(group.group().encoded):
            if image is not None:
                self._add_image(image, f"record {group.id}, candidate {n}")
        self._add_comparisons(group)

    def _add_image(self, image: bytes, where: str) -> None:
        try:
            width, height = media.decode(image).size
            self.image_sizes[f"{width} x {height}"] += 1
        except MediaError as error:
            self.unreadable.append(f"{where}: {error}")

    def _add_comparisons(self, group: PreferenceGroup) -> None:
        digests = [media.digest(image) if image else "" for image in group.candidates]
        for c in group.comparisons:
            where = f"record {group.id} (candidates {c.i} and {c.j})"
            self.questionable.add(where, prompt_key(group.prompt), digests[c.i], digests[c.j], c.p)
            if c.is_strict:
                self.numbers["lower digest wins"] += (c.p > 0.5) == (digests[c.i] < digests[c.j])
            if group.quality is not None:
                self.numbers["against quality"] += (c.p - 0.5) * (group.quality[c.i] - group.quality[c.j]) < 0


class _Content:
    """The prompts of a split, and its images by 8 bytes of their digests."""

    def __init__(self) -> None:
        self.prompts: set[str] = set()
        self.images = array("Q")

    def watch(self, groups: Iterable[PreferenceGroup]) -> Iterator[PreferenceGroup]:
        """The groups, which are taken in as they pass."""
        for group in groups:
            self.prompts.add(prompt_key(group.prompt))
            self.images.extend(int(media.digest(image)[:16], 16) for image in group.candidates if image)
            yield group


def _shared(sets: Sequence[AbstractSet[T]]) -> set[T]:
    """The elements that are in more than one set."""
    return {element for a, b in combinations(sets, 2) for element in a & b}
