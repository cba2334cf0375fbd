"""The identity of a run: everything that decides its result, so that the same run alone continues it."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from prefrm.config import flatten, to_mapping
from prefrm.errors import ConfigError
from prefrm.judge.backbones import BaseModel, hash_base_files
from prefrm.media import digest
from prefrm.prompts import get_template
from prefrm.train.config import TrainConfig
from prefrm.train.distributed import gather, processes
from prefrm.train.prepared import Survey
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
SHA256_DIGITS = 64
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
    template = json.dumps(asdict(get_template(config.judge.template, config.judge.kind)), sort_keys=True)
    quantizing = () if config.judge.quantize is None else ("bitsandbytes",)
    decoding = ("av",) if config.judge.kind == "video" else ()
    identity = {
        **_settings(config),
        **{f"base file {name}": sha256 for name, sha256 in hash_base_files(base.folder).items()},
        "base commit": base.revision,
        "base weights": base.weights_sha256,
        **{f"{name} fingerprint": survey.fingerprint for name, survey in surveys.items()},
        # Without the local part, by which torch names the devices that it was built for.
        **{
            f"version of {name}": version(name).partition("+")[0]
            for name in (*LIBRARIES, *quantizing, *decoding)
        },
        "dtype": str(dtype).removeprefix("torch."),
        "prompt template": digest(template.encode()),
        "processes": processes(),
    }
    if config.data.stream:
        # A stream is shuffled by row groups.
        learned = [name for name in surveys if name.endswith("train")]
        identity |= {f"{name} row groups": surveys[name].layout for name in learned}
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
    is_hash = isinstance(value, str) and len(value) == SHA256_DIGITS
    return repr(value[:DIGITS] if is_hash else value)


def _settings(config: TrainConfig) -> dict[str, Any]:
    left_out = tuple(f"{name}." for name in (*OF_NO_MATTER, *FACTORS))
    flat = flatten(to_mapping(config))
    settings = {key: value for key, value in flat.items() if not f"{key}.".startswith(left_out)}
    settings["data.mix"] = [
        {key: value for key, value in one.items() if key != "path"} for one in settings["data.mix"]
    ]
    return settings | {" x ".join(FACTORS): config.optim.batch_size * config.optim.accumulation}
