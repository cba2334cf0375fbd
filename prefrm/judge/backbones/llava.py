"""LLaVA-OneVision (arXiv 2408.03326): an image is read once as a whole and once in tiles, row by row.

Its tokens are the features of the whole, then those of the tiles laid side by side, without the rows
or columns that show padding alone, and a learned feature at the end of each row.

Shapes: K images of a tower's pass, T features of one, N images, D hidden, H height, W width.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import interpolate, pad
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_onevision.modeling_llava_onevision import unpad_image

from prefrm.errors import ConfigError
from prefrm.judge.backbones.family import Family, filled, language_layers
from prefrm.judge.backbones.resampling import cut_tiles, normalize, resize
from prefrm.judge.images import ImageInput
from prefrm.judge.transfers import to_device

__all__ = ["LLAVA_ONEVISION"]

# Tiles with more features along a side than is allowed, by this factor, are shrunk to what is allowed.
TOLERANCE = 1.1


def _pixel_budget(image_processor: Any, least: int | None, most: int | None) -> None:
    """Keeps the grids of tiles within the bounds: an image is resized to fit into one of them."""
    grids = image_processor.image_grid_pinpoints
    within = [
        [height, width]
        for height, width in grids
        if (least is None or least <= height * width) and (most is None or height * width <= most)
    ]
    if not within:
        areas = sorted({height * width for height, width in grids})
        raise ConfigError(
            f"this base model fits an image into one of {len(grids)} grids of tiles, of {areas[0]} to "
            f"{areas[-1]} pixels, and none is within min_pixels={least} and max_pixels={most}; "
            "set bounds that leave one"
        )
    image_processor.image_grid_pinpoints = within


def _prepare(image_processor: Any, image: Image.Image) -> tuple[torch.Tensor, tuple[int, ...]]:
    """The grid is the image's height and width in pixels, then the rows and columns of tiles."""
    pixels = image_processor(images=image, return_tensors="pt")["pixel_values"][0]
    size = (image.height, image.width)
    canvas = select_best_resolution(size, image_processor.image_grid_pinpoints)
    rows, columns = (side // tile for side, tile in zip(canvas, pixels.shape[-2:], strict=True))
    return pixels, (*size, rows, columns)


def _prepare_pixels(image_processor: Any, image_3HW: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    size, resample = (image_3HW.shape[1], image_3HW.shape[2]), image_processor.resample
    tile = image_processor.size["height"]
    canvas = select_best_resolution(size, image_processor.image_grid_pinpoints)
    fitted = get_patch_output_size(image_3HW, canvas, ChannelDimension.FIRST)
    above, left = ((whole - part) // 2 for whole, part in zip(canvas, fitted, strict=True))
    margins = (left, canvas[1] - fitted[1] - left, above, canvas[0] - fitted[0] - above)
    tiles = cut_tiles(pad(resize(image_3HW, fitted, resample), margins), tile)
    pixels = torch.cat([resize(image_3HW, (tile, tile), resample)[None], tiles])
    return normalize(image_processor, pixels), (*size, canvas[0] // tile, canvas[1] // tile)


def _side(config: Any) -> int:
    """Features along a side of a tile."""
    return int(config.vision_config.image_size // config.vision_config.patch_size)


def _most_features(config: Any) -> int:
    """How many features the tiles of an image may have: "anyres_max_9" allows those of nine tiles."""
    return int(config.vision_aspect_ratio.removeprefix("anyres_max_")) * _side(config) ** 2


def _unpadded(config: Any, grid: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of features that tiles have without their padding."""
    height, width, *tiles = grid
    canvas = torch.empty(1, *(_side(config) * count for count in tiles), device="meta")
    _, rows, columns = unpad_image(canvas, (height, width)).shape
    return rows, columns


def _shrunk(config: Any, rows: int, columns: int) -> tuple[int, int]:
    """The same after tiles with too many features were shrunk."""
    ratio = math.sqrt(rows * columns / _most_features(config))
    return (rows, columns) if ratio <= TOLERANCE else (int(rows // ratio), int(columns // ratio))


def _spell(tokenizer: Any, config: Any, grid: tuple[int, ...]) -> list[int]:
    rows, columns = _shrunk(config, *_unpadded(config, grid))
    return [config.image_token_id] * (_side(config) ** 2 + rows * (columns + 1))


def _encode(backbone: Any, images: Sequence[ImageInput], fill: int = 0) -> Sequence[torch.Tensor]:
    pixels = to_device(filled(images, fill), backbone.device)
    # Given as one sample of many images, each comes back by itself, with one learned feature after it.
    features = backbone.model.get_image_features(
        pixels, torch.empty(len(pixels), 2), batch_num_images=[len(pixels)]
    ).pooler_output
    features_KTD = torch.stack([feature_TD[:-1] for feature_TD in features])
    parts = features_KTD.split([*(image.units for image in images), fill])
    return [
        _packed(backbone, image.grid, parts_KTD)[None]
        for image, parts_KTD in zip(images, parts[: len(images)], strict=True)
    ]


def _packed(backbone: Any, grid: tuple[int, ...], parts_KTD: torch.Tensor) -> torch.Tensor:
    """Of the whole and its tiles to all features of an image, in reading order."""
    config, side = backbone.config, _side(backbone.config)
    height, width, rows, columns = grid
    tiles = parts_KTD[1:].view(rows, columns, side, side, -1).permute(4, 0, 2, 1, 3)
    plane_DHW = unpad_image(tiles.reshape(-1, rows * side, columns * side), (height, width))
    kept = _shrunk(config, *plane_DHW.shape[1:])
    if kept != plane_DHW.shape[1:]:
        plane_DHW = interpolate(plane_DHW[None], kept, mode="bilinear")[0]
    ends_DH1 = backbone.model.image_newline[:, None, None].expand(-1, kept[0], 1)
    rows_DHW = torch.cat([plane_DHW, ends_DH1.to(plane_DHW)], dim=2)
    return torch.cat([parts_KTD[0], rows_DHW.flatten(1).T])


def _same(image_processor: Any, config: Any) -> Mapping[str, tuple[object, object]]:
    side = config.vision_config.image_size
    size = image_processor.size
    return {"size": ((size["height"], size["width"]), (side, side))}


def _largest(image_processor: Any) -> int:
    return max(int(height * width) for height, width in image_processor.image_grid_pinpoints)


LLAVA_ONEVISION = Family(
    model_type="llava_onevision",
    vision_tower="model.vision_tower",
    lora_targets=language_layers("model.language_model"),
    same=_same,
    largest=_largest,
    pixel_budget=_pixel_budget,
    prepare=_prepare,
    prepare_pixels=_prepare_pixels,
    spell=_spell,
    encode=_encode,
    images_in_text=True,
)
