"""What is refused before anything is loaded: a folder that is taken, other settings."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from prefrm.config import to_mapping
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.train.checkpoints import Checkpoints
from prefrm.train.config import TrainConfig
from prefrm.train.processes import gather, is_first, processes, sharding
from prefrm.train.trainer import read_state

__all__ = [
    "check_output",
    "check_same_run",
    "check_sharding",
    "find_checkpoint",
    "sweep_output",
    "what_matters",
]

# Where a run is, how it is shown and what is made of its weights changes none of them; nor does how often an
# activation is computed, nor, as with FACTORS, how many sequences share a group.
OF_NO_MATTER = (
    "output",
    "device",
    "export",
    "checkpoint",
    "report_to",
    "data.path",
    "optim.gradient_checkpointing",
    "optim.group_tokens",
)
# A step learns from the same examples, with the same loss, however many forward passes and sequences share
# them. What an adapter's dropout drops is drawn for each pass, though, and rounding is of each sum.
FACTORS = ("optim.batch_size", "optim.accumulation")


def check_output(output: Path, checkpoints: Checkpoints, *, resume: bool) -> None:
    """Make the output folder. Raises `ConfigError` if it cannot be one, or holds a run that would be lost."""
    bundle = output / "bundle"
    unfinished = checkpoints.found()
    if bundle.exists() and not (resume and unfinished):
        raise ConfigError(f"{bundle} exists already; choose another output, or delete it to train again")
    if unfinished and not resume:
        raise ConfigError(
            f"{checkpoints.folder} holds the checkpoints of an unfinished run, such as {unfinished[0].name}; "
            "continue it with --resume, or delete the folder to start over"
        )
    require_writable_folder(output, "output")
    output.mkdir(parents=True, exist_ok=True)


def sweep_output(output: Path) -> None:
    """Remove what an export that was killed left beside the bundle, as large as that."""
    for path in (*output.glob(".bundle.*.partial"), *output.glob(".bundle.*.old")):
        shutil.rmtree(path, ignore_errors=True)


def find_checkpoint(checkpoints: Checkpoints) -> Path | None:
    """The newest whole checkpoint, the same one for every process; later ones, which are broken, go.

    Raises:
        ConfigError: there are checkpoints, and each is broken.
    """
    whole, any_at_all = gather(_look_for(checkpoints) if is_first() else None)[0]
    if not whole:
        if any_at_all:
            raise ConfigError(
                f"{checkpoints.folder} holds checkpoints and none is whole, so there is nothing to resume "
                "from; restore one of them, or delete the folder to start over"
            )
        return None
    if is_first():
        checkpoints.drop_after(read_state(Path(whole))["step"])
    return Path(whole)


def _look_for(checkpoints: Checkpoints) -> tuple[str, bool]:
    return str(checkpoints.newest() or ""), bool(checkpoints.found())


def what_matters(config: TrainConfig, data_fingerprint: str, dtype: torch.dtype) -> dict[str, Any]:
    """Everything that the weights of a run depend on, as flat JSON.

    But for rounding and for what an adapter's dropout drops: both differ with how the examples of a step are
    shared by forward passes and sequences, which a resumed run may change.

    Args:
        config: the settings.
        data_fingerprint: of what is learned from.
        dtype: of the backbone; "auto" is another one on another device.
    """
    settings = {
        key: value
        for key, value in _flat(to_mapping(config))
        if not any(key == name or key.startswith(f"{name}.") for name in (*OF_NO_MATTER, *FACTORS))
    }
    return {
        **settings,
        "dtype": str(dtype).removeprefix("torch."),
        " x ".join(FACTORS): config.optim.batch_size * config.optim.accumulation,
        "data fingerprint": data_fingerprint,
        "processes": processes(),
    }


def check_sharding(config: TrainConfig) -> None:
    """Raise `ConfigError` if the weights are to be sharded and the settings ask for them in one piece."""
    if sharding() and config.evaluation is not None:
        raise ConfigError(
            "evaluation asks one process to judge with weights that FSDP spreads; set evaluation=null"
        )


def check_same_run(checkpoint: Path, settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` that names what is not as it was when `checkpoint` was written."""
    before = read_state(checkpoint)["settings"]
    changed = [
        f"{key} was {before.get(key)!r} and is {settings.get(key)!r}"
        for key in sorted({*before, *settings})
        if before.get(key) != settings.get(key)
    ]
    if changed:
        raise ConfigError(
            f"{checkpoint} is of a run with other settings: {'; '.join(changed)}; resume with the same "
            "settings, or choose another output"
        )


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            # What a list of datasets says of their places does not matter either.
            yield f"{prefix}{key}", _without_paths(value) if isinstance(value, list) else value


def _without_paths(entries: list[Any]) -> list[Any]:
    return [
        {key: value for key, value in entry.items() if key != "path"} if isinstance(entry, dict) else entry
        for entry in entries
    ]
