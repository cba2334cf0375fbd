"""One training run from its settings to a calibrated, evaluated bundle.

output/metrics.jsonl   one line for each optimizer step
output/checkpoints/    what `--resume` continues from; gone once the run is over
output/data/           what could not be kept beside the data; gone once the run is over
output/tensorboard/    the same for TensorBoard, if `report_to` names it
output/evaluation/     report and plots on the test split
output/bundle/         what everything else loads
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from prefrm.bundle import CalibrationRecord, amend_bundle, read_manifest, standalone, write_bundle
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.eval import Evaluation
from prefrm.judge import Judge
from prefrm.judge.backbones import BaseModel, find_base
from prefrm.judge.model import resolve_device, resolve_dtype
from prefrm.quiet import quiet
from prefrm.records import read_groups
from prefrm.train.adapters import add_lora, trainable_parameters
from prefrm.train.card import model_card
from prefrm.checkpoints import Checkpoints
from prefrm.train.config import TrainConfig
from prefrm.train.datasets import data_fingerprint, open_mixture, read_sources, survey_data
from prefrm.train.fit import fit, take_over
from prefrm.train.guards import check_output, check_sharding, find_checkpoint, sweep_output
from prefrm.train.identity import check_same_run, identify_run
from prefrm.train.measure import check_export, first_groups, measure, pictures
from prefrm.train.memory import FailOnMemory, explaining_memory, scored_tokens
from prefrm.train.mixing import Mixture
from prefrm.train.processes import is_first, join, leave, processes, sharding
from prefrm.train.reporting import tracker_callbacks
from prefrm.train.state import is_sharded
from prefrm.train.trainer import read_state
from prefrm.train.validation import Validation
from prefrm.winmatrix import WinMatrix

__all__ = ["TrainResult", "run"]

DATA = "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run made.

    Attributes:
        bundle: the exported folder.
        evaluation: calibrated, on the test split; None without one, and in every process but the first.
        calibration: the fitted map; None if the judge was not calibrated.
        trainable: how many numbers the optimizer changed.
        left_out: records of which a comparison could not be read while training, with the reason.
        export_difference: the largest difference in log-odds between the bundle, loaded again, and the judge
            in memory, its adapter merged if that was asked for, on the first 8 validation (or else training)
            groups. NaN if no pair of these could be judged, and in every process but the first.
        seconds: that the training took in this process; of a resumed run, with those up to the checkpoint.
        main: whether this is the process that exported and measured; with several, the first one.
    """

    bundle: Path
    evaluation: Evaluation | None
    calibration: CalibrationRecord | None
    trainable: int
    left_out: dict[str, str]
    export_difference: float
    seconds: float
    main: bool = True

    @property
    def held_out(self) -> Evaluation:
        """The evaluation. Raises `ConfigError` if the run had no test split."""
        if self.evaluation is None:
            raise ConfigError("the run was not evaluated: its data.test is null")
        return self.evaluation


@quiet()
def run(config: TrainConfig, *, resume: bool = False) -> TrainResult:
    """Train, export, and measure what was exported; shows its progress.

    What can be refused is refused before the training, and the bundle is written before anything is
    measured, so that no error costs a finished training. In several processes, all train, and the
    others wait while the first one exports and measures.

    Args:
        config: the settings.
        resume: continue from the newest checkpoint in the output folder, if there is one.

    Raises:
        ConfigError: the base model cannot be loaded, the output folder is none or holds another run, the
            checkpoint is of other settings, no checkpoint is whole, the training diverged, or the device
            has too little memory.
        MissingExtraError: a tracker of `report_to` is not installed.
        BundleError: the adapter cannot be merged without a change of the judge, and the checkpoint stays; or
            the bundle, loaded again, is another judge, and it stays there.
        DatasetError, RecordError: a split is absent, breaks its own rules, or compares nothing.
    """
    device = join(config.device)
    check_sharding(config)
    checkpoints = Checkpoints(config.output / "checkpoints", keep=config.checkpoint.keep)
    check_output(config.output, checkpoints, resume=resume)
    callbacks = tracker_callbacks(config.trackers, config.output)
    surveys = survey_data(config.data, config.output / DATA)
    sources = read_sources(config.data)
    # Whole, a judge that is to be spread may be too large for one device.
    home = resolve_device("cpu" if sharding() else device)
    base = find_base(config.judge)
    identity = identify_run(config, base, surveys, resolve_dtype(config.dtype, home))
    checkpoint = find_checkpoint(checkpoints) if resume else None
    if checkpoint is not None:
        check_same_run(checkpoint, identity)
    set_seed(config.seed)
    judge = _new_judge(config, base, home)
    trainable = trainable_parameters(judge)
    before = {} if checkpoint is None else read_state(checkpoint)
    started = time.monotonic() - before.get("seconds", 0.0)
    if checkpoint is not None and before["finished"]:
        left_out = take_over(judge, checkpoint)
    else:
        with explaining_memory(config):
            mixture = open_mixture(config.data, surveys, seed=config.seed, cache=config.output / DATA)
            left_out = _fit(judge, config, mixture, checkpoints, checkpoint, identity, callbacks)
    seconds = time.monotonic() - started
    bundle = config.output / "bundle"
    evaluation, difference = None, math.nan
    if is_first():
        with explaining_memory(config, training=False):
            if is_sharded(judge):
                judge = _new_judge(config, base, device)
                take_over(judge, checkpoints.found()[0])
            steps = read_state(checkpoints.found()[0])["step"]
            card = partial(model_card, config, steps=steps, processes=processes(), sources=sources)
            sweep_output(config.output)
            exported = standalone(judge) if config.export == "merged" else judge
            # The exported judge is measured and not this one: merging and loading round its weights.
            del judge
            learned_from = data_fingerprint(config.data, surveys)
            written = _export(exported, config, bundle, device, learned_from, card)
            del exported
            evaluation, difference = _measure(config, bundle, device, written, card)
        checkpoints.remove()
        shutil.rmtree(config.output / DATA, ignore_errors=True)
    main = is_first()
    leave()
    return TrainResult(
        bundle=bundle,
        evaluation=evaluation,
        calibration=read_manifest(bundle).calibration,
        trainable=trainable,
        left_out=left_out,
        export_difference=difference,
        seconds=seconds,
        main=main,
    )


def _new_judge(config: TrainConfig, base: BaseModel, device: torch.device | str) -> Judge:
    judge = Judge.from_base(config.judge, device=device, dtype=config.dtype, base=base)
    if config.adapter is not None:
        add_lora(judge, **asdict(config.adapter))
    return judge


def _fit(
    judge: Judge,
    config: TrainConfig,
    mixture: Mixture,
    checkpoints: Checkpoints,
    resume_from: Path | None,
    identity: Mapping[str, Any],
    callbacks: Sequence[TrainerCallback],
) -> dict[str, str]:
    return fit(
        judge,
        mixture,
        config.optim,
        output=config.output,
        seed=config.seed,
        num_workers=config.data.num_workers,
        checkpoints=checkpoints,
        save_every=config.checkpoint.save_every,
        resume_from=resume_from,
        identity=identity,
        validation=_validation(judge, config),
        callbacks=callbacks,
    )


def _validation(judge: Judge, config: TrainConfig) -> Validation | None:
    wanted, split = config.evaluation, config.data.validation
    if wanted is None or split is None:
        return None
    return Validation(
        judge,
        lambda: islice(read_groups(config.data.path, split), wanted.groups),
        every=wanted.every,
        patience=wanted.patience,
        tokens=scored_tokens(config),
    )


def _export(
    judge: Judge, config: TrainConfig, bundle: Path, device: str, learned_from: str, card: Callable[..., str]
) -> list[WinMatrix]:
    """Write the bundle; returns the judge's matrices of the first groups, for comparison."""
    write_bundle(
        bundle,
        judge,
        calibration=None,
        data_fingerprint=learned_from,
        metrics={},
        card=card(None, None),
    )
    judge.to(resolve_device(device))
    return Engine(judge, tokens=scored_tokens(config)).score(first_groups(config.data))


def _measure(
    config: TrainConfig, bundle: Path, device: str, written: Sequence[WinMatrix], card: Callable[..., str]
) -> tuple[Evaluation | None, float]:
    """Load the bundle again, hold it against what was written, and write down how good it is."""
    exported = Engine.from_bundle(bundle, device=device, dtype=config.dtype, tokens=scored_tokens(config))
    asked = exported.score(first_groups(config.data))
    difference = check_export(bundle, written, asked)
    calibration, evaluation = measure(FailOnMemory(exported), config.data, config.output / "evaluation")
    plots = {} if evaluation is None else pictures(config.output / "evaluation")
    amend_bundle(
        bundle,
        calibration=calibration,
        metrics={} if evaluation is None else evaluation.to_dict(),
        card=card(calibration, evaluation, plots=list(plots)),
        plots=plots,
    )
    return evaluation, difference
