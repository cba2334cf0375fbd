"""Summary of a dataset folder: counts by kind, ties, sizes of candidates and problems. It changes nothing.

Works on any dataset of `prefrm.records`, whichever recipe or hand made it.
"""

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TypeVar

from data_recipes.questionable import Questionable
from prefrm import media
from prefrm.errors import ConfigError, DatasetError, MediaError
from prefrm.records import (
    SPLITS,
    DatasetInfo,
    Fingerprint,
    PreferenceGroup,
    read_groups,
    read_info,
    split_file,
)
from prefrm.video import FrameSampling, probe_video, read_frames
from prefrm.winmatrix import Candidate

__all__ = ["DatasetSummary", "SplitSummary", "Spread", "TagSummary", "inspect_dataset", "summarize"]

T = TypeVar("T")
FIRST_FRAME = FrameSampling(count=1)


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
class Spread:
    """The smallest, the middle and the largest of some numbers."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread | None":
        """Of numbers; None if there are none."""
        return cls(least=min(numbers), median=median(numbers), most=max(numbers)) if numbers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """One split.

    Attributes:
        groups: preference groups.
        kinds: "image", "video" or "text" -> groups with candidates of that kind.
        criteria: criterion -> groups; "" is overall preference.
        prompts: distinct prompt texts.
        candidates: images, videos or texts; one of two groups is counted twice.
        context_images: images in the contexts of groups, counted in the same way.
        comparisons: statements about pairs of candidates.
        ties: those of them with p = 0.5.
        against_quality: strict comparisons that contradict the group's `quality`: label noise.
        quality_pairs: strict comparisons of groups whose `quality` is known.
        longer_wins: share of the strict comparisons of two texts of different length in which the longer one
            is preferred: far from 0.5, a judge may learn length. None without such comparisons.
        group_sizes: candidates (present or missing) in a group -> groups.
        image_sizes: "width x height" -> images, of candidates and contexts.
        video_sizes: "width x height" -> videos.
        video_frames, video_seconds: of the videos; None if there are none.
        text_characters: of the texts; None if there are none.
        tags: name of a tag -> its value -> the groups that carry it.
        missing: candidates that are absent.
        unreadable: record id, candidate and reason, for each image or video that cannot be decoded.
        questionable: by kind, a line for each comparison that cannot be right, or not together with another.
        first_wins: share of the source's strict judgements that prefer the candidate that stands first in its
            row, which its place would have decided; None where `dataset.json` does not say.
        digest_wins: share of strict comparisons that prefer the candidate with the lower digest, by which
            candidates are ordered: about 0.5, or the order tells labels. None without strict comparisons.
        fingerprint: of the content.
        fingerprint_matches: whether `dataset.json` has the same; None where it says nothing.
    """

    groups: int
    kinds: Mapping[str, int]
    criteria: Mapping[str, int]
    prompts: int
    candidates: int
    context_images: int
    comparisons: int
    ties: int
    against_quality: int
    quality_pairs: int
    longer_wins: float | None
    group_sizes: Mapping[int, int]
    image_sizes: Mapping[str, int]
    video_sizes: Mapping[str, int]
    video_frames: Spread | None
    video_seconds: Spread | None
    text_characters: Spread | None
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
        shared_images: how many distinct images and videos are in more than one split, in contexts as well.
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
    """Summarize the groups of one split, named `name` in the dataset's `info`; every image is decoded,
    and the first frame of every video."""
    counter = _Counter()
    for group in groups:
        counter.add(group)
    counts, expected = info.splits.get(name), info.fingerprints.get(name)
    numbers, actual = counter.numbers, counter.fingerprint.hexdigest()
    return SplitSummary(
        groups=numbers["groups"],
        kinds=dict(counter.kinds.most_common()),
        criteria=dict(counter.criteria.most_common()),
        prompts=len(counter.prompts),
        candidates=numbers["candidates"],
        context_images=numbers["context images"],
        comparisons=numbers["comparisons"],
        ties=numbers["ties"],
        against_quality=numbers["against quality"],
        quality_pairs=numbers["quality pairs"],
        longer_wins=_ratio(numbers["longer wins"], numbers["of different length"]),
        group_sizes=dict(sorted(counter.group_sizes.items())),
        image_sizes=dict(counter.image_sizes.most_common()),
        video_sizes=dict(counter.video_sizes.most_common()),
        video_frames=Spread.of(counter.video_frames),
        video_seconds=Spread.of(counter.video_seconds),
        text_characters=Spread.of(counter.text_characters),
        tags={tag: dict(sorted(values.items())) for tag, values in sorted(counter.tags.items())},
        missing=numbers["missing"],
        unreadable=tuple(counter.unreadable),
        questionable=counter.questionable.lines(),
        first_wins=None if counts is None else counts.first_wins,
        digest_wins=_ratio(numbers["lower digest wins"], numbers["strict"]),
        fingerprint=actual,
        fingerprint_matches=None if expected is None else actual == expected,
    )


class _Counter:
    """Numbers of a split, group by group."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.prompts: set[str] = set()
        self.kinds: Counter[str] = Counter()
        self.criteria: Counter[str] = Counter()
        self.group_sizes: Counter[int] = Counter()
        self.image_sizes: Counter[str] = Counter()
        self.video_sizes: Counter[str] = Counter()
        self.video_frames, self.text_characters = array("Q"), array("Q")
        self.video_seconds = array("d")
        self.tags: dict[str, dict[str, TagSummary]] = {}
        self.unreadable: list[str] = []
        self.questionable = Questionable()
        self.fingerprint = Fingerprint()

    def add(self, group: PreferenceGroup) -> None:
        """Take in a group."""
        self.fingerprint.add(group)
        self.prompts.add(group.prompt)
        self.group_sizes[len(group.candidates)] += 1
        kind = group.group().kind
        self.kinds[kind] += 1
        self.criteria[group.criterion] += 1
        missing = sum(candidate is None for candidate in group.candidates)
        ties = sum(not c.is_strict for c in group.comparisons)
        self.numbers.update(
            groups=1,
            candidates=len(group.candidates) - missing,
            missing=missing,
            **{"context images": len(group.context)},
            comparisons=len(group.comparisons),
            ties=ties,
            strict=len(group.comparisons) - ties,
        )
        for tag, value in group.tags.items():
            values = self.tags.setdefault(tag, {})
            before = values.get(value, TagSummary(groups=0, comparisons=0, ties=0))
            values[value] = before.with_group(len(group.comparisons), ties)
        for n, candidate in enumerate(group.candidates):
            if isinstance(candidate, str):
                self.text_characters.append(len(candidate))
            elif candidate is not None:
                self._add_file(kind, candidate, f"record {group.id}, candidate {n}")
        for n, image in enumerate(group.context):
            self._add_file("image", image, f"record {group.id}, context image {n}")
        self._add_comparisons(group)

    def _add_file(self, kind: str, data: bytes, where: str) -> None:
        try:
            if kind == "image":
                width, height = media.decode(data).size
                self.image_sizes[f"{width} x {height}"] += 1
                return
            found = probe_video(data)
            read_frames(data, FIRST_FRAME)
            self.video_sizes[f"{found.width} x {found.height}"] += 1
            self.video_frames.append(found.frames)
            self.video_seconds.append(found.seconds)
        except MediaError as error:
            self.unreadable.append(f"{where}: {error}")

    def _add_comparisons(self, group: PreferenceGroup) -> None:
        digests = [media.digest(candidate) if candidate else "" for candidate in group.candidates]
        asked = f"{group.prompt_key}\n{group.criterion}"
        for c in group.comparisons:
            where = f"record {group.id} (candidates {c.i} and {c.j})"
            self.questionable.add(where, asked, digests[c.i], digests[c.j], c.p)
            if c.is_strict:
                self.numbers["lower digest wins"] += (c.p > 0.5) == (digests[c.i] < digests[c.j])
                self._add_lengths(group.candidates[c.i], group.candidates[c.j], c.p > 0.5)
            if group.quality is not None:
                self.numbers["quality pairs"] += c.is_strict
                self.numbers["against quality"] += (c.p - 0.5) * (group.quality[c.i] - group.quality[c.j]) < 0

    def _add_lengths(self, one: Candidate, other: Candidate, first_wins: bool) -> None:
        if isinstance(one, str) and isinstance(other, str) and len(one) != len(other):
            self.numbers["of different length"] += 1
            self.numbers["longer wins"] += first_wins == (len(one) > len(other))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


class _Content:
    """The prompts of a split, and its images and videos by 8 bytes of their digests."""

    def __init__(self) -> None:
        self.prompts: set[str] = set()
        self.images = array("Q")

    def watch(self, groups: Iterable[PreferenceGroup]) -> Iterator[PreferenceGroup]:
        """The groups, which are taken in as they pass."""
        for group in groups:
            self.prompts.add(group.prompt_key)
            files = (*group.group().encoded, *group.context)
            self.images.extend(int(media.digest(data)[:16], 16) for data in files if data)
            yield group


def _shared(sets: Sequence[AbstractSet[T]]) -> set[T]:
    """The elements that are in more than one set."""
    return {element for a, b in combinations(sets, 2) for element in a & b}
