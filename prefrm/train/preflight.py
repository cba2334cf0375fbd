"""Checks before anything is loaded: of the output folder, its checkpoints, and the settings."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from prefrm.checkpoints import Checkpoints
from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder
from prefrm.manifest.spec import JudgeSpec
from prefrm.prompts import default_template, get_template
from prefrm.train.config import TrainConfig
from prefrm.train.distributed import gather, is_first, sharding
from prefrm.train.prepared import Survey
from prefrm.train.trainer import read_state

__all__ = ["check_inputs", "check_output", "check_sharding", "find_checkpoint", "sweep_output"]


def check_output(output: Path, checkpoints: Checkpoints, *, resume: bool) -> None:
    """Raise `ConfigError` if the output folder cannot be made, or holds a run that would be lost."""
    bundle = output / "bundle"
    if bundle.exists() and not (resume and checkpoints.found()):
        raise ConfigError(f"{bundle} exists already; choose another output, or delete it to train again")
    if not resume:
        checkpoints.require_none()
    require_writable_folder(output, "output")


def sweep_output(output: Path) -> None:
    """Remove the partial bundles of exports that were killed."""
    for path in (*output.glob(".bundle.*.partial"), *output.glob(".bundle.*.old")):
        shutil.rmtree(path, ignore_errors=True)


def find_checkpoint(checkpoints: Checkpoints) -> Path | None:
    """The newest whole checkpoint, the same one for every process; later ones, which are broken, go.

    Raises:
        ConfigError: there are checkpoints, and each is broken.
    """
    mine = (str(checkpoints.newest() or ""), bool(checkpoints.found())) if is_first() else None
    whole, exist = gather(mine)[0]
    if not whole:
        if exist:
            raise ConfigError(
                f"{checkpoints.folder} holds checkpoints and none is whole, so there is nothing to resume "
                "from; restore one of them, or delete the folder to start over"
            )
        return None
    if is_first():
        checkpoints.drop_after(read_state(Path(whole))["step"])
    return Path(whole)


def check_inputs(judge: JudgeSpec, surveys: Mapping[str, Survey]) -> None:
    """Raise `ConfigError` unless the judge reads all that a dataset has: candidates, context, criterion.

    Args:
        judge: as configured.
        surveys: by the setting that names the split.
    """
    template = get_template(judge.template, judge.kind)
    reads = judge.inputs(template)
    for name, survey in surveys.items():
        for kind in set(survey.kinds) - set(reads.kinds):
            raise ConfigError(
                f"{name} has {kind}s as candidates and the judge compares {judge.kind}s; set "
                f"judge.kind={kind}, or choose another dataset"
            )
        given = survey.inputs
        for place, is_given, is_read in (
            ("context", given.most_context > 0, reads.context),
            ("criterion", given.criteria != (), reads.criterion),
        ):
            if is_given and not is_read:
                other = default_template(attention=judge.attention, ties=template.ties, kind="text")
                raise ConfigError(
                    f"{name} has groups with a {place}, for which the template {template.id!r} has no place; "
                    f"set judge.template to one with {{{place}}}, such as {other}"
                )


def check_sharding(config: TrainConfig) -> None:
    """Raise `ConfigError` if the weights are to be sharded and the settings need them in one process."""
    if sharding() and config.evaluation is not None:
        raise ConfigError("evaluation during training is not supported with FSDP; set evaluation=null")
