"""What the configurations of a checkpoint may say. They come from anybody, and libraries obey them.

`transformers` and `peft` load kernels and code from a hub if a configuration names some, and build as many
layers of any size as it asks for before they look at a weight. A configuration is refused if it names
anything to run or another file to read, or describes more than the headers of the weight files have.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefrm.errors import ConfigError, missing_extra
from prefrm.files import parse_json, read_regular
from prefrm.manifest.tokenizers import MOST_ADDED, check_tokenizer

try:
    from safetensors import SafetensorError, safe_open
except ImportError as error:
    raise missing_extra("safetensors", "judge") from error

__all__ = [
    "DUAL_TYPES",
    "MODEL_TYPES",
    "check_adapter",
    "check_checkpoint",
    "check_config",
    "check_processor",
    "check_text_tokenizer",
    "limits_of",
    "read_object",
    "stored_numbers",
    "tensor_shapes",
    "without_references",
]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# Of one file of JSON that is plain data; the largest in use, a tokenizer's settings, has some 250 KiB.
MOST_JSON = 8 * 2**20
MOST_TOKENIZER = 64 * 2**20
# No list or object of a model's configuration is longer, and no number larger but rotary bases.
MOST_ENTRIES = 1024
MOST_LAYERS = 512
# The largest models in use have some thousands.
MOST_TENSORS = 50_000
MOST_NUMBER = 2**26
MOST: Mapping[str, int] = {"num_labels": 1000, "partial_rotary_factor": 1}
LARGE = re.compile(r"(^|_)theta$")
LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth")
SIZES = ("embed_dim", "head_dim", "hidden_size", "intermediate_size", "out_hidden_size", "vocab_size")
HEADS = ("num_attention_heads", "num_heads", "num_key_value_heads")
PIXELS = (
    "image_size",
    "patch_size",
    "scale_factor",
    "spatial_merge_size",
    "temporal_patch_size",
    "window_size",
)
POSITIVE = frozenset({*LAYERS, *SIZES, *HEADS, *PIXELS})
# What `transformers` has built in; any other name is that of a repository with kernels.
ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
MODEL_TYPES = ("idefics3", "llava_onevision", "qwen2_5_vl", "qwen2_vl", "qwen3_vl", "smolvlm")
"""The families of `prefrm.judge.backbones`."""
DUAL_TYPES = ("blip", "clip", "clip_vision_model", "siglip")
"""Of the encoders of `prefrm.judge.dual`."""
# Of families that are composed of other models, which these may be; all are built by the same settings.
LANGUAGE_MODELS = ("llama", "mistral", "qwen2", "qwen3")
PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "idefics3": {"text_config": LANGUAGE_MODELS},
    "llava_onevision": {"text_config": LANGUAGE_MODELS, "vision_config": ("siglip_vision_model",)},
    "smolvlm": {"text_config": LANGUAGE_MODELS},
}
# Keys by which a configuration names code, kernels or other weights.
CODE = ("auto_map", "custom_pipelines", "kernel_config", "use_kernels", "trust_remote_code")
# Keys of a tokenizer's settings by which it reads other files than those of its folder.
FILES = re.compile(r"_files?$|^(init_inputs|merges|tokenizer_object|vocab)$")
# Of an adapter, which is LoRA: what may be set, and what only says where it comes from.
LORA: Mapping[str, Callable[[Any], bool]] = {
    "r": lambda value: type(value) is int and 1 <= value <= MOST_NUMBER,
    "lora_alpha": lambda value: type(value) in (int, float) and 0 <= value <= MOST_NUMBER,
    "lora_dropout": lambda value: type(value) in (int, float) and 0 <= value < 1,
    "target_modules": lambda value: type(value) is str or _names(value),
    "bias": lambda value: value in ("none", "all", "lora_only"),
    "use_rslora": lambda value: type(value) is bool,
    "use_dora": lambda value: type(value) is bool,
    "init_lora_weights": lambda value: type(value) is bool or value == "gaussian",
    "peft_type": lambda value: value == "LORA",
}
PROVENANCE = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
)
# Defaults of what may not be set.
UNSET = {"megatron_core": "megatron.core", "qalora_group_size": 16}

Shape = tuple[int, ...]


def check_checkpoint(folder: Path, types: Sequence[str] = MODEL_TYPES) -> Mapping[str, Any]:
    """The configuration of the model in `folder`, if it describes no more than its weights and names no code.

    Args:
        folder: with `config.json` and safetensors files.
        types: the model types that are loaded.

    Raises:
        ConfigError: a file is absent, malformed or not a regular file, or a setting is refused; it is named.
    """
    config = check_config(folder, types)
    _check_settings(folder / "config.json", config, {**MOST, **limits_of(tensor_shapes(folder))})
    generation = folder / "generation_config.json"
    if generation.exists():
        _check_settings(generation, read_object(generation), MOST)
    return config


def check_config(
    folder: Path, types: Sequence[str], limits: Mapping[str, int] | None = None
) -> Mapping[str, Any]:
    """The content of `config.json` in `folder`, if it is of one of these types and names no code.

    Args:
        folder: whose other files are not read.
        types: the model types that are loaded.
        limits: largest values by key, such as `limits_of` the weights; None if these are not known.

    Raises:
        ConfigError: as `check_checkpoint`.
    """
    path = folder / "config.json"
    config = read_object(path)
    _check_parts(path, config, types)
    _check_settings(path, config, {**MOST, **dict.fromkeys(LAYERS, MOST_LAYERS), **(limits or {})})
    return config


def limits_of(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """The largest numbers of layers and sizes that a model with tensors of these shapes may have."""
    # Each layer has a tensor at least, and each of these sizes is the extent of one.
    layers = min(len(shapes), MOST_LAYERS)
    most = max((side for shape in shapes.values() for side in shape), default=0)
    return {**dict.fromkeys(LAYERS, layers), **dict.fromkeys(SIZES, most)}


def check_processor(folder: Path) -> None:
    """Check the settings of the tokenizer and the image processor in `folder`.

    Raises:
        ConfigError: as `check_checkpoint`.
    """
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        if not (folder / name).exists() and name != "preprocessor_config.json":
            continue
        settings = read_object(folder / name)
        for key, value in _settings(settings):
            _check_code(folder / name, key, value)
            if FILES.search(key) and value:
                raise ConfigError(f"{folder / name}: {key} is refused: it may name other files; leave it out")
            if _is_longer(value, MOST_ADDED):
                raise ConfigError(
                    f"{folder / name}: {key} has {len(value)} entries; {MOST_ADDED} are allowed"
                )
            if name != "tokenizer_config.json":
                _check_number(folder / name, key, value, MOST)
    if (tokenizer := folder / "tokenizer.json").exists():
        check_text_tokenizer(tokenizer)


def check_text_tokenizer(path: Path) -> None:
    """Check a `tokenizer.json`. Raises `ConfigError` as `check_checkpoint`."""
    check_tokenizer(path, read_object(path, MOST_TOKENIZER))


def without_references(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a processor without those that `check_processor` refuses and prefrm does not need."""
    return {key: value for key, value in settings.items() if key not in CODE and not FILES.search(key)}


def check_adapter(folder: Path) -> None:
    """Check the configuration of the LoRA adapter in `folder`.

    Raises:
        ConfigError: as `check_checkpoint`.
    """
    path = folder / "adapter_config.json"
    for key, value in read_object(path).items():
        if key in PROVENANCE:
            continue
        if (allowed := LORA.get(key)) is not None:
            fits = allowed(value)
        else:
            fits = not value or value == UNSET.get(key)
        if not fits:
            raise ConfigError(
                f"{path}: {key}={value!r} is not what prefrm loads; it loads plain LoRA adapters"
            )


def tensor_shapes(folder: Path) -> dict[str, Shape]:
    """The shape of each tensor of the checkpoint in `folder`, from the headers of its weight files.

    Raises:
        ConfigError: a file is absent, truncated or not a readable safetensors file.
    """
    shapes: dict[str, Shape] = {}
    for path in _weight_files(folder):
        # Opening anything else, such as a FIFO, could wait for ever.
        if not path.is_file():
            raise ConfigError(f"{path} is missing or not a regular file")
        try:
            with safe_open(path, framework="np") as file:
                if (count := len(file.keys())) > MOST_TENSORS:
                    raise ConfigError(f"{path} has {count} tensors; {MOST_TENSORS} are allowed")
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{path} is truncated or not a readable safetensors file ({error}); save or download it again"
            ) from error
    return shapes


def stored_numbers(folder: Path) -> int:
    """How many numbers the weights of the checkpoint in `folder` are. Raises as `tensor_shapes`."""
    return sum(math.prod(shape) for shape in tensor_shapes(folder).values())


def _weight_files(folder: Path) -> list[Path]:
    """The files that `transformers` reads: one, or those of an index."""
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        return [folder / WEIGHTS]
    places = read_object(folder / INDEX).get("weight_map")
    if (
        not isinstance(places, dict)
        or not places
        or not all(isinstance(name, str) for name in places.values())
    ):
        raise ConfigError(f"{folder / INDEX}: weight_map must name a file for each tensor")
    names = sorted(set(places.values()))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigError(f"{folder / INDEX}: {name!r} is not the name of a safetensors file beside it")
    return [folder / name for name in names]


def read_object(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The object in a file of JSON of at most `most` bytes. Raises `ConfigError` that names the file."""
    try:
        value = parse_json(read_regular(path, most))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold an object; it holds a {type(value).__name__}")
    return value


def _check_parts(path: Path, config: Mapping[str, Any], types: Sequence[str]) -> None:
    """Raise `ConfigError` for a model, or a part of one, that other settings may build than are checked."""
    if (family := config.get("model_type")) not in types:
        raise ConfigError(
            f"{path}: the base model is a {family!r}, which is not supported; "
            f"supported model types: {', '.join(types)}"
        )
    for name, known in PARTS.get(str(family), {}).items():
        part = config.get(name)
        kind = part.get("model_type") if isinstance(part, dict) else None
        if kind is not None and kind not in known:
            raise ConfigError(f"{path}: {name} is of the type {kind!r}; supported: {', '.join(known)}")


def _settings(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every key with its value, in nested objects too; an entry of a list has the key of the list."""
    if key:
        yield key, value
    if isinstance(value, dict):
        for inner, child in value.items():
            yield from _settings(child, inner)
    elif isinstance(value, list):
        for child in value:
            yield from _settings(child, key)


def _check_settings(path: Path, config: Mapping[str, Any], most: Mapping[str, int]) -> None:
    for key, value in _settings(config):
        _check_code(path, key, value)
        _check_number(path, key, value, most)
        if key == "quantization_config" and value is not None:
            raise ConfigError(
                f"{path}: quantization_config is not supported; take plain weights, which judge.quantize "
                "stores in four bits"
            )
        if _is_longer(value, MOST_ENTRIES):
            raise ConfigError(f"{path}: {key} has {len(value)} entries; {MOST_ENTRIES} are allowed")


def _is_longer(value: Any, most: int) -> bool:
    return isinstance(value, dict | list) and len(value) > most


def _check_code(path: Path, key: str, value: Any) -> None:
    if key in CODE and value:
        raise ConfigError(f"{path}: {key} is refused: it names code, and a checkpoint is only data")
    if key in ("attn_implementation", "_attn_implementation"):
        for name in value.values() if isinstance(value, dict) else [value]:
            if name not in ATTENTIONS:
                known = ", ".join(filter(None, ATTENTIONS))
                raise ConfigError(f"{path}: {key} must be one of {known}; received {name!r}")


def _check_number(path: Path, key: str, value: Any, most: Mapping[str, int]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or LARGE.search(key):
        return
    least, most_of_key = 1 if key in POSITIVE else -MOST_NUMBER, most.get(key, MOST_NUMBER)
    if value < least:
        raise ConfigError(f"{path}: {key} must be at least {least}; received {value!r}")
    if value > most_of_key:
        raise ConfigError(f"{path}: {key} must be at most {most_of_key}; received {value!r}")


def _names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MOST_ENTRIES
        and all(isinstance(name, str) for name in value)
    )
