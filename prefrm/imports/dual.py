"""Builders of dual encoders: which files, which keys, which preprocessing."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer

from prefrm.errors import ConfigError
from prefrm.files import parse_json, read_regular
from prefrm.imports.importing import Imported, ImportRequest
from prefrm.imports.reading import Checkpoint, read_checkpoint
from prefrm.judge.dual import DualJudge, TextTokenizer, build_towers, fill_towers
from prefrm.manifest import DualSpec, ImageFit, TextReading

__all__ = [
    "build_pickscore",
    "crop_fit",
    "folder_with",
    "read_config",
    "read_tokenizer",
    "similarity",
]

PREPROCESSOR = "preprocessor_config.json"
TOKENIZERS = ("tokenizer.json", "vocab.json")
MOST_SETTINGS = 2**20
BUFFERS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")
"""Numbers 0, 1, 2, ... that older versions of `transformers` stored beside the weights."""


def build_pickscore(request: ImportRequest) -> Imported:
    """PickScore (yuvalkirstain/PickScore): softmax over candidates of exp(logit_scale) * cosine."""
    checkpoint = read_checkpoint(request.source)
    config = read_config(request.source.folder, "clip")
    spec = DualSpec(
        base_model=request.published.name,
        score="similarity",
        image=crop_fit(folder_with(request, PREPROCESSOR)),
        text=TextReading(tokens=config.text_config.max_position_embeddings),
    )
    return similarity(config, spec, checkpoint, folder_with(request, *TOKENIZERS))


def similarity(config: Any, spec: DualSpec, checkpoint: Checkpoint, tokenizer: Path) -> Imported:
    """A model of `transformers` that compares a text with an image, from weights under its own names."""
    assert spec.text is not None
    weights = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in BUFFERS}
    towers = fill_towers(build_towers(config, spec.score), weights, checkpoint.name)
    texts = TextTokenizer(read_tokenizer(tokenizer), spec.text)
    judge = DualJudge(towers, None, texts, spec, checkpoint.digest)
    return Imported(judge=judge, sha256=checkpoint.sha256)


def folder_with(request: ImportRequest, *names: str) -> Path:
    """The source's folder if it has one of these files, and else the base's."""
    source = request.source
    if source.path.is_dir() and any((source.path / name).is_file() for name in names):
        return source.path
    return request.open_base().folder


def read_config(folder: Path, model_type: str) -> Any:
    """The configuration of `transformers` in a folder. Raises `ConfigError` if it is of another model."""
    settings = _read_settings(folder / "config.json")
    if settings.get("model_type") != model_type:
        raise ConfigError(
            f"{folder / 'config.json'} is of a model of the type {settings.get('model_type')!r}; this judge "
            f"is a {model_type!r}"
        )
    return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def crop_fit(folder: Path) -> ImageFit:
    """The settings of CLIP's image processor in a folder: resize the shorter side, cut the center out."""
    path = folder / PREPROCESSOR
    settings = _read_settings(path)
    size, crop = settings.get("size"), settings.get("crop_size")
    sides = [size.get("shortest_edge") if isinstance(size, dict) else size]
    sides += [crop.get("height"), crop.get("width")] if isinstance(crop, dict) else [crop]
    if len(set(sides)) > 1 or not isinstance(sides[0], int):
        raise ConfigError(f"{path}: size and crop_size must be one number; received {size!r} and {crop!r}")
    for step in ("do_resize", "do_center_crop", "do_normalize"):
        if settings.get(step) is False:
            raise ConfigError(f"{path}: {step} is off; this judge needs it")
    return ImageFit(
        side=sides[0],
        fit="crop",
        resample=int(settings.get("resample", 3)),
        mean=tuple(settings["image_mean"]),
        std=tuple(settings["image_std"]),
    )


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder as one of the library `tokenizers`, which adds start and end by itself."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        raise ConfigError(f"{folder} has no tokenizer.json; this tokenizer cannot be imported without one")
    return backend


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings: Any = parse_json(read_regular(path, MOST_SETTINGS))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; give --base for what the source lacks"
        ) from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} must hold an object")
    return settings
