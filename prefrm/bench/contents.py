"""What edits, criteria and videos cost a late judge, as ratios to what images cost it in the same run.

    edits           K images with a context image, over K images and one encode
    criteria        three groups that differ in their criterion, over one of them
    videos          two videos of 16 frames, over a group of 32 images

Nothing is kept from one call to the next. The measurements alternate in rounds; ratios are medians of these.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image

from prefrm.bench.meters import seconds_in, timed
from prefrm.bench.methods import noise_images
from prefrm.bench.random_model import CRITERIA, PROMPT, Shape, build_backbone, build_judge, side_of
from prefrm.engine import Engine
from prefrm.media import decode
from prefrm.progress import track
from prefrm.video import encode_video
from prefrm.winmatrix import Group

__all__ = ["BOUNDS", "ContentRow", "bench_contents"]

BOUNDS = {"edits": 1.15, "criteria": 1.5, "videos": 1.0}
"""Of the ratios, on the model of six layers."""
K = 8
FRAMES = 16
VIDEOS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentRow:
    """A measurement beside its baseline.

    Attributes:
        name: one of `BOUNDS`.
        seconds: the median of the rounds, as the baseline's.
        baseline_seconds: of what it is compared with.
        ratio: the median of the rounds' ratios.
    """

    name: str
    seconds: float
    baseline_seconds: float
    ratio: float


def bench_contents(
    shape: Shape, image_tokens: int, *, device: torch.device, dtype: torch.dtype, rounds: int
) -> tuple[ContentRow, ...]:
    """The rows of `BOUNDS`, in order, for images and frames of that many tokens."""
    backbone = build_backbone(shape, device=device, dtype=dtype)
    images = noise_images(FRAMES * VIDEOS + 1, side_of(image_tokens))
    *candidates, source = images
    # Frames of a codec have even sides.
    even = side_of(image_tokens) // 2 * 2
    frames = [decode(image).resize((even, even), Image.Resampling.NEAREST) for image in candidates]
    videos = tuple(encode_video(frames[n::VIDEOS], FRAMES) for n in range(VIDEOS))

    def judge(**fields: Any) -> Engine:
        return Engine(build_judge(backbone, image_tokens, **fields), cache_bytes=0)

    def group(*shown: bytes, **fields: Any) -> Group:
        return Group(prompt=PROMPT, candidates=shown, **fields)

    engine, viewer = judge(template="fit-late-v1"), judge(kind="video", frames=FRAMES)
    tower = engine.judge.model.get_submodule(engine.judge.family.vision_tower)
    plain, some = group(*candidates[:K]), candidates[:K]
    works: dict[str, Callable[[], object]] = {
        "images": partial(engine.score, [plain]),
        "edits": partial(engine.score, [group(*some, context=(source,))]),
        "criterion": partial(engine.score, [group(*some, criterion=CRITERIA[0])]),
        "criteria": partial(engine.score, [group(*some, criterion=one) for one in CRITERIA]),
        "videos": partial(viewer.score, [group(*videos)]),
        "frames": partial(engine.score, [group(*candidates)]),
    }
    found: list[Mapping[str, float]] = []
    with track("edits, criteria and videos", rounds + 1) as advance:
        # The first round warms up.
        for n in range(rounds + 1):
            seconds = {name: timed(work, device)[1] for name, work in works.items()}
            encode = seconds_in(tower, works["images"], device) / K
            found.append(
                {
                    **seconds,
                    "edits baseline": seconds["images"] + encode,
                    "criteria baseline": seconds["criterion"],
                    "videos baseline": seconds["frames"],
                }
            )
            advance(n + 1)
    return tuple(_row(name, found[1:]) for name in BOUNDS)


def _row(name: str, rounds: list[Mapping[str, float]]) -> ContentRow:
    baseline = f"{name} baseline"
    return ContentRow(
        name=name,
        seconds=statistics.median(one[name] for one in rounds),
        baseline_seconds=statistics.median(one[baseline] for one in rounds),
        ratio=statistics.median(one[name] / one[baseline] for one in rounds),
    )
