"""Idefics3 (arXiv 2408.12637) and SmolVLM: an image is cut into tiles, each with a tag, and then shown whole.

Shapes: K tiles of all images, N images, T tokens of an image, D hidden, H height, W width.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size

from prefrm.errors import ConfigError
from prefrm.judge.backbones.family import Family, filled, language_layers
from prefrm.judge.backbones.resampling import cut_tiles, normalize, resize
from prefrm.judge.images import ImageInput
from prefrm.judge.transfers import to_device

__all__ = ["IDEFICS3", "SMOLVLM"]

# What the processors of both families write around the tokens of a tile.
BORDER = "<fake_token_around_image>"
WHOLE = "<global-img>"


def _pixel_budget(image_processor: Any, least: int | None, most: int | None) -> None:
    """Sets the longer side to which every image is resized, so that a square one keeps to `most`."""
    tile: int = image_processor.max_image_size["longest_edge"]
    if least is not None:
        raise ConfigError(
            f"min_pixels ({least}) cannot be kept: this base model resizes every image to one longer side, "
            "however small it is; leave min_pixels out, and set max_pixels for smaller images"
        )
    if most is None:
        return
    if most < tile**2:
        raise ConfigError(
            f"max_pixels ({most}) is less than one tile of this base model; set it to at least {tile**2} "
            f"({tile} x {tile})"
        )
    edge = tile * math.isqrt(most // tile**2)
    # The image processor rounds the shorter side up to an even number.
    edge -= edge % 2
    image_processor.size = {"longest_edge": min(edge, image_processor.size["longest_edge"])}


def _prepare(image_processor: Any, image: Image.Image) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The grid is the rows and columns of tiles, both 0 if the image is shown whole alone."""
    data = image_processor(images=image, return_row_col_info=True, return_tensors="pt")
    return data["pixel_values"][0], (data["rows"][0][0], data["cols"][0][0])


def _prepare_pixels(image_processor: Any, image_3HW: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    tile, resample = image_processor.max_image_size["longest_edge"], image_processor.resample
    if image_processor.do_resize:
        # It is written for arrays, and reads the shape alone.
        fit: Any = get_resize_output_image_size
        image_3HW = resize(image_3HW, fit(image_3HW, image_processor.size["longest_edge"]), resample)
    height, width = image_3HW.shape[1:]
    rows, columns = _grid(height, width, tile) if image_processor.do_image_splitting else (1, 1)
    image_3HW = resize(image_3HW, (rows * tile, columns * tile), resample)
    tiles = cut_tiles(image_3HW, tile)
    if rows * columns == 1:
        return normalize(image_processor, tiles), (0, 0)
    whole_3HW = resize(image_3HW, (tile, tile), resample)
    return normalize(image_processor, torch.cat([tiles, whole_3HW[None]])), (rows, columns)


def _grid(height: int, width: int, tile: int) -> tuple[int, int]:
    """Rows and columns of tiles: the image processor rounds the longer side up first."""
    aspect_ratio = width / height
    if width >= height:
        columns = math.ceil(width / tile)
        return math.ceil(int(columns * tile / aspect_ratio) / tile), columns
    rows = math.ceil(height / tile)
    return rows, math.ceil(int(rows * tile * aspect_ratio) / tile)


def _spell(tokenizer: Any, config: Any, grid: tuple[int, ...]) -> list[int]:
    """As the processors of both families write it."""
    rows, columns = grid
    side = config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor
    tile = tokenizer.convert_ids_to_tokens(config.image_token_id) * side**2
    lines = [
        "".join(f"{BORDER}<row_{row + 1}_col_{column + 1}>{tile}" for column in range(columns)) + "\n"
        for row in range(rows)
    ]
    text = "".join(lines) + ("\n" if lines else "") + f"{BORDER}{WHOLE}{tile}{BORDER}"
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _encode(backbone: Any, images: Sequence[ImageInput], fill: int = 0) -> Sequence[torch.Tensor]:
    pixels = to_device(filled(images, fill), backbone.device)
    # As one sample of many tiles, of which all features come back in a row.
    (features_KD,) = backbone.model.get_image_features(pixels[None]).pooler_output
    features_KTD = features_KD.unflatten(0, (len(pixels), -1))
    parts = features_KTD.split([*(image.units for image in images), fill])
    return [part_KTD.flatten(0, 1)[None] for part_KTD in parts[: len(images)]]


def _same(image_processor: Any, config: Any) -> Mapping[str, tuple[object, object]]:
    return {
        "max_image_size": (image_processor.max_image_size["longest_edge"], config.vision_config.image_size)
    }


def _largest(image_processor: Any) -> int:
    return int(image_processor.size["longest_edge"]) ** 2


IDEFICS3 = Family(
    model_type="idefics3",
    vision_tower="model.vision_model",
    lora_targets=language_layers("model.text_model"),
    same=_same,
    largest=_largest,
    pixel_budget=_pixel_budget,
    prepare=_prepare,
    prepare_pixels=_prepare_pixels,
    spell=_spell,
    encode=_encode,
)
SMOLVLM = replace(IDEFICS3, model_type="smolvlm")
