"""What is in a dataset folder: counts, ties, image sizes, and what is wrong with it. It changes nothing.

Works on any dataset of `prefrm.records`, whichever recipe or hand made it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_recipes.questionable import Questionable
from prefrm import media
from prefrm.errors import ConfigError, DatasetError, MediaError
from prefrm.records import (
    SPLITS,
    DatasetInfo,
    PreferenceGroup,
    fingerprint,
    prompt_key,
    read_groups,
    read_info,
)

__all__ = ["DatasetSummary", "SplitSummary", "TagSummary", "inspect_dataset", "summarize"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TagSummary:
    """The groups of a split that carry one value of a tag."""

    groups: int
    comparisons: int
    ties: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSummary:
    """One split.

    Attributes:
        groups: preference groups.
        prompts: distinct prompt texts.
        comparisons: statements about pairs of candidates.
        ties: those of them with p = 0.5.
        against_quality: strict comparisons that contradict the group's `quality`: label noise.
        group_sizes: candidates (present or missing) in a group -> groups.
        image_sizes: "width x height" -> images.
        tags: name of a tag -> its value -> the groups that carry it.
        missing: candidates without an image.
        unreadable: record id, candidate and reason, for each image that cannot be decoded.
        questionable: by kind, a line for each comparison that cannot be right, or not together with another.
        fingerprint: of the content.
        fingerprint_matches: whether `dataset.json` has the same; None where it says nothing.
    """

    groups: int
    prompts: int
    comparisons: int
    ties: int
    against_quality: int
    group_sizes: Mapping[int, int]
    image_sizes: Mapping[str, int]
    tags: Mapping[str, Mapping[str, TagSummary]]
    missing: int
    unreadable: tuple[str, ...]
    questionable: Mapping[str, tuple[str, ...]]
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
    """Summarize the splits of a folder, or one; leakage is looked for among all.

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
    prompts: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for name in found:
        groups = list(read_groups(folder, name))
        prompts.update({prompt_key(group.prompt) for group in groups})
        images.update({media.digest(image) for group in groups for image in group.images if image})
    return DatasetSummary(
        info=info,
        splits={
            name: summarize(list(read_groups(folder, name)), info.fingerprints.get(name))
            for name in ([split] if split else found)
        },
        shared_prompts=tuple(sorted(prompt for prompt, n in prompts.items() if n > 1)),
        shared_images=sum(n > 1 for n in images.values()),
    )


def summarize(groups: Iterable[PreferenceGroup], expected_fingerprint: str | None = None) -> SplitSummary:
    """Summarize the groups of one split; every image is decoded."""
    groups = tuple(groups)
    comparisons = [(group, c) for group in groups for c in group.comparisons]
    sizes: Counter[str] = Counter()
    unreadable = []
    for group in groups:
        for n, image in enumerate(group.images):
            if image is None:
                continue
            try:
                width, height = media.decode(image).size
                sizes[f"{width} x {height}"] += 1
            except MediaError as error:
                unreadable.append(f"record {group.id}, candidate {n}: {error}")
    actual = fingerprint(groups)
    return SplitSummary(
        groups=len(groups),
        prompts=len({group.prompt for group in groups}),
        comparisons=len(comparisons),
        ties=sum(not c.is_strict for _, c in comparisons),
        against_quality=sum(
            (c.p - 0.5) * (group.quality[c.i] - group.quality[c.j]) < 0
            for group, c in comparisons
            if group.quality is not None
        ),
        group_sizes=dict(sorted(Counter(len(group.images) for group in groups).items())),
        image_sizes=dict(sizes.most_common()),
        tags=_by_tag(groups),
        missing=sum(image is None for group in groups for image in group.images),
        unreadable=tuple(unreadable),
        questionable=_questionable(groups).lines(),
        fingerprint=actual,
        fingerprint_matches=None if expected_fingerprint is None else actual == expected_fingerprint,
    )


def _questionable(groups: Iterable[PreferenceGroup]) -> Questionable:
    found = Questionable()
    for group in groups:
        digests = [media.digest(image) if image else "" for image in group.images]
        for c in group.comparisons:
            where = f"record {group.id} (candidates {c.i} and {c.j})"
            found.add(where, prompt_key(group.prompt), digests[c.i], digests[c.j], c.p)
    return found


def _by_tag(groups: Sequence[PreferenceGroup]) -> dict[str, dict[str, TagSummary]]:
    carriers: dict[tuple[str, str], list[PreferenceGroup]] = {}
    for group in groups:
        for tag in group.tags.items():
            carriers.setdefault(tag, []).append(group)
    summaries: dict[str, dict[str, TagSummary]] = {}
    for (name, value), tagged in sorted(carriers.items()):
        comparisons = [c for group in tagged for c in group.comparisons]
        summaries.setdefault(name, {})[value] = TagSummary(
            groups=len(tagged),
            comparisons=len(comparisons),
            ties=sum(not c.is_strict for c in comparisons),
        )
    return summaries
