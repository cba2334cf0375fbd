"""What is refused of the settings of published image processors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefrm.errors import ConfigError
from prefrm.imports.parts import PREPROCESSOR, crop_fit, stretch_fit
from prefrm.manifest import ImageFit

CROP: dict[str, Any] = {
    "size": 28,
    "crop_size": {"height": 28, "width": 28},
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
STRETCH = CROP | {"size": {"height": 28, "width": 28}, "resample": 2}


def written(folder: Path, settings: dict[str, Any]) -> Path:
    (folder / PREPROCESSOR).write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize("size", [28, {"shortest_edge": 28}])
def test_the_settings_of_an_image_processor_are_read(size: Any, tmp_path: Path):
    half = (0.5, 0.5, 0.5)
    crop = crop_fit(written(tmp_path, CROP | {"size": size}))
    assert crop == ImageFit(side=28, fit="crop", resample=3, mean=half, std=half)
    stretch = stretch_fit(written(tmp_path, STRETCH))
    assert stretch == ImageFit(side=28, fit="stretch", resample=2, mean=half, std=half)


@pytest.mark.parametrize(
    ("read", "settings", "message"),
    [
        (
            crop_fit,
            CROP | {"crop_size": {"height": 28, "width": 30}},
            "must be one number; received 28 and {",
        ),
        (crop_fit, CROP | {"size": 30}, "must be one number; received 30 and {"),
        (crop_fit, CROP | {"size": None, "crop_size": None}, "must be one number; received None and None"),
        (stretch_fit, STRETCH | {"size": {"height": 28, "width": 30}}, "an equal height and width; received"),
        (stretch_fit, STRETCH | {"size": 28}, "an equal height and width; received 28"),
        (crop_fit, CROP | {"do_center_crop": False}, "do_center_crop is off"),
        (stretch_fit, STRETCH | {"do_normalize": False}, "do_normalize is off"),
        (crop_fit, CROP | {"image_mean": None}, "is not an image processor's"),
        (stretch_fit, {"size": STRETCH["size"]}, "is not an image processor's: 'image_mean'"),
    ],
)
def test_other_settings_are_refused_by_their_name(
    read: Callable[[Path], ImageFit], settings: dict[str, Any], message: str, tmp_path: Path
):
    with pytest.raises(ConfigError) as caught:
        read(written(tmp_path, settings))
    assert str(caught.value).startswith(str(tmp_path / PREPROCESSOR)) and message in str(caught.value)
