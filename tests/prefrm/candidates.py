"""Candidates of every kind, and groups of what a judge reads."""

import io
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from prefrm.video import encode_video
from prefrm.winmatrix import Group

__all__ = ["candidate", "group_for", "noise_clip", "noise_png"]

PROMPT = "two dogs and a red kite"
SIZES = ((48, 32), (32, 32), (16, 64))
WORDS = ("a dog", "two dogs run", "a kite and some dogs")


def noise(seed: int, shape: tuple[int, ...], top: int = 255) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, top + 1, (*shape, 3), dtype=np.uint8)


def noise_png(seed: int, width: int = 48, height: int = 32, top: int = 255) -> bytes:
    """An encoded image of random pixels, at most `top`."""
    buffer = io.BytesIO()
    Image.fromarray(noise(seed, (height, width), top)).save(buffer, format="PNG")
    return buffer.getvalue()


@cache
def noise_clip(seed: int, width: int = 48, height: int = 32) -> bytes:
    """An encoded video of seven random frames."""
    return encode_video([Image.fromarray(frame) for frame in noise(seed, (7, height, width))], 4)


def text(seed: int, *_: int) -> str:
    return f"{WORDS[seed % len(WORDS)]} {seed}"


MAKE: dict[str, Callable[..., Any]] = {"image": noise_png, "video": noise_clip, "text": text}


def candidate(kind: str, seed: int) -> bytes | str:
    """A candidate of one of several shapes, or lengths."""
    made: bytes | str = MAKE[kind](seed, *SIZES[seed % len(SIZES)])
    return made


def group_for(judge: Any, *seeds: int, prompt: str = PROMPT, criterion: str = "hues") -> Group:
    """A group with all that the judge reads."""
    inputs = judge.processor.inputs
    return Group(
        prompt=prompt,
        candidates=tuple(candidate(judge.spec.kind, seed) for seed in seeds),
        context=(noise_png(90), noise_png(91, 32, 32)) if inputs.context else (),
        criterion=criterion if inputs.criterion else "",
    )
