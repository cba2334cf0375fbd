from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from prefrm.media import encode_png
from prefrm.records import PreferenceGroup, comparisons_from_scores, write_groups
from prefrm.train import DataConfig
from prefrm.train.datasets import open_mixture, survey_data
from prefrm.train.mixing import Mixture

GREYS = (20, 120, 230)


@pytest.fixture
def brightness(tmp_path: Path) -> Callable[..., Path]:
    """Writes a dataset in which the brighter of the images is preferred, whatever the prompt."""

    return lambda **sizes: write_brightness(tmp_path / "data", **sizes)


def write_brightness(folder: Path, **sizes: int) -> Path:
    for split, size in sizes.items():
        write_groups((group(split, n) for n in range(size)), folder, split)
    return folder


def mixture_of(folder: Path, cache: Path) -> Mixture:
    """The training split of a dataset alone."""
    data = DataConfig(path=folder, validation=None, test=None)
    return open_mixture(data, survey_data(data, cache), seed=0, cache=cache)


def group(split: str, n: int) -> PreferenceGroup:
    levels = [GREYS[(n + k) % len(GREYS)] for k in range(len(GREYS))]
    return PreferenceGroup(
        id=f"{split}-{n}",
        prompt=f"{split} {n}",
        candidates=tuple(encode_png(Image.new("RGB", (32, 32), (level, level, level))) for level in levels),
        comparisons=comparisons_from_scores(levels),
    )
