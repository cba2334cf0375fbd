"""Whether the rewards of a replay are those that its trainer should have had."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prefrm.grpo.replays.replay import Replay, Sample
from prefrm.media import digest
from prefrm.pixels import encode_image
from prefrm.winmatrix import Group, Scorer, WinMatrix, score_all

__all__ = ["Judged", "Played", "Recorder", "problems"]

TOLERANCE = 1e-5


class Judged(NamedTuple):
    """A group that a scorer was asked about: the digests of its images, and their win rates."""

    prompt: str
    images: list[str]
    win_rates: list[float]


@dataclass(slots=True, kw_only=True)
class Played:
    """What one process of a replay saw: rewards by the sample's number, and what its scorer was asked."""

    rewards: dict[int, float] = field(default_factory=dict)
    judged: list[Judged] = field(default_factory=list)


class Recorder:
    """A scorer that asks another, and remembers."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.judged: list[Judged] = []

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """The other's matrices."""
        matrices = score_all(self._scorer, groups)
        for group, matrix in zip(groups, matrices, strict=True):
            images = [digest(image or b"") for image in group.candidates]
            present = [n for n, image in enumerate(group.candidates) if image]
            rates = matrix.subset(present).win_rate(on_missing="drop")
            self.judged.append(Judged(group.prompt, [images[n] for n in present], rates.tolist()))
        return matrices


def problems(replay: Replay, parts: Sequence[Played]) -> list[str]:
    """What is wrong, a line each; nothing where the replay went as it should.

    Each image is to be judged once, in a group of its own prompt and source, as large as the replay's groups
    without their missing images; its reward is its win rate there. A missing image has no reward. In
    evaluation an image has none either, or is compared with one other, a reference.

    Args:
        parts: what each process of the replay saw.
    """
    rewards = {number: reward for part in parts for number, reward in part.rewards.items()}
    judged = [group for part in parts for group in part.judged]
    found: list[str] = []
    for step in replay.steps:
        samples = [sample for call in step.calls for part in call.samples for sample in part]
        check = _evaluated if step.evaluation else _trained
        found += check(replay, samples, rewards, judged)
    return found


def _digest(sample: Sample) -> str:
    return digest(encode_image(sample.image))


def _label(sample: Sample) -> str:
    return f"sample {sample.number}, of {sample.prompt!r}"


def _trained(
    replay: Replay, samples: Sequence[Sample], rewards: dict[int, float], judged: Sequence[Judged]
) -> list[str]:
    found = []
    images = {_digest(sample): sample for sample in samples if not sample.missing}
    sizes: Counter[tuple[str, str | None]] = Counter()
    places: dict[str, float] = {}
    for group in judged:
        members = [images[image] for image in group.images if image in images]
        keys = {(member.prompt, member.source) for member in members}
        if members and (
            len(members) < len(group.images) or len(keys) > 1 or len(members) > replay.group_size
        ):
            found.append(f"a group of {len(group.images)} images holds {[_label(one) for one in members]}")
        found += [
            f"{_label(member)}, was judged by the text {group.prompt[:60]!r}"
            for member in members
            if member.prompt != group.prompt
        ]
        for image, rate in zip(group.images, group.win_rates, strict=True):
            if image in places:
                found.append(f"{_label(images[image])}, was judged twice")
            if image in images:
                places[image] = rate
        sizes.update(keys)
    for key, count in Counter((sample.prompt, sample.source) for sample in samples).items():
        present = sum((sample.prompt, sample.source) == key for sample in images.values())
        if present > 1 and sizes[key] != -(-count // replay.group_size):
            found.append(f"{count} samples of {key[0]!r} were judged in {sizes[key]} groups")
    for sample in samples:
        expected = math.nan if sample.missing else places.get(_digest(sample), math.nan)
        found += _compared(sample, rewards, expected)
    return found


def _evaluated(
    replay: Replay, samples: Sequence[Sample], rewards: dict[int, float], judged: Sequence[Judged]
) -> list[str]:
    found = []
    for sample in samples:
        groups = [group for group in judged if not sample.missing and _digest(sample) in group.images]
        if len(groups) > 1 or any(len(group.images) != 2 for group in groups):
            found.append(f"{_label(sample)}, was compared with {[len(g.images) - 1 for g in groups]} images")
        rates = [group.win_rates[group.images.index(_digest(sample))] for group in groups]
        found += _compared(sample, rewards, rates[0] if rates else math.nan)
    return found


def _compared(sample: Sample, rewards: dict[int, float], expected: float) -> list[str]:
    if sample.number not in rewards:
        return [f"{_label(sample)}, has no reward, not even NaN"]
    reward = rewards[sample.number]
    if (math.isnan(expected) and math.isnan(reward)) or abs(reward - expected) <= TOLERANCE:
        return []
    return [f"{_label(sample)}, has the reward {reward:.4f} in the place of {expected:.4f}"]
