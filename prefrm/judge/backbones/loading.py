"""Where a base model is found, and how its checkpoint becomes a `transformers` model.

An installed package may ship checkpoints, by names that mean the same on every machine: it names the folder
of each under the entry point group `prefrm.checkpoints`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import AutoConfig, AutoModelForImageTextToText

from prefrm.display import shortened
from prefrm.errors import ConfigError, PrefrmError
from prefrm.files import hash_file
from prefrm.judge.backbones.registry import family_of
from prefrm.judge.backbones.vocabulary import add_rows
from prefrm.judge.quantization import keep_layout, nf4_settings
from prefrm.judge.weights import check_readable, load_pretrained, visible_files
from prefrm.manifest import JudgeSpec, check_checkpoint, stored_numbers

__all__ = ["SHIPPED", "BaseModel", "find_base", "find_shipped", "hash_base_files", "load_backbone"]

SHIPPED = "shipped:"
"""Prefix of the names of shipped checkpoints, such as `shipped:shapes-captioner`."""
# The files of a base model: weights, and configurations, tokenizer and chat template.
WEIGHTS = "*.safetensors"
# How many numbers a model may have for each one that is stored, before it is built. Weights that are missing
# are named once it is built.
MOST_DESCRIBED = 2
OTHER_FILES = ("*.json", "*.txt", "*.jinja", "*.model")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model on this machine.

    Attributes:
        folder: where its checkpoint lies.
        revision: the hub's commit, or None for a folder and for a shipped model.
        weights_sha256: one hash, in hex, over the names and contents of its safetensors files.
        trained: whether the folder holds weights that were trained further, such as a merged bundle's;
            the revision and the hash are then those of the model from which they came.
    """

    folder: Path
    revision: str | None
    weights_sha256: str
    trained: bool = False


def find_base(spec: JudgeSpec) -> BaseModel:
    """The base model's folder: itself, a shipped one, or the snapshot of a hub id, downloaded if not cached.

    Raises:
        ConfigError: there is no such folder, no such shipped model, and no such model on the hub or in its
            cache; or one that is not of the hub was given with a revision.
    """
    shipped = spec.base_model.startswith(SHIPPED)
    if shipped or Path(spec.base_model).is_dir():
        if spec.revision is not None:
            kind = "shipped model" if shipped else "folder"
            raise ConfigError(
                f"base_model {spec.base_model!r} is a {kind}, which has no revision {spec.revision!r}; "
                "leave the revision out"
            )
        folder = find_shipped(spec.base_model) if shipped else Path(spec.base_model)
        return BaseModel(folder=folder, revision=None, weights_sha256=_weights_sha256(folder))
    try:
        patterns = [WEIGHTS, *OTHER_FILES]
        folder = Path(snapshot_download(spec.base_model, revision=spec.revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        at = f" at revision {spec.revision!r}" if spec.revision else ""
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"base_model {spec.base_model!r}{at} is not a local folder and could not be downloaded from "
            f"the hub ({type(error).__name__}: {reason})"
        ) from error
    return BaseModel(folder=folder, revision=folder.name, weights_sha256=_weights_sha256(folder))


def find_shipped(name: str) -> Path:
    """The folder of the checkpoint `shipped:NAME`. Raises `ConfigError` that lists the known names."""
    installed = {entry.name: entry for entry in entry_points(group="prefrm.checkpoints")}
    if (entry := installed.get(name.removeprefix(SHIPPED))) is None:
        names = ", ".join(SHIPPED + known for known in sorted(installed))
        raise ConfigError(
            f"{name!r} is not a checkpoint that an installed package ships; there are: {names or 'none'}"
        )
    return Path(entry.load())


def load_backbone(
    folder: Path, *, dtype: torch.dtype, quantize: str | None = None, tokens: Sequence[str] = ()
) -> Any:
    """The checkpoint in `folder` as a `transformers` model, in evaluation mode, on the CPU.

    With `quantize` the layers that the family's `lora_targets` match are stored that way. They are
    quantized on the CPU always, so that every machine gets the same ones. Control `tokens` that the tokenizer
    of the folder lacks get rows in the embeddings (`add_rows`).

    Raises:
        ConfigError: the folder holds no checkpoint, one without safetensors or with other weights than the
            model has, an unsupported family, or layers that cannot be quantized.
        MissingExtraError: `quantize` is set and bitsandbytes is not installed.
    """
    try:
        check_checkpoint(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        targets = family_of(config).lora_targets
        skeleton = _skeleton(config, folder)
        stored: dict[str, Any] = {}
        if quantize is not None:
            settings = nf4_settings(skeleton, targets, dtype=dtype)
            stored = {"quantization_config": settings, "device_map": {"": "cpu"}}
        backbone = load_pretrained(AutoModelForImageTextToText, folder, dtype=dtype, **stored)
        keep_layout(backbone)
        add_rows(backbone, folder, tokens)
        return backbone
    except PrefrmError:
        raise
    # `transformers` may raise any exception about settings of unexpected types.
    except Exception as error:
        raise ConfigError(
            f"{folder} holds no usable checkpoint: {type(error).__name__}: {shortened(str(error), 300)}"
        ) from error


def _skeleton(config: Any, folder: Path) -> Any:
    """The model on the meta device. Raises `ConfigError` if it is far larger than its weights."""
    with torch.device("meta"):
        skeleton = AutoModelForImageTextToText.from_config(config, trust_remote_code=False)
    described, stored = sum(one.numel() for one in skeleton.parameters()), stored_numbers(folder)
    if described > MOST_DESCRIBED * stored:
        raise ConfigError(
            f"{folder / 'config.json'} describes a model of {described} numbers, and its weights have "
            f"{stored}; save or download the checkpoint again, whole"
        )
    return skeleton


def hash_base_files(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a base model except its weights, by name."""
    return {path.name: hash_file(path) for pattern in OTHER_FILES for path in visible_files(folder, pattern)}


def _weights_sha256(folder: Path) -> str:
    total = hashlib.sha256()
    for path in visible_files(folder, WEIGHTS):
        if not path.is_file():
            raise ConfigError(f"{path} is not a regular file")
        check_readable(path)
        total.update(f"{path.name} {hash_file(path)}\n".encode())
    return total.hexdigest()
