"""What builders of dual encoders share: preprocessing, tokenizers and affine heads."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer

from prefrm.errors import ConfigError
from prefrm.imports.importing import ImportRequest
from prefrm.imports.reading import Checkpoint
from prefrm.manifest import ImageFit
from prefrm.manifest.contents import read_object

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "PREPROCESSOR",
    "TOKENIZERS",
    "affine",
    "crop_fit",
    "folder_with",
    "layer_count",
    "read_tokenizer",
    "shape_of",
    "side_from_positions",
    "stretch_fit",
]

PREPROCESSOR = "preprocessor_config.json"
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels on which OpenAI trained CLIP; OpenCLIP, BLIP and ImageReward use the same."""
MLP_LAYERS = (0, 2, 4, 6, 7)
"""Places of the linear layers among dropouts, in the heads of ImageReward and of LAION's predictor."""


def folder_with(request: ImportRequest, *names: str) -> Path:
    """The base's folder if a person named a base; else the source's if it has one of these files.

    Raises:
        ConfigError: the source has none of them, and the judge has no base.
    """
    folder = request.source.folder
    if not request.names_base and any((folder / name).is_file() for name in names):
        return folder
    if request.base_name is None:
        raise ConfigError(f"{folder} has no {' and no '.join(names)}; name a folder that has the whole model")
    return request.base.folder


def crop_fit(folder: Path) -> ImageFit:
    """The settings of CLIP's image processor: resize the shorter side, cut the center out."""
    path = folder / PREPROCESSOR
    settings = read_object(path)
    size, crop = settings.get("size"), settings.get("crop_size")
    sides = [size.get("shortest_edge") if isinstance(size, dict) else size]
    sides += [crop.get("height"), crop.get("width")] if isinstance(crop, dict) else [crop]
    if len(set(sides)) > 1 or not isinstance(sides[0], int):
        raise ConfigError(f"{path}: size and crop_size must be one number; received {size!r} and {crop!r}")
    return _fit(path, settings, sides[0], "crop", ("do_resize", "do_center_crop", "do_normalize"))


def stretch_fit(folder: Path) -> ImageFit:
    """The settings of SigLIP's image processor: resize to a square."""
    path = folder / PREPROCESSOR
    settings = read_object(path)
    size = settings.get("size")
    if not isinstance(size, dict) or not isinstance(size.get("height"), int) or len({*size.values()}) > 1:
        raise ConfigError(f"{path}: size must have an equal height and width; received {size!r}")
    return _fit(path, settings, size["height"], "stretch", ("do_resize", "do_normalize"))


def _fit(path: Path, settings: Mapping[str, Any], side: int, fit: Any, steps: Sequence[str]) -> ImageFit:
    for step in steps:
        if settings.get(step) is False:
            raise ConfigError(f"{path}: {step} is off; this judge needs it")
    try:
        mean, std = (tuple(map(float, settings[name])) for name in ("image_mean", "image_std"))
        return ImageFit(side=side, fit=fit, resample=int(settings.get("resample", 3)), mean=mean, std=std)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is not an image processor's: {error}") from error


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder as one of the library `tokenizers`, which adds start and end by itself.

    Raises:
        ConfigError: there is none, or it adds neither.
    """
    try:
        if (path := folder / "tokenizer.json").is_file():
            tokenizer: Any = Tokenizer.from_file(str(path))
        else:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False).backend_tokenizer
    # Each library raises what it likes, `tokenizers` bare exceptions.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{folder} has no usable tokenizer.json: {reason}") from error
    if not tokenizer.encode("").ids:
        raise ConfigError(f"{folder}: the tokenizer adds no start and no end of a text")
    return tokenizer


def shape_of(checkpoint: Checkpoint, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a weight. Raises `ConfigError` if it is missing or has another number of axes."""
    if name not in checkpoint.tensors:
        raise ConfigError(f"{checkpoint.name} has no {name}; is it the checkpoint of this judge?")
    shape = tuple(checkpoint.tensors[name].shape)
    if len(shape) != axes or not all(shape):
        raise ConfigError(f"{checkpoint.name}: {name} is {list(shape)}, and {axes} axes are expected")
    return shape


def layer_count(checkpoint: Checkpoint, prefix: str) -> int:
    """How many layers there are, by the numbers that follow a prefix such as `blocks.`."""
    names = (name.removeprefix(prefix) for name in checkpoint.tensors if name.startswith(prefix))
    return 1 + max((int(n) for name in names if (n := name.split(".", 1)[0]).isdecimal()), default=-1)


def affine(checkpoint: Checkpoint, prefix: str, width: int) -> nn.Linear:
    """The layers of an MLP without nonlinearity as the one affine map that they are, composed in float64.

    Args:
        checkpoint: with weights `{prefix}{n}.weight` and `.bias`.
        prefix: such as `layers.`.
        width: how many numbers the first layer reads.
    """
    weight, bias = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for n in MLP_LAYERS:
        inner, outer = len(weight), shape_of(checkpoint, f"{prefix}{n}.weight", 2)
        if outer[1] != inner:
            raise ConfigError(
                f"{checkpoint.name}: {prefix}{n}.weight is {list(outer)}; it reads {inner} numbers"
            )
        shape_of(checkpoint, f"{prefix}{n}.bias", 1)
        layer, offset = (checkpoint.tensors[f"{prefix}{n}.{name}"].double() for name in ("weight", "bias"))
        weight, bias = layer @ weight, layer @ bias + offset
    if (outputs := len(weight)) != 1:
        raise ConfigError(f"{checkpoint.name}: the head gives {outputs} numbers instead of one")
    head = nn.Linear(width, 1)
    head.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return head.requires_grad_(False)


def side_from_positions(positions: int, patch: int) -> int:
    """Pixels along a side of an image whose positions are a class token and a square grid of patches."""
    return math.isqrt(positions - 1) * patch
