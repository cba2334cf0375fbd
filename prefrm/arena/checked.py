"""From a judge's verdicts on the checks of images to shares by dimension, with intervals.

A verdict is the probability that a check holds: 0 or 1 of an answer in words. Within a dimension the mean is
over all checks of all images (micro); the overall number is the mean over dimensions (macro), as UniGenBench
counts. An image without verdicts, as it is missing or as the judge's answer could not be read, is in no mean;
it is counted. Intervals are of 95%, and the images of one prompt may depend on each other.

Shapes: N verdicts, or images; G groups of them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prefrm.arena.values import ArenaPrompt, Check, PromptSet
from prefrm.errors import DataError
from prefrm.eval.statistics import share_interval, weighted_mean
from prefrm.winmatrix import Doubles

__all__ = [
    "SCORINGS",
    "CheckMetrics",
    "CheckedImage",
    "Scoring",
    "Share",
    "check_agreement",
    "image_agreement",
    "macro_mean",
    "measure_checks",
    "scoring_of",
]

HOLDS = 0.5
"""Least probability of a check that holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedImage:
    """The verdicts of a judge on one image.

    Attributes:
        prompt: id of the image's prompt.
        image: its number among the images that its model made of the prompt, from 0 on.
        verdicts: of each check of the prompt, the probability that it holds; () if the judge's answer could
            not be read.
        reason: why there are no verdicts; "" if there are.
        asked: number of answers that the judge was asked for, retries included.
    """

    prompt: str
    image: int
    verdicts: tuple[float, ...] = ()
    reason: str = ""
    asked: int = 1

    def to_row(self) -> dict[str, Any]:
        """As a line of JSON holds it."""
        return {
            "prompt": self.prompt,
            "image": self.image,
            "verdicts": list(self.verdicts),
            "reason": self.reason,
            "asked": self.asked,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "CheckedImage":
        """The inverse of `to_row`."""
        return cls(**{**row, "verdicts": tuple(map(float, row["verdicts"]))})


ByModel = Mapping[str, Iterable[CheckedImage]]
"""Model -> its images, by one judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of checks or images that hold.

    Attributes:
        value: in [0, 1]; NaN of nothing.
        low: lower end of its 95% interval.
        high: upper end.
        count: number of verdicts or images.
        prompts: number of prompts that these are of.
    """

    value: float
    low: float
    high: float
    count: int
    prompts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """The number that a benchmark publishes, as settings.

    Attributes:
        title: of the number.
        over: what the mean of means is over: "dimension", the name of a tag, or "" for one mean of all.
        image: the value of an image, from its verdicts; None takes each verdict for itself.
        parents: whether a check fails if one of its parents does.
    """

    title: str
    over: str = "dimension"
    image: Callable[[Doubles], float] | None = None
    parents: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckMetrics:
    """The shares of one model by one judge.

    Attributes:
        overall: mean over `dimensions`.
        dimensions: of each primary dimension, all its verdicts.
        subdimensions: of each part of a dimension.
        tags: tag -> value -> all verdicts of the prompts with it.
        images: share of the images of which every check holds.
        any_image: share of the prompts of which every check holds in one image at least.
        every_image: share of the prompts of which every check holds in every image that was judged.
        published: the numbers that the benchmark publishes, by title, in [0, 1].
        judged: number of images with verdicts.
        unparsed: number of images whose answers could not be read, or were refused.
    """

    overall: Share
    dimensions: Mapping[str, Share]
    subdimensions: Mapping[str, Share]
    tags: Mapping[str, Mapping[str, Share]]
    images: Share
    any_image: Share
    every_image: Share
    published: Mapping[str, Share] = field(default_factory=dict)
    judged: int
    unparsed: int


def _all_hold(verdicts: Doubles) -> float:
    """1 if every check holds, otherwise 0."""
    return float(np.all(verdicts >= HOLDS))


def _arithmetic_mean(verdicts: Doubles) -> float:
    """Mean of the probabilities."""
    return float(np.mean(verdicts))


def _geometric_mean(verdicts: Doubles) -> float:
    """Geometric mean of the probabilities, 0 if one is 0."""
    return float(np.exp(np.mean(np.log(verdicts)))) if np.all(verdicts > 0) else 0.0


MACRO = Scoring(title="mean over dimensions")
SCORINGS: Mapping[str, tuple[Scoring, ...]] = {
    "unigenbench": (Scoring(title="UniGenBench overall"),),
    "geneval": (Scoring(title="GenEval overall", over="task", image=_all_hold),),
    "geneval2": (
        Scoring(title="Soft-TIFA AM", over="", image=_arithmetic_mean),
        Scoring(title="Soft-TIFA GM", over="", image=_geometric_mean),
    ),
    "dpg-bench": (Scoring(title="DPG-Bench score", over="", image=_arithmetic_mean, parents=True),),
}
"""Name of a prompt set up to its first "-en" or "-zh" -> the numbers that are published of it.

- UniGenBench (arXiv 2510.18701): mean over the ten primary dimensions of the share of all test points;
- GenEval (arXiv 2310.11513): an image is right if all of it is; mean over six tasks of the share of images;
- GenEval2 (arXiv 2512.16853): mean over images of the mean probability of the right answers;
- DPG-Bench (arXiv 2403.05135): mean over images of the share of questions, where one with a failed parent
  fails.
"""


def scoring_of(name: str) -> tuple[Scoring, ...]:
    """The published numbers of a prompt set by its name; () if there are none."""
    return SCORINGS.get(name.partition("-en")[0].partition("-zh")[0], ())


def macro_mean(values: Iterable[float]) -> float:
    """The unweighted mean of the values of dimensions; NaN if one is not known."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def measure_checks(prompts: PromptSet, images: Iterable[CheckedImage]) -> CheckMetrics:
    """The shares of one model's images.

    Raises:
        DataError: an image is of no prompt of the set, or has verdicts of another number of checks.
    """
    by_id = {prompt.id: prompt for prompt in prompts.prompts}
    found = list(images)
    judged = [(_prompt_of(one, by_id), one) for one in found if one.verdicts]
    passed = _Values([(p.id, _all_hold(np.array(one.verdicts))) for p, one in judged])
    verdicts = [(p, c, v) for p, one in judged for c, v in zip(p.checks, one.verdicts, strict=True)]
    return CheckMetrics(
        overall=_scored(MACRO, judged),
        dimensions=_shares((c.dimension, p, v) for p, c, v in verdicts),
        subdimensions=_shares((c.subdimension, p, v) for p, c, v in verdicts if c.subdimension),
        tags={
            tag: _shares((p.tags[tag], p, v) for p, _, v in verdicts if tag in p.tags)
            for tag in dict.fromkeys(tag for p, _ in judged for tag in p.tags)
        },
        images=passed.share(),
        any_image=passed.by_prompt(max).share(),
        every_image=passed.by_prompt(min).share(),
        published={one.title: _scored(one, judged) for one in scoring_of(prompts.name)},
        judged=len(judged),
        unparsed=len(found) - len(judged),
    )


def check_agreement(prompts: PromptSet, images: ByModel, reference: ByModel) -> dict[str, Share]:
    """By dimension, the share of checks on which two judges agree, over the images that both have judged.

    A verdict is whether a check holds. The key "" has the share over all dimensions; there is none without an
    image that both have judged.

    Raises:
        DataError: as `measure_checks`.
    """
    by_id = {prompt.id: prompt for prompt in prompts.prompts}
    rows: list[tuple[str, ArenaPrompt, float]] = []
    for one, other in _judged_by_both(images, reference):
        prompt = _prompt_of(one, by_id)
        for check, a, b in zip(prompt.checks, one.verdicts, other.verdicts, strict=True):
            rows += [(key, prompt, float((a >= HOLDS) == (b >= HOLDS))) for key in ("", check.dimension)]
    return _shares(rows)


def image_agreement(images: ByModel, reference: ByModel) -> Share:
    """The share of images on which two judges agree whether every check holds; their checks may differ."""
    return _Values(
        [
            (one.prompt, float(_all_hold(np.array(one.verdicts)) == _all_hold(np.array(other.verdicts))))
            for one, other in _judged_by_both(images, reference)
        ]
    ).share()


def _judged_by_both(images: ByModel, reference: ByModel) -> Iterator[tuple[CheckedImage, CheckedImage]]:
    known = {
        (model, one.prompt, one.image): one
        for model, others in reference.items()
        for one in others
        if one.verdicts
    }
    for model, own in images.items():
        for one in own:
            if one.verdicts and (other := known.get((model, one.prompt, one.image))):
                yield one, other


class _Values:
    """Values [N] in [0, 1], with the prompts that they are of."""

    def __init__(self, rows: Sequence[tuple[str, float]]) -> None:
        self._rows = rows

    def share(self, weight: Doubles | None = None) -> Share:
        """Their mean, with equal weights by default."""
        values = np.array([value for _, value in self._rows])
        ids = [prompt for prompt, _ in self._rows]
        place = {prompt: n for n, prompt in enumerate(dict.fromkeys(ids))}
        prompt_N = np.array([place[one] for one in ids], np.int64)
        weight = np.ones(len(values)) if weight is None else weight
        low, high = share_interval(values, weight, prompt_N)
        value = weighted_mean(values, weight)
        return Share(value=value, low=low, high=high, count=len(values), prompts=len(place))

    def by_prompt(self, merge: Callable[[Sequence[float]], float]) -> "_Values":
        """One value for each prompt."""
        found: dict[str, list[float]] = {}
        for prompt, value in self._rows:
            found.setdefault(prompt, []).append(value)
        return _Values([(prompt, merge(values)) for prompt, values in found.items()])


def _prompt_of(image: CheckedImage, by_id: Mapping[str, ArenaPrompt]) -> ArenaPrompt:
    prompt = by_id.get(image.prompt)
    if prompt is None or len(image.verdicts) != len(prompt.checks):
        checks = "none" if prompt is None else f"one with {len(prompt.checks)} checks"
        raise DataError(
            f"image {image.image} of prompt {image.prompt!r} has {len(image.verdicts)} verdicts; the set has "
            f"{checks}: it was judged with another prompt set"
        )
    return prompt


def _shares(rows: Iterable[tuple[str, ArenaPrompt, float]]) -> dict[str, Share]:
    """The share of each key, in the order of the keys."""
    found: dict[str, list[tuple[str, float]]] = {}
    for key, prompt, value in rows:
        found.setdefault(key, []).append((prompt.id, value))
    return {key: _Values(found[key]).share() for key in sorted(found)}


def _scored(scoring: Scoring, judged: Sequence[tuple[ArenaPrompt, CheckedImage]]) -> Share:
    """The mean over groups of the mean within each, which is a weighted mean."""
    rows: list[tuple[str, float]] = []
    groups: list[str] = []
    for prompt, image in judged:
        verdicts = _with_parents(prompt.checks, image.verdicts) if scoring.parents else image.verdicts
        if scoring.image is not None:
            rows.append((prompt.id, scoring.image(np.array(verdicts))))
            groups.append(prompt.tags.get(scoring.over, ""))
            continue
        rows += [(prompt.id, value) for value in verdicts]
        groups += [check.dimension for check in prompt.checks]
    _, place, counts = np.unique(np.array(groups, str), return_inverse=True, return_counts=True)
    return _Values(rows).share(1.0 / counts[place].astype(np.float64))


def _with_parents(checks: Sequence[Check], verdicts: Sequence[float]) -> tuple[float, ...]:
    """The verdicts, 0 where a parent does not hold; in their order, as DPG-Bench's script does it."""
    found = list(verdicts)
    for n, check in enumerate(checks):
        if any(found[parent] < HOLDS for parent in check.parents):
            found[n] = 0.0
    return tuple(found)
