"""Where a verdict comes from: what each part of two candidates adds to the log-odds that it wins.

Two methods give maps of one meaning and one unit, nats. Occlusion hides one part after another and reads the
verdict again, through any scorer: cells of an image, runs of frames of a video, words of a text. The gradient
is its first-order approximation in the pixels of images, at the price of one backward pass; both agree for a
judge whose log-odds are linear in the pixels. Both presentation orders are read, so what a map shows is no
position bias.

What hidden pixels become is the mean color of their image or video: zero would itself be a dark thing to see.
Hiding parts by turns says what each is worth while the rest is there; where parts need each other, the map's
sum is not the whole log-odds.

Shapes: H, W of an image; F frames; N words.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from prefrm import media
from prefrm.containers import is_video
from prefrm.differentiable import DifferentiableScorer
from prefrm.errors import ConfigError, ScoringError
from prefrm.pipeline import batched
from prefrm.progress import Tracking, untracked
from prefrm.video import FrameSampling, encode_video, read_frames
from prefrm.winmatrix import Candidate, Floats, Group, Kind, Scorer, score_all
from prefrm.winmatrix.probabilities import logit, sigmoid

__all__ = ["Explanation", "Method", "credit", "explain_by_gradient", "explain_by_occlusion"]

Method = Literal["gradient", "occlusion"]

# Parts along each side of an image, of a video's frames, and the most of a text.
CELLS, SEGMENTS, MOST_WORDS = 8, 8, 64
# Frames of a video that are read and written again with some of them hidden, and their longest side.
FRAMES, LONGEST_SIDE = 32, 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """What the parts of the two candidates of a group add to a verdict.

    Attributes:
        group: of two candidates. Of videos, the candidates as they were judged: 32 frames of 512 pixels a
            side at most.
        method: how the maps were made.
        log_odds: that candidate 0 beats candidate 1, in nats, both presentation orders merged.
        maps: of each candidate, float32: [H, W] of an image, [F] of a video's frames, [N] of a text's words.
            A positive number speaks for the candidate itself, in nats; the sum over a part is the part's. NaN
            where the scorer did not judge the pair without the part.
        parts: of each candidate, what the entries of a map of one dimension are: the times of frames in
            seconds, or the words. Empty for images.
        unjudged: number of parts without which the scorer did not judge the pair.
    """

    group: Group
    method: Method
    log_odds: float
    maps: tuple[Floats, Floats]
    parts: tuple[tuple[Any, ...], tuple[Any, ...]] = ((), ())
    unjudged: int = 0

    @property
    def kind(self) -> Kind:
        """Of the candidates."""
        return self.group.kind

    @property
    def win_probability(self) -> float:
        """P(candidate 0 beats candidate 1)."""
        return float(sigmoid(self.log_odds))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Parts:
    """A candidate in parts that can be hidden.

    Attributes:
        whole: the candidate.
        hidden: the candidate without part n, by n.
        count: of parts.
        spread: a number for each part [count] as the map.
        names: what the map's entries are.
    """

    whole: Candidate
    hidden: Callable[[int], Candidate]
    count: int
    spread: Callable[[npt.NDArray[np.float64]], Floats]
    names: tuple[Any, ...] = ()


def explain_by_occlusion(
    scorer: Scorer, group: Group, *, parts: int | None = None, progress: Tracking = untracked
) -> Explanation:
    """Hide one part after another of each candidate and read the verdict again.

    A part's entry is the candidate's log-odds against the other, minus those without the part, divided evenly
    over the part's pixels, frames or words. A scorer is asked for about 2 `parts`^2 groups of two images, 2
    `parts` of two videos, and as many of two texts as they have words.

    Args:
        scorer: any scorer.
        group: of two candidates.
        parts: cells along each side of an image (8), segments of a video (8), or the most runs of words of
            a text (64).
        progress: opened with the number of groups, and called with how many are done.

    Raises:
        ConfigError: the group is not of two candidates, `parts` is not positive, or a text has one part.
        MediaError: a candidate cannot be read.
        ScoringError: the pair itself was not judged, or the scorer cannot answer.
    """
    _require_two(group)
    if parts is not None and parts < 1:
        raise ConfigError(f"parts must be at least 1; received {parts}")
    apart = [_parts(candidate, parts) for candidate in group.candidates]
    if group.kind == "text" and (single := [n for n, one in enumerate(apart) if one.count < 2]):
        raise ConfigError(
            f"the text of candidate {single[0]} has one part, without which nothing is left to judge; "
            "an explanation needs two words and two parts at least"
        )
    whole = replace(group, candidates=tuple(one.whole for one in apart))
    groups = _with_hidden(whole, apart)
    first, second = apart
    values: list[float] = []
    with progress(1 + first.count + second.count) as advance:
        for some in batched(scorer, groups, list):
            matrices = score_all(scorer, some)
            values += [_log_odds(float(one.p[0, 1])) if one.valid[0, 1] else math.nan for one in matrices]
            if not values or math.isnan(values[0]):
                raise ScoringError(f"the two candidates were not compared: {matrices[0].reason(0, 1)}")
            advance(len(values))
    lost = values[0] - np.array(values[1:])
    return Explanation(
        group=whole,
        method="occlusion",
        log_odds=values[0],
        # Log-odds are those of candidate 0: what candidate 1 loses, candidate 0 gains.
        maps=(first.spread(lost[: first.count]), second.spread(-lost[first.count :])),
        parts=(first.names, second.names),
        unjudged=int(np.isnan(lost).sum()),
    )


def explain_by_gradient(scorer: Scorer, gradient: DifferentiableScorer, group: Group) -> Explanation:
    """The gradient of each image's log-odds in its pixels times what the pixels differ from the mean color.

    Args:
        scorer: gives the log-odds.
        gradient: of the same judge.
        group: of two images of one size.

    Raises:
        ConfigError: the group is another one, or the judge has no gradient for it.
        MediaError: an image cannot be read.
        ScoringError: the pair was not judged.
    """
    import torch

    _require_two(group)
    if group.kind != "image":
        raise ConfigError(f"a gradient is in the pixels of images; explain {group.kind}s by occlusion")
    pixels = [_pixels(one) for one in group.encoded]
    if pixels[0].shape != pixels[1].shape:
        sizes = " and ".join(f"{one.shape[1]} x {one.shape[0]}" for one in pixels)
        raise ConfigError(f"a gradient needs images of one size; received {sizes}; use occlusion")
    (matrix,) = score_all(scorer, [group])
    if not matrix.valid[0, 1]:
        raise ScoringError(f"the two candidates were not compared: {matrix.reason(0, 1)}")
    x_KHW3 = np.stack(pixels).astype(np.float32) / 255
    leaf = torch.from_numpy(x_KHW3).permute(0, 3, 1, 2).contiguous().requires_grad_()
    utilities = gradient.utilities(group.prompt, leaf, context=group.context, criterion=group.criterion)
    (slopes,) = torch.autograd.grad(utilities.sum(), leaf)
    apart_KHW3 = x_KHW3 - x_KHW3.mean(axis=(1, 2), keepdims=True)
    maps_KHW = (slopes.permute(0, 2, 3, 1).cpu().numpy() * apart_KHW3).sum(axis=-1, dtype=np.float32)
    return Explanation(
        group=group,
        method="gradient",
        log_odds=_log_odds(float(matrix.p[0, 1])),
        maps=(maps_KHW[0], maps_KHW[1]),
    )


def credit(map_: npt.NDArray[np.floating]) -> Floats:
    """Weights in [0, 1] of a map's shape, for trainers that weight an advantage by place (arXiv 2511.18719).

    The absolute values divided by their largest, whichever way they speak; NaN has no weight. Ones where all
    are zero.
    """
    size = np.nan_to_num(np.abs(map_))
    largest = size.max(initial=0.0)
    return np.asarray(size / largest if largest > 0 else np.ones_like(size), dtype=np.float32)


def _require_two(group: Group) -> None:
    if group.size != 2 or not all(group.candidates):
        missing = sum(not candidate for candidate in group.candidates)
        raise ConfigError(
            f"an explanation is of two candidates; received {group.size}, {missing} of them missing"
        )


def _with_hidden(whole: Group, apart: Sequence[_Parts]) -> Iterator[Group]:
    yield whole
    first, second = apart
    for n in range(first.count):
        yield replace(whole, candidates=(first.hidden(n), second.whole))
    for n in range(second.count):
        yield replace(whole, candidates=(first.whole, second.hidden(n)))


def _parts(candidate: Candidate, parts: int | None) -> _Parts:
    if isinstance(candidate, str):
        return _text_parts(candidate, parts or MOST_WORDS)
    assert candidate is not None, "an explanation is of two candidates"
    if is_video(candidate):
        return _video_parts(candidate, parts or SEGMENTS)
    return _image_parts(candidate, parts or CELLS)


def _image_parts(data: bytes, cells: int) -> _Parts:
    pixels = _pixels(data)
    height, width = pixels.shape[:2]
    color = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    places = [(rows, columns) for rows in _runs(height, cells) for columns in _runs(width, cells)]

    def hidden(n: int) -> bytes:
        covered = pixels.copy()
        covered[places[n]] = color
        return media.encode_png(Image.fromarray(covered), level=1)

    def spread(values: npt.NDArray[np.float64]) -> Floats:
        map_HW = np.zeros((height, width), dtype=np.float32)
        for place, value in zip(places, values, strict=True):
            map_HW[place] = value / map_HW[place].size
        return map_HW

    return _Parts(whole=data, hidden=hidden, count=len(places), spread=spread)


def _video_parts(data: bytes, segments: int) -> _Parts:
    frames = read_frames(data, FrameSampling(count=FRAMES))
    images = [_small(image) for image in frames.images]
    rate = max(1, round(len(images) / frames.seconds)) if frames.seconds else 1
    means = np.mean([np.asarray(image).mean(axis=(0, 1)) for image in images], axis=0)
    red, green, blue = (round(float(x)) for x in means)
    blank = Image.new("RGB", images[0].size, (red, green, blue))
    runs = _runs(len(images), segments)

    def hidden(n: int) -> bytes:
        shown = [
            blank if k in range(*runs[n].indices(len(images))) else image for k, image in enumerate(images)
        ]
        return encode_video(shown, rate)

    # Written again as well, so that parts differ from it by what is hidden alone.
    return _Parts(
        whole=encode_video(images, rate),
        hidden=hidden,
        count=len(runs),
        spread=lambda values: _spread(values, runs, len(images)),
        names=frames.times,
    )


def _text_parts(text: str, most: int) -> _Parts:
    words = text.split()
    runs = _runs(len(words), most)

    def hidden(n: int) -> str:
        return " ".join([*words[: runs[n].start], *words[runs[n].stop :]])

    return _Parts(
        whole=text,
        hidden=hidden,
        count=len(runs),
        spread=lambda values: _spread(values, runs, len(words)),
        names=tuple(words),
    )


def _spread(values: npt.NDArray[np.float64], runs: Sequence[slice], size: int) -> Floats:
    map_N = np.zeros(size, dtype=np.float32)
    for run, value in zip(runs, values, strict=True):
        map_N[run] = value / (run.stop - run.start)
    return map_N


def _runs(size: int, most: int) -> list[slice]:
    """At most `most` runs of nearly equal length that cover `size` places."""
    ends = np.linspace(0, size, min(most, size) + 1).round().astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def _small(image: Image.Image) -> Image.Image:
    """The image scaled down, without a last row or column that makes a side odd, which no H.264 video has."""
    image = image.copy()
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image.crop((0, 0, image.width // 2 * 2, image.height // 2 * 2))


def _pixels(data: bytes | None) -> npt.NDArray[np.uint8]:
    return np.asarray(media.decode(data or b""))


def _log_odds(p: float) -> float:
    return float(logit(np.array(p, dtype=np.float64)))
