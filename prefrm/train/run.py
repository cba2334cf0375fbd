"""One training run from its settings to a calibrated, evaluated bundle.

output/metrics.jsonl   one line for each optimizer step
output/checkpoints/    what `--resume` continues from; removed at the end of the run
output/data/           prepared data that cannot be written beside the dataset; removed at the end of the run
output/tensorboard/    the same metrics for TensorBoard, if `report_to` names it
output/evaluation/     report and plots on the test split
output/bundle/         the judge
"""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from prefrm.bundle import CalibrationRecord, amend_bundle, read_manifest, standalone, write_bundle
from prefrm.checkpoints import Checkpoints
from prefrm.engine import Engine
from prefrm.errors import ConfigError
from prefrm.eval import Evaluation
from prefrm.judge import Judge
from prefrm.judge.backbones import BaseModel, find_base
from prefrm.judge.model import resolve_device, resolve_dtype
from prefrm.quiet import quiet
from prefrm.records import DatasetInfo, read_groups
from prefrm.train.adapters import add_lora, trainable_parameters
from prefrm.train.card import model_card
from prefrm.train.config import TrainConfig
from prefrm.train.datasets import (
    data_fingerprint,
    local_data,
    open_mixture,
    read_sources,
    survey_data,
    training_inputs,
)
from prefrm.train.distributed import is_first, join, leave, processes, sharding
from prefrm.train.fit import fit, take_over
from prefrm.train.identity import check_same_run, identify_run
from prefrm.train.measure import check_export, first_groups, measure, pictures
from prefrm.train.memory import FailOnMemory, explaining_memory, scored_tokens
from prefrm.train.preflight import (
    check_inputs,
    check_output,
    check_sharding,
    find_checkpoint,
    sweep_output,
)
from prefrm.train.prepared import Survey
from prefrm.train.reporting import tracker_callbacks
from prefrm.train.state import is_sharded
from prefrm.train.trainer import read_state
from prefrm.train.validation import Validation
from prefrm.winmatrix import TrainingInputs, WinMatrix

__all__ = ["TrainResult", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The result of a run.

    Attributes:
        bundle: the exported folder.
        trainable: number of trained parameters.
        left_out: records of which a comparison could not be read while training, with the reason.
        seconds: duration of the training in this process; of a resumed run, with that up to the checkpoint.
        evaluation: calibrated, on the test split; None without one, and in every process but the first.
        calibration: the fitted map; None if the judge was not calibrated.
        export_difference: the largest difference in log-odds between the bundle, loaded again, and the judge
            in memory, its adapter merged if that was asked for, on the first 8 validation (or else training)
            groups. NaN if no pair of these could be judged, and in every process but the first.
        main: whether this is the process that exported and measured; with several, the first one.
    """

    bundle: Path
    trainable: int
    left_out: dict[str, str]
    seconds: float
    evaluation: Evaluation | None = None
    calibration: CalibrationRecord | None = None
    export_difference: float = math.nan
    main: bool = True

    @property
    def held_out(self) -> Evaluation:
        """The evaluation. Raises `ConfigError` if the run had no test split."""
        if self.evaluation is None:
            raise ConfigError("the run was not evaluated: its data.test is null")
        return self.evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run that passed every check that comes before the training."""

    config: TrainConfig
    device: str
    home: torch.device
    base: BaseModel
    surveys: dict[str, Survey]
    sources: list[DatasetInfo]
    identity: dict[str, Any]
    checkpoints: Checkpoints
    resume_from: Path | None
    trackers: list[TrainerCallback]

    @property
    def bundle(self) -> Path:
        """The folder of the exported judge."""
        return self.config.output / "bundle"

    @property
    def inputs(self) -> TrainingInputs:
        """Of the training data."""
        return training_inputs(self.config.data, self.surveys)

    @property
    def cache(self) -> Path:
        """The folder of prepared data that cannot be written beside the dataset."""
        return self.config.output / "data"


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
        ConfigError: the base model cannot be loaded, the judge does not read what a dataset has, the output
            folder cannot be used or holds another run, the checkpoint is of other settings, no checkpoint is
            whole, the training diverged, or the device has too little memory.
        MissingExtraError: a tracker of `report_to` is not installed.
        BundleError: the adapter cannot be merged without a change of the judge, and the checkpoint stays; or
            the bundle, loaded again, is another judge, and it stays there.
        DatasetError, RecordError: a split is absent, breaks its own rules, or compares nothing.
    """
    prepared = _prepare(config, resume)
    result, written = _train(prepared)
    if is_first():
        with explaining_memory(config, training=False):
            result = _measure(prepared, result, written)
        prepared.checkpoints.remove()
        shutil.rmtree(prepared.cache, ignore_errors=True)
    leave()
    return replace(result, calibration=read_manifest(prepared.bundle).calibration)


def _prepare(config: TrainConfig, resume: bool) -> _Run:
    device = join(config.device)
    check_sharding(config)
    checkpoints = Checkpoints(
        config.output / "checkpoints", keep=config.checkpoint.keep, every=config.checkpoint.save_every
    )
    check_output(config.output, checkpoints, resume=resume)
    trackers = tracker_callbacks(config.trackers, config.output)
    config = replace(config, data=local_data(config.data))
    surveys = survey_data(config.data, config.output / "data")
    check_inputs(config.judge, surveys)
    sources = read_sources(config.data)
    # Whole, a judge that is to be sharded may be too large for one device.
    home = resolve_device("cpu" if sharding() else device)
    base = find_base(config.judge)
    identity = identify_run(config, base, surveys, resolve_dtype(config.dtype, home))
    checkpoint = find_checkpoint(checkpoints) if resume else None
    if checkpoint is not None:
        check_same_run(checkpoint, identity)
    config.output.mkdir(parents=True, exist_ok=True)
    return _Run(
        config=config,
        device=device,
        home=home,
        base=base,
        surveys=surveys,
        sources=sources,
        identity=identity,
        checkpoints=checkpoints,
        resume_from=checkpoint,
        trackers=trackers,
    )


def _train(run: _Run) -> tuple[TrainResult, list[WinMatrix]]:
    """Train and export; also returns the matrices of `first_groups` of the judge in memory."""
    config = run.config
    set_seed(config.seed)
    judge = _new_judge(run, run.home)
    trainable = trainable_parameters(judge)
    before = {} if run.resume_from is None else read_state(run.resume_from)
    started = time.monotonic() - before.get("seconds", 0.0)
    if run.resume_from is not None and before["finished"]:
        left_out = take_over(judge, run.resume_from)
    else:
        with explaining_memory(config):
            left_out = fit(
                judge,
                open_mixture(config.data, run.surveys, seed=config.seed, cache=run.cache),
                config.optim,
                output=config.output,
                seed=config.seed,
                num_workers=config.data.num_workers,
                checkpoints=run.checkpoints,
                resume_from=run.resume_from,
                identity=run.identity,
                validation=_validation(config, judge),
                callbacks=run.trackers,
            )
    seconds = time.monotonic() - started
    written: list[WinMatrix] = []
    if is_first():
        with explaining_memory(config, training=False):
            if is_sharded(judge):
                judge = _new_judge(run, run.device)
                take_over(judge, run.checkpoints.found()[0])
            exported = standalone(judge) if config.export == "merged" else judge
            # The exported judge is measured and not this one: merging and loading round its weights.
            del judge
            written = _export(run, exported)
    result = TrainResult(
        bundle=run.bundle,
        trainable=trainable,
        left_out=left_out,
        seconds=seconds,
        main=is_first(),
    )
    return result, written


def _new_judge(run: _Run, device: torch.device | str) -> Judge:
    judge = Judge.from_base(run.config.judge, device=device, dtype=run.config.dtype, base=run.base)
    if run.config.adapter is not None:
        add_lora(judge, **asdict(run.config.adapter))
    return judge


def _validation(config: TrainConfig, judge: Judge) -> Validation | None:
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


def _card(run: _Run) -> Callable[..., str]:
    """`model_card`, of a calibration, an evaluation and plots."""
    steps = read_state(run.checkpoints.found()[0])["step"]
    return partial(
        model_card,
        run.config,
        steps=steps,
        processes=processes(),
        sources=run.sources,
        inputs=run.inputs,
    )


def _export(run: _Run, judge: Judge) -> list[WinMatrix]:
    """Write the bundle; returns the judge's matrices of the first groups, for comparison."""
    sweep_output(run.config.output)
    write_bundle(
        run.bundle,
        judge,
        calibration=None,
        data_fingerprint=data_fingerprint(run.config.data, run.surveys),
        metrics={},
        card=_card(run)(None, None),
        training_inputs=run.inputs,
    )
    judge.to(resolve_device(run.device))
    return Engine(judge, tokens=scored_tokens(run.config)).score(first_groups(run.config.data))


def _measure(run: _Run, result: TrainResult, written: Sequence[WinMatrix]) -> TrainResult:
    """Compare the loaded bundle with what was written, calibrate and evaluate it, and record the results."""
    config, report = run.config, run.config.output / "evaluation"
    loaded = Engine.from_bundle(
        run.bundle, device=run.device, dtype=config.dtype, tokens=scored_tokens(config)
    )
    difference = check_export(run.bundle, written, loaded.score(first_groups(config.data)))
    calibration, evaluation = measure(FailOnMemory(loaded), config.data, report)
    plots = {} if evaluation is None else pictures(report)
    amend_bundle(
        run.bundle,
        calibration=calibration,
        metrics={} if evaluation is None else evaluation.to_dict(),
        card=_card(run)(calibration, evaluation, plots=list(plots)),
        plots=plots,
    )
    return replace(result, evaluation=evaluation, export_difference=difference)
