"""Everything that decides the result of a run, so that a checkpoint is continued by the same run only."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from prefrm.config import to_mapping
from prefrm.errors import ConfigError
from prefrm.judge.backbones import BaseModel, hash_base_files
from prefrm.prompts import get_template
from prefrm.train.config import TrainConfig
from prefrm.train.prepared import Survey
from prefrm.train.processes import gather, processes
from prefrm.train.trainer import read_state

__all__ = ["check_same_run", "identify_run"]

# Where a run is, how it is shown and what is made of its weights changes none of them; nor does how often an
# activation is computed. A revision counts as its commit.
OF_NO_MATTER = (
    "output",
    "device",
    "export",
    "license",
    "checkpoint",
    "report_to",
    "judge.revision",
    "data.path",
    "data.num_workers",
    "optim.gradient_checkpointing",
)
# A step reads the same groups, with the same loss, however many forward passes share them. What an adapter's
# dropout drops is drawn for each pass, though, and rounding is of each sum.
FACTORS = ("optim.batch_size", "optim.accumulation")
# They define the model, its input and the order of groups, and another version may do so otherwise.
LIBRARIES = ("prefrm", "torch", "transformers", "peft", "tokenizers", "numpy", "pillow")
# Of a hash, in a message.
DIGITS = 12


def identify_run(
    config: TrainConfig, base: BaseModel, surveys: Mapping[str, Survey], dtype: torch.dtype
) -> dict[str, Any]:
    """Everything that the result of a run depends on, as flat JSON: settings, base model, data, libraries.

    But for rounding and for what an adapter's dropout drops: both differ with how many forward passes
    share the groups of a step, which a resumed run may change.

    Args:
        config: the settings.
        base: the base model on this machine.
        surveys: of every split that the run reads, by the setting that names it.
        dtype: of the backbone; "auto" is another one on another device.

    Raises:
        ConfigError: the processes of the run have different base models or libraries.
    """
    identity = {
        **_settings(config),
        **_base(base),
        **_data(surveys, streamed=config.data.stream),
        **{f"version of {name}": _version(name) for name in _libraries(config)},
        "dtype": str(dtype).removeprefix("torch."),
        "prompt template": _hash(asdict(get_template(config.judge.template))),
        "processes": processes(),
    }
    for other in gather(identity):
        if changes := _changes(identity, other):
            raise ConfigError(f"the processes of this run do not agree: {changes}; give all of them the same")
    return identity


def check_same_run(checkpoint: Path, identity: Mapping[str, Any]) -> None:
    """Raise `ConfigError` that names what is not as it was when `checkpoint` was written."""
    before = read_state(checkpoint)["identity"]
    if not (changes := _changes(before, identity)):
        return
    commit = before["base commit"]
    moved = commit is not None and commit != identity["base commit"]
    advice = f"set judge.revision={commit}" if moved else "resume with the same settings and files"
    raise ConfigError(f"{checkpoint} is of another run: {changes}; {advice}, or choose another output")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{key} was {_shown(before.get(key))} and is {_shown(now.get(key))}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    )


def _shown(value: Any) -> str:
    is_hash = isinstance(value, str) and len(value) == hashlib.sha256().digest_size * 2
    return repr(value[:DIGITS] if is_hash else value)


def _settings(config: TrainConfig) -> dict[str, Any]:
    return {
        key: value
        for key, value in _flat(to_mapping(config))
        if not any(key == name or key.startswith(f"{name}.") for name in (*OF_NO_MATTER, *FACTORS))
    } | {" x ".join(FACTORS): config.optim.batch_size * config.optim.accumulation}


def _base(base: BaseModel) -> dict[str, Any]:
    files = {f"base file {name}": digest for name, digest in hash_base_files(base.folder).items()}
    return files | {"base commit": base.revision, "base weights": base.weights_sha256}


def _data(surveys: Mapping[str, Survey], *, streamed: bool) -> dict[str, Any]:
    found = {f"{name} fingerprint": survey.fingerprint for name, survey in surveys.items()}
    if streamed:
        # A stream is shuffled by row groups.
        learned = (name for name in surveys if name.endswith("train"))
        found |= {f"{name} row groups": surveys[name].layout for name in learned}
    return found


def _libraries(config: TrainConfig) -> tuple[str, ...]:
    return LIBRARIES if config.judge.quantize is None else (*LIBRARIES, "bitsandbytes")


def _version(package: str) -> str:
    """Without the local part, by which torch names the devices that it was built for."""
    return version(package).partition("+")[0]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            # Nor do the paths in a list of datasets.
            yield f"{prefix}{key}", _without_paths(value) if isinstance(value, list) else value


def _without_paths(entries: list[Any]) -> list[Any]:
    return [
        {key: value for key, value in entry.items() if key != "path"} if isinstance(entry, dict) else entry
        for entry in entries
    ]
