"""The families of Qwen: an image is a grid of tokens, with multimodal rotary positions.

A video is a grid with several steps in time, each of as many frames as a temporal patch has. Its placeholders
are those of images: features replace them, so which of the two tokens stands there has no influence.

Shapes: B sequences, N images (or tokens of all images), P patches of all images, C numbers of a patch,
T tokens of an image, V depths of features, D hidden, A axes of a position, L positions, H height, W width.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from prefrm.errors import ConfigError
from prefrm.judge.backbones.family import Family, language_layers, read_embeds
from prefrm.judge.backbones.resampling import normalize, resize
from prefrm.judge.images import ImageInput
from prefrm.judge.transfers import to_device
from prefrm.media import DEFAULT_LIMITS
from prefrm.video import Frames

__all__ = ["QWEN2_5_VL", "QWEN2_VL", "QWEN3_VL", "mrope_positions"]

# Of an image that `smart_resize` accepts.
MOST_ASPECT_RATIO = 200


def mrope_positions(parts: Sequence[int | tuple[Sequence[int], int, int]], merge: int) -> torch.Tensor:
    """Multimodal rotary positions of Qwen2-VL (arXiv 2409.12191, section 2.1), int64 [3, L].

    The three rows are time, height and width. Text counts up in all three; an image spans a grid that
    starts where the text stopped, and what follows starts after the longer side of its frames.

    Args:
        parts: in reading order, the length of a run of text; or of an image or a video the position in time
            of each step, from 0, and the height and width in patches.
        merge: patches along each side of a token.
    """
    blocks, start = [], 0
    for part in parts:
        if isinstance(part, int):
            block, extent = torch.arange(part).expand(3, -1), part
        else:
            times, *sides = torch.tensor(part[0]), part[1] // merge, part[2] // merge
            axes = torch.meshgrid(times, *(torch.arange(side) for side in sides), indexing="ij")
            block, extent = torch.stack(axes).reshape(3, -1), max(sides)
        blocks.append(block + start)
        start += extent
    return torch.cat(blocks, dim=1)


def _positions(config: Any, parts: Sequence[int | ImageInput]) -> torch.Tensor:
    plain = [
        part if isinstance(part, int) else (part.times or range(part.grid[0]), part.grid[1], part.grid[2])
        for part in parts
    ]
    return mrope_positions(plain, config.vision_config.spatial_merge_size)


def _spell(tokenizer: Any, config: Any, grid: tuple[int, ...]) -> list[int]:
    tokens: int = math.prod(grid) // config.vision_config.spatial_merge_size**2
    return [config.image_token_id] * tokens


def _tower(backbone: Any, images: Sequence[ImageInput], fill: int) -> Any:
    """Output of the vision tower for all images, in one pass; each of its fields is split by image.

    With `fill`, a blank image follows, of as many patches as make whole tokens.
    """
    device, merge = backbone.device, backbone.config.vision_config.spatial_merge_size
    columns = fill // merge**2 * merge
    pixels_PC = pad(torch.cat([image.pixels for image in images]), (0, 0, 0, merge * columns))
    grid_N3 = [image.grid for image in images] + [(1, merge, columns)] * (columns > 0)
    return backbone.model.get_image_features(to_device(pixels_PC, device), to_device(grid_N3, device))


def _encode(backbone: Any, images: Sequence[ImageInput], fill: int = 0) -> Sequence[torch.Tensor]:
    features = _tower(backbone, images, fill).pooler_output
    return [features_TD[None] for features_TD in features[: len(images)]]


def _encode_deep(backbone: Any, images: Sequence[ImageInput], fill: int = 0) -> Sequence[torch.Tensor]:
    output = _tower(backbone, images, fill)
    depths = (output.pooler_output, *output.deepstack_features)
    features = list(zip(*depths, strict=True))
    return [torch.stack(features_TD) for features_TD in features[: len(images)]]


def _read_deep(
    backbone: Any,
    embeds_BLD: torch.Tensor,
    positions_ABL: torch.Tensor,
    features_VND: torch.Tensor,
    where_BL: torch.Tensor,
    attend: Callable[..., torch.Tensor],
) -> torch.Tensor:
    """Features of earlier layers of the vision tower are added after the first layers of the language model.

    That is DeepStack (arXiv 2406.04334).
    """
    deeper = {"visual_pos_masks": where_BL, "deepstack_visual_embeds": list(features_VND[1:])}
    return read_embeds(backbone, embeds_BLD, positions_ABL, features_VND, where_BL, attend, **deeper)


def _fit(image_processor: Any) -> Callable[[int, int], tuple[int, int]]:
    """From an image's height and width to those to which the image processor resizes it."""
    return partial(
        smart_resize,
        factor=image_processor.patch_size * image_processor.merge_size,
        min_pixels=image_processor.size["shortest_edge"],
        max_pixels=image_processor.size["longest_edge"],
    )


def _shrink(image_processor: Any, image: Image.Image) -> Image.Image | None:
    """As the image processor resizes it, without its copies of the large image as an array."""
    if not image_processor.do_resize:
        return None
    fit = _fit(image_processor)
    height, width = fit(image.height, image.width)
    # A very narrow image may be shrunk further when it is resized again.
    if max(height, width) > MOST_ASPECT_RATIO * min(height, width) or fit(height, width) != (height, width):
        return None
    return image.resize((width, height), image_processor.resample)


def _prepare(image_processor: Any, image: Image.Image) -> tuple[torch.Tensor, tuple[int, ...]]:
    data = image_processor(images=_shrink(image_processor, image) or image, return_tensors="pt")
    time, height, width = (int(side) for side in data["image_grid_thw"][0])
    return data["pixel_values"], (time, height, width)


def _prepare_video(image_processor: Any, frames: Frames) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Patches of all frames, step after step. The last frame fills the last step."""
    depth = image_processor.temporal_patch_size
    prepared = [_prepare(image_processor, image) for image in frames.images]
    if len(grids := {grid for _, grid in prepared}) > 1:
        raise ValueError(f"its frames differ in size: {sorted(grids)}")
    prepared += [prepared[-1]] * (-len(prepared) % depth)
    # Of an image, each patch has the same pixels for each frame of its step.
    layers = [pixels_PC.unflatten(1, (3, depth, -1)) for pixels_PC, _ in prepared]
    steps = [
        torch.stack([layers[first + place][:, :, place] for place in range(depth)], dim=2).flatten(1)
        for first in range(0, len(layers), depth)
    ]
    _, height, width = prepared[0][1]
    return torch.cat(steps), (len(steps), height, width)


def _prepare_frames(
    image_processor: Any, tokenizer: Any, config: Any, frames: Frames
) -> tuple[list[int] | ImageInput, ...]:
    """One grid of all frames.

    Positions in time count its steps, or, in Qwen2.5-VL (arXiv 2502.13923, section 2.1.2), follow the clock.
    """
    pixels_PC, grid = _prepare_video(image_processor, frames)
    seconds = frames.interval * image_processor.temporal_patch_size
    rate = getattr(config.vision_config, "tokens_per_second", None)
    times_T = (torch.arange(grid[0]) * (1 if rate is None else rate * seconds)).long()
    ids = _spell(tokenizer, config, grid)
    video = ImageInput(pixels=pixels_PC, grid=grid, ids=ids, times=tuple(times_T.tolist()))
    return [config.vision_start_token_id], video, [config.vision_end_token_id]


def _prepare_stamped_frames(
    image_processor: Any, tokenizer: Any, config: Any, frames: Frames
) -> tuple[list[int] | ImageInput, ...]:
    """`prepare_frames` of Qwen3-VL (arXiv 2511.21631): the time of each step is written before it."""
    depth = image_processor.temporal_patch_size
    pixels_PC, (count, *sides) = _prepare_video(image_processor, frames)
    parts: list[list[int] | ImageInput] = []
    for step, pixels in enumerate(pixels_PC.chunk(count)):
        times = frames.times[step * depth : (step + 1) * depth]
        stamp = tokenizer.encode(f"<{(times[0] + times[-1]) / 2:.1f} seconds>", add_special_tokens=False)
        grid = (1, *sides)
        image = ImageInput(pixels=pixels, grid=grid, ids=_spell(tokenizer, config, grid))
        parts += [[*stamp, config.vision_start_token_id], image, [config.vision_end_token_id]]
    return tuple(parts)


def _prepare_pixels(image_processor: Any, image_3HW: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
    patch, merge = image_processor.patch_size, image_processor.merge_size
    height, width = image_3HW.shape[1:]
    if image_processor.do_resize:
        height, width = _fit(image_processor)(height, width)
    image_3HW = normalize(image_processor, resize(image_3HW, (height, width), image_processor.resample))
    rows, columns = height // patch, width // patch
    # Patches of a token are neighbours. A still image is its own next frame.
    cut = image_3HW.view(3, rows // merge, merge, patch, columns // merge, merge, patch)
    frames = cut.permute(1, 4, 2, 5, 0, 3, 6)[:, :, :, :, :, None]
    frames = frames.expand(-1, -1, -1, -1, -1, image_processor.temporal_patch_size, -1, -1)
    return frames.reshape(rows * columns, -1), (1, rows, columns)


def _pixel_budget(image_processor: Any, least: int | None, most: int | None) -> None:
    size = image_processor.size
    least = size["shortest_edge"] if least is None else least
    most = size["longest_edge"] if most is None else min(most, DEFAULT_LIMITS.max_pixels)
    if least > most:
        raise ConfigError(
            f"min_pixels ({least}) is larger than max_pixels ({most}); a bound that is not set is the "
            "base model's own, so set both"
        )
    image_processor.size = {"shortest_edge": least, "longest_edge": most}


def _same(image_processor: Any, config: Any) -> Mapping[str, tuple[object, object]]:
    vision = config.vision_config
    return {
        "patch_size": (image_processor.patch_size, vision.patch_size),
        "merge_size": (image_processor.merge_size, vision.spatial_merge_size),
        "temporal_patch_size": (image_processor.temporal_patch_size, vision.temporal_patch_size),
    }


def _largest(image_processor: Any) -> int:
    return max(map(int, image_processor.size.values()))


QWEN2_VL = Family(
    model_type="qwen2_vl",
    vision_tower="model.visual",
    lora_targets=language_layers("model.language_model"),
    same=_same,
    largest=_largest,
    pixel_budget=_pixel_budget,
    prepare=_prepare,
    prepare_pixels=_prepare_pixels,
    prepare_frames=_prepare_frames,
    shrink=_shrink,
    spell=_spell,
    encode=_encode,
    unit_patches=lambda config: 1,
    positions=_positions,
)
QWEN2_5_VL = replace(QWEN2_VL, model_type="qwen2_5_vl")
QWEN3_VL = replace(
    QWEN2_VL,
    model_type="qwen3_vl",
    prepare_frames=_prepare_stamped_frames,
    encode=_encode_deep,
    read=_read_deep,
)
