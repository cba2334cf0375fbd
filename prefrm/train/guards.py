"""Checks before anything is loaded: of the output folder, its checkpoints, and the settings."""

import shutil
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.checkpoints import Checkpoints
from prefrm.train.config import TrainConfig
from prefrm.train.processes import gather, is_first, sharding
from prefrm.train.trainer import read_state

__all__ = [
    "check_output",
    "check_sharding",
    "find_checkpoint",
    "sweep_output",
]


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


def check_sharding(config: TrainConfig) -> None:
    """Raise `ConfigError` if the weights are to be sharded and the settings ask for them in one piece."""
    if sharding() and config.evaluation is not None:
        raise ConfigError(
            "evaluation asks one process to judge with weights that FSDP spreads; set evaluation=null"
        )
