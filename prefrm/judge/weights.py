"""Weights from safetensors files: exactly those that a model has, each in its shape.

`transformers` and `peft` initialise missing weights at random and ignore unexpected ones. Here both are
errors: such a judge would be another one whenever it is loaded.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.core_model_loading import revert_weight_conversion

from prefrm.errors import ConfigError

__all__ = [
    "check_readable",
    "check_weights",
    "fill_pretrained",
    "load_pretrained",
    "load_weights",
    "read_weights",
    "read_weights_like",
    "visible_files",
]

# Tensors of each kind that an error names; the rest are counted.
NAMED = 3

Shape = tuple[int, ...]


def load_pretrained(kind: Any, folder: Path, **options: Any) -> Any:
    """`kind.from_pretrained(folder)` in evaluation mode, from safetensors alone, and with every weight.

    Weights that the configuration ties need be in the files only once.

    Args:
        kind: an auto class of `transformers`, such as `AutoModelForCausalLM`.
        options: of `from_pretrained`.

    Raises:
        ConfigError: a file of weights is truncated or unreadable, or a weight is missing, has another shape
            or is unexpected; it is named.
    """
    for path in visible_files(folder, "*.safetensors"):
        check_readable(path)
    return _complete(folder, kind, folder, use_safetensors=True, trust_remote_code=False, **options)


def fill_pretrained(
    config: Any, weights: Mapping[str, torch.Tensor], source: Path | str, *, dtype: torch.dtype
) -> Any:
    """The image-text model of a configuration with these weights, in evaluation mode, on the CPU.

    Args:
        config: of `transformers`.
        weights: by any names that `transformers` reads for the model, such as those of its older versions.
        source: of the weights, for messages.
        dtype: of the model.

    Raises:
        ConfigError: a weight is missing, has another shape or is unexpected; it is named.
    """
    kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
    return _complete(source, kind, None, config=config, state_dict=dict(weights), dtype=dtype)


def _complete(source: Path | str, kind: Any, name: Path | None, **options: Any) -> Any:
    """`kind.from_pretrained(name)` if the model and the weights have the same names and shapes."""
    with _without_load_report():
        model, found = kind.from_pretrained(
            name,
            # Reported and then refused, together with all other differences.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    _refuse(
        source,
        missing=_names_in_files(model, found["missing_keys"]),
        unexpected=_names_in_files(model, found["unexpected_keys"]),
        reshaped={
            _names_in_files(model, [name])[0]: (tuple(of_file), tuple(of_model))
            for name, of_file, of_model in found["mismatched_keys"]
        },
    )
    return model


def load_weights(module: nn.Module, path: Path) -> None:
    """Give a module of float32, which may be on the meta device, the tensors of a file.

    Raises:
        ConfigError: as `load_pretrained`.
    """
    module.load_state_dict(read_weights_like(path, module.state_dict()), assign=True)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU. Raises `ConfigError` if it is truncated or unreadable."""
    with _naming(path):
        weights: dict[str, torch.Tensor] = load_file(path)
    return weights


def read_weights_like(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU, in float32, which is the type of all that a judge learns.

    `expected` may be on the meta device.

    Raises:
        ConfigError: the file is truncated or unreadable, or has other names or shapes than `expected`.
    """
    weights = read_weights(path)
    check_weights(path, weights, expected)
    return {name: tensor.float() for name, tensor in weights.items()}


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """The files that match a pattern such as `*.json`, sorted, without hidden ones, which nothing loads.

    On other file systems macOS keeps a hidden `._model.safetensors` beside `model.safetensors`.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def check_readable(path: Path) -> None:
    """Raise `ConfigError` if a file is truncated or unreadable; reads its header alone."""
    with _naming(path), safe_open(path, framework="pt"):
        pass


def check_weights(
    source: Path | str, found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise `ConfigError` if `found` has not the names and shapes of `expected`; names `source` and them."""
    shapes = {
        name: (tuple(found[name].shape), tuple(expected[name].shape)) for name in found if name in expected
    }
    _refuse(
        source,
        missing=expected.keys() - found.keys(),
        unexpected=found.keys() - expected.keys(),
        reshaped={name: pair for name, pair in shapes.items() if pair[0] != pair[1]},
    )


def _refuse(
    source: Path | str,
    *,
    missing: Collection[str],
    unexpected: Collection[str],
    reshaped: Mapping[str, tuple[Shape, Shape]],
) -> None:
    differ = [
        f"{name} is {list(of_file)} instead of {list(of_model)}"
        for name, (of_file, of_model) in sorted(reshaped.items())
    ]
    kinds = (("missing", sorted(missing)), ("of another shape", differ), ("unexpected", sorted(unexpected)))
    problems = [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds if names]
    if problems:
        raise ConfigError(
            f"{source} holds other weights than the model has: {'; '.join(problems)}; "
            "save or download it again, whole"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _names_in_files(model: Any, names: Collection[str]) -> list[str]:
    """The names of a model's weights as its checkpoint has them; `transformers` renames some as it loads.

    It forgets how where no weight of a part of the model was in the files.
    """
    return list(revert_weight_conversion(model, {name: torch.empty(0) for name in names}))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path} is truncated or not a readable safetensors file ({error}); save or download it again"
        ) from error


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Suppress the table in which `transformers` warns of what is refused here by an error."""
    logger = logging.getLogger("transformers.modeling_utils")
    # Not the logger's level, by which `transformers` decides what else it checks and reports.
    logger.addFilter(_is_no_load_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_load_report)


def _is_no_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()
