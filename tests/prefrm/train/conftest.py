from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from prefrm.media import encode_png
from prefrm.records import PreferenceGroup, comparisons_from_scores, write_groups
from prefrm.train import DataConfig
from prefrm.train.datasets import open_mixture, survey_data
from prefrm.train.mixing import Mixture
from prefrm.video import encode_video

GREYS = (20, 120, 230)
CRITERIA = ("light", "shade")


@pytest.fixture
def brightness(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset in which the brighter of the candidates is preferred, whatever the prompt.

    They are images unless a kind is named; edits have a context image and a criterion.
    """

    return lambda kind="image", **sizes: write_brightness(tmp_path / "data", kind, **sizes)


def write_brightness(folder: Path, kind: str = "image", **sizes: int) -> Path:
    for split, size in sizes.items():
        write_groups((group(split, n, kind) for n in range(size)), folder, split)
    return folder


def mixture_of(folder: Path, cache: Path) -> Mixture:
    """The training split of a dataset alone."""
    data = DataConfig(path=folder, validation=None, test=None)
    return open_mixture(data, survey_data(data, cache), seed=0, cache=cache)


def group(split: str, n: int, kind: str) -> PreferenceGroup:
    levels = [GREYS[(n + k) % len(GREYS)] for k in range(len(GREYS))]
    is_edit = kind == "edit"
    return PreferenceGroup(
        id=f"{split}-{n}",
        prompt=f"{split} {n}",
        candidates=tuple(candidate(kind, level) for level in levels),
        comparisons=comparisons_from_scores(levels),
        context=(encode_png(shade(n)),) if is_edit else (),
        criterion=CRITERIA[n % len(CRITERIA)] if is_edit else "",
    )


@cache
def candidate(kind: str, level: int) -> bytes | str:
    if kind == "text":
        return f"a grey of {level}"
    return encode_video([shade(0), shade(level)], 2) if kind == "video" else encode_png(shade(level))


def shade(level: int) -> Image.Image:
    return Image.new("RGB", (32, 32), (level, level, level))
