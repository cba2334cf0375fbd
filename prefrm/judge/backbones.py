"""Vision-language backbones: the facts of each model family, and how one is found and loaded.

Everything that differs from family to family stands here and nowhere else. A family is one entry of
`FAMILIES`, by the `model_type` of its configuration.

Shapes: B sequences, N images, P patches of all images, C numbers of a patch, T tokens of an image,
V depths at which features enter the language model, D hidden, A axes of a position, L positions.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText

from prefrm.errors import ConfigError
from prefrm.judge.images import ImageInput
from prefrm.judge.quantization import keep_layout, nf4_settings
from prefrm.judge.spec import JudgeSpec

__all__ = [
    "FAMILIES",
    "BaseModel",
    "Family",
    "family_of",
    "find_base",
    "load_backbone",
    "mrope_positions",
]

# Of image sides, beyond which the image processor refuses (Qwen2-VL's `smart_resize`).
QWEN_ASPECT_RATIO = 200
# What a judge reads of a hub repository: weights, configurations, tokenizer and chat template.
HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What prefrm needs to know of a model family.

    Attributes:
        model_type: as in the checkpoint's `config.json`.
        vision_tower: module path of the vision tower inside the backbone.
        lora_targets: a regular expression over whole module paths, as PEFT's `target_modules` takes
            it: the linear layers of the language model, none of the vision tower.
        max_length: how many positions a model of that configuration reads.
        pixel_budget: sets an image processor's bounds on pixels (least, most; None keeps a bound).
        prepare: (image processor, image) -> its pixels and its grid.
        spell: (tokenizer, configuration, grid) -> the token ids that stand for an image.
        encode: (backbone, N images) -> N features [V, T, D]: what enters the language model in the
            place of the image's tokens, and, of families that have it, what is added at deeper layers.
        positions: (configuration, text lengths and images in order) -> position ids [A, L] from 0.
        extent: (configuration, image processor) -> the most positions that one image can advance.
        read: (backbone, embeddings [B, L, D], mask [B, L] or [B, 1, L, L], positions [A, B, L], features
            of all images [V, N * T, D], where they stand [B, L]) -> the last hidden state [B, L, D],
            after the final norm.
    """

    model_type: str
    vision_tower: str
    lora_targets: str
    max_length: Callable[[Any], int]
    pixel_budget: Callable[[Any, int | None, int | None], None]
    prepare: Callable[[Any, Image.Image], tuple[torch.Tensor, tuple[int, ...]]]
    spell: Callable[[Any, Any, tuple[int, ...]], list[int]]
    encode: Callable[[Any, Sequence[ImageInput]], Sequence[torch.Tensor]]
    positions: Callable[[Any, Sequence[int | ImageInput]], torch.Tensor]
    extent: Callable[[Any, Any], int]
    read: Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def mrope_positions(parts: Sequence[int | tuple[int, int, int]], merge: int) -> torch.Tensor:
    """Multimodal rotary positions of Qwen2-VL (arXiv 2409.12191, section 2.1), int64 [3, L].

    The three rows are time, height and width. Text counts up in all three; an image spans a grid that
    starts where the text stopped, and what follows starts after the grid's longer side.

    Args:
        parts: in reading order, the length of a run of text or the grid of an image, in patches.
        merge: patches along each side of a token.
    """
    blocks, start = [], 0
    for part in parts:
        if isinstance(part, int):
            block, extent = torch.arange(part).expand(3, -1), part
        else:
            sides = (part[0], part[1] // merge, part[2] // merge)
            axes = torch.meshgrid(*(torch.arange(side) for side in sides), indexing="ij")
            block, extent = torch.stack(axes).reshape(3, -1), max(sides[1:])
        blocks.append(block + start)
        start += extent
    return torch.cat(blocks, dim=1)


def _qwen_positions(config: Any, parts: Sequence[int | ImageInput]) -> torch.Tensor:
    plain = [part if isinstance(part, int) else (part.grid[0], part.grid[1], part.grid[2]) for part in parts]
    return mrope_positions(plain, config.vision_config.spatial_merge_size)


def _qwen_extent(config: Any, image_processor: Any) -> int:
    """Tokens along the longer side of the longest strip that the image processor lets through.

    Rounding to whole tokens takes away up to a third of the shorter side, hence the factor.
    """
    side: int = config.vision_config.spatial_merge_size * config.vision_config.patch_size
    most: float = max(image_processor.size.values()) / side**2
    return min(math.ceil(most), math.ceil(math.sqrt(1.5 * most * QWEN_ASPECT_RATIO))) + 1


def _qwen_spell(tokenizer: Any, config: Any, grid: tuple[int, ...]) -> list[int]:
    tokens: int = math.prod(grid) // config.vision_config.spatial_merge_size**2
    return [config.image_token_id] * tokens


def _qwen_encode(backbone: Any, images: Sequence[ImageInput]) -> Sequence[torch.Tensor]:
    device = backbone.device
    pixels_PC = torch.cat([image.pixels for image in images]).to(device)
    grid_N3 = torch.tensor([image.grid for image in images], device=device)
    features = backbone.model.get_image_features(pixels_PC, grid_N3).pooler_output
    return [feature_TD[None] for feature_TD in features]


def _read_embeds(
    backbone: Any,
    embeds_BLD: torch.Tensor,
    mask: torch.Tensor,
    positions_ABL: torch.Tensor,
    features_VND: torch.Tensor,
    where_BL: torch.Tensor,
) -> torch.Tensor:
    hidden_BLD: torch.Tensor = backbone.model(
        inputs_embeds=embeds_BLD, attention_mask=mask, position_ids=positions_ABL, use_cache=False
    ).last_hidden_state
    return hidden_BLD


def _qwen_prepare(image_processor: Any, image: Image.Image) -> tuple[torch.Tensor, tuple[int, ...]]:
    data = image_processor(images=image, return_tensors="pt")
    time, height, width = (int(side) for side in data["image_grid_thw"][0])
    return data["pixel_values"], (time, height, width)


def _qwen_pixel_budget(image_processor: Any, least: int | None, most: int | None) -> None:
    size = image_processor.size
    least = size["shortest_edge"] if least is None else least
    most = size["longest_edge"] if most is None else most
    if least > most:
        raise ConfigError(
            f"min_pixels ({least}) is larger than max_pixels ({most}); a bound that is not set is the "
            "base model's own, so set both"
        )
    image_processor.size = {"shortest_edge": least, "longest_edge": most}


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            model_type="qwen2_5_vl",
            vision_tower="model.visual",
            lora_targets=(
                r"model\.language_model\.layers\.\d+\."
                r"(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
            ),
            max_length=lambda config: int(config.text_config.max_position_embeddings),
            pixel_budget=_qwen_pixel_budget,
            prepare=_qwen_prepare,
            spell=_qwen_spell,
            encode=_qwen_encode,
            positions=_qwen_positions,
            extent=_qwen_extent,
            read=_read_embeds,
        ),
    )
}


def family_of(config: Any) -> Family:
    """The family of a checkpoint's configuration. Raises `ConfigError` that lists the supported ones."""
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"the base model is a {config.model_type!r}, which is not supported; "
            f"supported model types: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[config.model_type]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model on this machine.

    Attributes:
        folder: where its checkpoint lies.
        revision: the hub's commit, or None for a folder.
        weights_sha256: one hash, in hex, over the names and contents of its safetensors files.
        trained: whether the folder holds weights that were trained further, such as a merged bundle's;
            the revision and the hash are then those of the model from which they came.
    """

    folder: Path
    revision: str | None
    weights_sha256: str
    trained: bool = False


def find_base(spec: JudgeSpec) -> BaseModel:
    """The base model's folder: itself, or the snapshot of a hub id, downloaded if it is not cached.

    Raises:
        ConfigError: there is no such folder and no such model on the hub or in its cache, or a folder
            was given with a revision.
    """
    if Path(spec.base_model).is_dir():
        if spec.revision is not None:
            raise ConfigError(
                f"base_model {spec.base_model!r} is a folder, which has no revision {spec.revision!r}; "
                "leave the revision out"
            )
        folder = Path(spec.base_model)
        return BaseModel(folder=folder, revision=None, weights_sha256=_weights_sha256(folder))
    try:
        folder = Path(snapshot_download(spec.base_model, revision=spec.revision, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        at = f" at revision {spec.revision!r}" if spec.revision else ""
        raise ConfigError(
            f"base_model {spec.base_model!r}{at} is no folder here and could not be had from the hub "
            f"({type(error).__name__}: {_first_line(error)})"
        ) from error
    return BaseModel(folder=folder, revision=folder.name, weights_sha256=_weights_sha256(folder))


def load_backbone(folder: Path, *, dtype: torch.dtype, quantize: str | None = None) -> Any:
    """The checkpoint in `folder` as a `transformers` model, in evaluation mode, on the CPU.

    With `quantize` the layers that the family's `lora_targets` match are stored that way. They are
    quantized on the CPU always, so that every machine gets the same ones.

    Raises:
        ConfigError: the folder holds no checkpoint, one without safetensors, an unsupported family, or
            layers that cannot be quantized.
        MissingExtraError: `quantize` is set and bitsandbytes is not installed.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        targets = family_of(config).lora_targets
        stored: dict[str, Any] = {}
        if quantize is not None:
            settings = nf4_settings(config, targets, dtype=dtype)
            stored = {"quantization_config": settings, "device_map": {"": "cpu"}}
        backbone = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, **stored
        )
        keep_layout(backbone)
        return backbone
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{folder} holds no usable checkpoint: {_first_line(error)}") from error


def _weights_sha256(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
