"""Files of published checkpoints: configurations, and weights from safetensors files and pickles.

This is the one place of prefrm that reads a pickle, with `weights_only=True`, which builds tensors and plain
containers and calls nothing else.
"""

import hashlib
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from prefrm.display import shortened
from prefrm.errors import ConfigError
from prefrm.files import hash_file
from prefrm.imports.sources import Source
from prefrm.judge.weights import read_weights
from prefrm.manifest.contents import check_config, limits_of, read_object

__all__ = ["SAFETENSORS", "SETTINGS", "Checkpoint", "hash_settings", "read_checkpoint", "read_config"]

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
"""As `transformers` names the files of weights."""
SETTINGS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
)
"""The files by which `transformers` makes a configuration, a tokenizer and an image processor."""
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
WRAPPERS = ("state_dict", "model", "module")
"""Keys under which training loops put the weights among other things."""
MOST_INDEX = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Weights by their published names.

    Attributes:
        name: of the file, for messages.
        tensors: on the CPU; mapped from the file where possible.
        sha256: of each file that was read, by its name.
    """

    name: str
    tensors: Mapping[str, torch.Tensor]
    sha256: Mapping[str, str]

    @property
    def limits(self) -> dict[str, int]:
        """The largest numbers of layers and sizes that a configuration of these weights may have."""
        return limits_of({name: tuple(tensor.shape) for name, tensor in self.tensors.items()})

    @property
    def digest(self) -> str:
        """One hash, in hex, over the names and contents of all files."""
        lines = "".join(f"{name} {sha256}\n" for name, sha256 in sorted(self.sha256.items()))
        return hashlib.sha256(lines.encode()).hexdigest()


def read_checkpoint(source: Source, names: Sequence[str] = SAFETENSORS) -> Checkpoint:
    """All weights of a source.

    Args:
        source: a file of weights, or a folder with one of `names`.
        names: of files in a folder, the preferred first; an index names its shards.

    Raises:
        ConfigError: there is no such file, or it is truncated, of another format, or holds other things than
            tensors.
    """
    path = source.find(names)
    files = [path]
    if path.name.endswith(".index.json"):
        files = _shards(path)
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        tensors |= _read_pickle(file) if file.suffix in PICKLES else read_weights(file)
    return Checkpoint(name=path.name, tensors=tensors, sha256={file.name: hash_file(file) for file in files})


def read_config(folder: Path, types: Sequence[str], limits: Mapping[str, int]) -> Any:
    """The configuration of `transformers` in a folder.

    Args:
        folder: with `config.json`.
        types: the model types that are expected.
        limits: largest values by key (`Checkpoint.limits`).

    Raises:
        ConfigError: it is absent, malformed or of another type, names code, or describes a larger model.
    """
    check_config(folder, types, limits)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # `transformers` may raise any exception about settings of unexpected types.
    except Exception as error:
        raise ConfigError(
            f"{folder / 'config.json'} is not usable: {type(error).__name__}: {shortened(str(error), 300)}"
        ) from error


def hash_settings(folder: Path) -> dict[str, str]:
    """The sha256 of each of `SETTINGS` in a folder, by name."""
    return {name: hash_file(folder / name) for name in SETTINGS if (folder / name).is_file()}


def _shards(index: Path) -> list[Path]:
    places = read_object(index, MOST_INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise ConfigError(f"{index}: weight_map must name a file for each tensor")
    names = sorted({str(name) for name in places.values()})
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ConfigError(f"{index} names {name!r}, which is not a file beside it; download it, too")
    return [index.parent / name for name in names]


def _read_pickle(path: Path) -> dict[str, torch.Tensor]:
    content = _unwrapped(_unpickled(path))
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"{path} holds a {type(content).__name__}; weights by name are expected")
    others = sorted(
        str(name)
        for name, value in content.items()
        if not (isinstance(name, str) and isinstance(value, torch.Tensor))
    )
    if others:
        raise ConfigError(f"{path} holds other things than tensors by name, such as {others[0]!r}")
    return dict(content)


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # Of a pickle protocol that torch does not write itself.
            warnings.simplefilter("ignore", UserWarning)
            # Files of torch before 1.6 are no archives, which alone can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_archive(path))
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} is refused: it is not a plain checkpoint of tensors, and loading anything else could "
            "run code; look for one in safetensors"
        ) from error
    # A damaged pickle fails in any step of its reader.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(f"{path} is truncated or not a checkpoint of torch ({reason})") from error


def _is_archive(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _unwrapped(content: Any) -> Any:
    """The weights in a checkpoint of a training loop."""
    for name in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            return content[name]
    return content
