"""The interface to a model family, and defaults that several families share.

Shapes: B sequences, N images, P patches of all images, C numbers of a patch, T tokens of an image,
V depths at which features enter the language model, D hidden, A axes of a position, L positions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from prefrm.judge.images import ImageInput
from prefrm.video import Frames

__all__ = [
    "Family",
    "filled",
    "language_layers",
    "most_positions",
    "plain_positions",
    "read_embeds",
    "tile_patches",
]


def language_layers(path: str) -> str:
    """A regular expression over module paths: the linear layers of the language model at `path`.

    All families build theirs as Llama does, in attention and feed-forward layers of these names.
    """
    return re.escape(path) + r"\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"


def most_positions(config: Any) -> int:
    """How many positions the language model of that configuration reads."""
    return int(config.text_config.max_position_embeddings)


def tile_patches(config: Any) -> int:
    """Patches of a tile, into which most families cut an image."""
    return int(config.vision_config.image_size // config.vision_config.patch_size) ** 2


def filled(images: Sequence[ImageInput], fill: int) -> torch.Tensor:
    """The tiles [K, ...] of all images, and the first of them `fill` more times."""
    tiles = [image.pixels for image in images]
    return torch.cat([*tiles, tiles[0][:1].expand(fill, *tiles[0].shape[1:])])


def plain_positions(config: Any, parts: Sequence[int | ImageInput]) -> torch.Tensor:
    """The `positions` of families that count the tokens of images as those of text, int64 [1, L]."""
    return torch.arange(sum(part if isinstance(part, int) else part.tokens for part in parts))[None]


def read_embeds(
    backbone: Any,
    embeds_BLD: torch.Tensor,
    positions_ABL: torch.Tensor,
    features_VND: torch.Tensor,
    where_BL: torch.Tensor,
    attend: Callable[..., torch.Tensor],
    **deeper: Any,
) -> torch.Tensor:
    """The `read` of families of which an image's features enter as embeddings alone."""
    positions = positions_ABL if len(positions_ABL) > 1 else positions_ABL[0]
    hidden_BLD: torch.Tensor = backbone.get_decoder()(
        inputs_embeds=embeds_BLD, position_ids=positions, use_cache=False, attend=attend, **deeper
    ).last_hidden_state
    return hidden_BLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The facts of a model family; defaults are those that several share.

    Attributes:
        model_type: as in the checkpoint's `config.json`.
        vision_tower: module path of the vision tower inside the backbone.
        lora_targets: a regular expression over whole module paths, as PEFT's `target_modules` takes
            it: the linear layers of the language model, none of the vision tower.
        same: (image processor, configuration) -> by name, settings of both that must be equal.
        largest: (image processor) -> the most pixels to which it resizes an image.
        pixel_budget: sets an image processor's bounds on pixels (least, most; None keeps a bound).
        prepare: (image processor, image) -> its pixels and its grid.
        shrink: (image processor, image) -> the image in the one size in which it is shown, of which `prepare`
            makes the same, bit for bit; None if there is no such size.
        prepare_pixels: as `prepare`, of floats [3, H, W] in [0, 1] and with a gradient in them. The two
            agree but for the rounding to 8 bits after each resize (`prefrm.judge.backbones.resampling`).
        prepare_frames: (image processor, tokenizer, configuration, frames) -> a video as runs of token ids
            and inputs of the vision tower, in order; None if the family reads frames as images.
        spell: (tokenizer, configuration, grid) -> the token ids that stand for an image.
        encode: (backbone, N images, fill) -> N features [V, T, D]: what enters the language model in the
            place of the image's tokens, and, of families that have it, what is added at deeper layers. One
            pass, padded with `fill` patches or tiles.
        unit_patches: how many patches one of an image's `units` is, in a model of that configuration.
        positions: (configuration, text lengths and images in order) -> position ids [A, L] from 0.
        read: (backbone, embeddings [B, L, D], positions [A, B, L], features of all images [V, N * T, D],
            where they stand [B, L], attention of every layer) -> the last hidden state [B, L, D], after the
            final norm.
        images_in_text: whether images are written into a message's text as their token, because the
            family's chat templates put all images before all text.
    """

    model_type: str
    vision_tower: str
    lora_targets: str
    same: Callable[[Any, Any], Mapping[str, tuple[object, object]]]
    largest: Callable[[Any], int]
    pixel_budget: Callable[[Any, int | None, int | None], None]
    prepare: Callable[[Any, Image.Image], tuple[torch.Tensor, tuple[int, ...]]]
    prepare_pixels: Callable[[Any, torch.Tensor], tuple[torch.Tensor, tuple[int, ...]]]
    spell: Callable[[Any, Any, tuple[int, ...]], list[int]]
    encode: Callable[[Any, Sequence[ImageInput], int], Sequence[torch.Tensor]]
    prepare_frames: Callable[[Any, Any, Any, Frames], tuple[list[int] | ImageInput, ...]] | None = None
    shrink: Callable[[Any, Image.Image], Image.Image | None] = lambda *_: None
    unit_patches: Callable[[Any], int] = tile_patches
    positions: Callable[[Any, Sequence[int | ImageInput]], torch.Tensor] = plain_positions
    read: Callable[
        [Any, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, Callable[..., torch.Tensor]],
        torch.Tensor,
    ] = read_embeds
    images_in_text: bool = False
