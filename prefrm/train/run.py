"""One training run from its settings to a calibrated, evaluated bundle.

output/metrics.jsonl   one line for each optimizer step
output/evaluation/     report and plots on the test split
output/bundle/         what everything else loads
"""

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed

from prefrm.bundle import Calibration, amend_bundle, write_bundle
from prefrm.engine import Engine
from prefrm.errors import BundleError, ConfigError, DatasetError
from prefrm.eval import Evaluation, evaluate, write_report
from prefrm.judge import Judge
from prefrm.progress import track
from prefrm.protocol import encode_matrices, largest_difference
from prefrm.records import count_groups, fingerprint, read_groups
from prefrm.train.adapters import add_lora, trainable_parameters
from prefrm.train.card import model_card
from prefrm.train.config import DataConfig, OptimConfig, TrainConfig
from prefrm.train.data import ComparisonCollator, load_comparisons
from prefrm.train.trainer import JudgeTrainer, MetricsFile, ReportProgress, StopAtNonFinite
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["TrainResult", "fit", "run"]

EXPORT_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run made.

    Attributes:
        bundle: the exported folder.
        evaluation: calibrated, on the test split; None without one.
        calibration: the fitted temperature; None if the judge was not calibrated.
        trainable: how many numbers the optimizer changed.
        left_out: records of which a comparison could not be read while training, with the reason.
        export_difference: how far the bundle, loaded again, is from the judge that was trained: the largest
            difference of a number in their win matrices of the first 8 validation (or else training)
            groups. NaN if no pair of these could be judged.
    """

    bundle: Path
    evaluation: Evaluation | None
    calibration: Calibration | None
    trainable: int
    left_out: dict[str, str]
    export_difference: float

    @property
    def held_out(self) -> Evaluation:
        """The evaluation. Raises `ConfigError` if the run had no test split."""
        if self.evaluation is None:
            raise ConfigError("the run was not evaluated: its data.test is null")
        return self.evaluation


def run(config: TrainConfig) -> TrainResult:
    """Train, export, and measure what was exported; shows its progress.

    What can be refused is refused before the training, and the bundle is written before anything is
    measured, so that no error costs a finished training.

    Raises:
        ConfigError: the base model cannot be loaded, the output folder is none or holds a finished run,
            the training diverged, or several processes were started.
        BundleError: the bundle, loaded again, judges otherwise than what was trained; it stays there.
        DatasetError, RecordError: a split is absent, breaks its own rules, or compares nothing.
    """
    bundle = config.output / "bundle"
    _check_launch(config.output, bundle)
    _check_splits(config.data)
    data_fingerprint = fingerprint(read_groups(config.data.path, config.data.train))
    set_seed(config.seed)
    judge = Judge.from_base(config.judge, device=config.device, dtype=config.dtype)
    if config.adapter is not None:
        add_lora(judge, **asdict(config.adapter))
    trainable = trainable_parameters(judge)
    left_out = fit(
        judge, config.data.path, config.data.train, config.optim, output=config.output, seed=config.seed
    )
    write_bundle(
        bundle,
        judge,
        calibration=None,
        data_fingerprint=data_fingerprint,
        metrics={},
        card=model_card(config, None, None),
        merge=config.export == "merged",
    )
    asked = _first_groups(config.data)
    trained = Engine(judge).score(asked)
    # The exported judge is measured and not this one: merging and loading round its weights.
    del judge
    exported = Engine.from_bundle(bundle, device=config.device, dtype=config.dtype)
    export_difference = _check_export(bundle, exported.judge.model.dtype, trained, exported.score(asked))
    calibration, evaluation = _measure(exported, config)
    plots = {} if evaluation is None else _pictures(config.output / "evaluation")
    amend_bundle(
        bundle,
        calibration=calibration,
        metrics={} if evaluation is None else evaluation.to_dict(),
        card=model_card(config, calibration, evaluation, plots=list(plots)),
        plots=plots,
    )
    return TrainResult(
        bundle=bundle,
        evaluation=evaluation,
        calibration=calibration,
        trainable=trainable,
        left_out=left_out,
        export_difference=export_difference,
    )


def _check_launch(output: Path, bundle: Path) -> None:
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ConfigError(
            f"training runs in one process on one device, and {processes} were started; "
            "start it with `prefrm train`, without torchrun or accelerate"
        )
    if bundle.exists():
        raise ConfigError(f"{bundle} exists already; choose another output, or delete it to train again")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output {output} cannot be a folder: {error.strerror}") from error


def _check_splits(data: DataConfig) -> None:
    """Read every split once, so that a mistake in the last of them is found before the first is used."""
    for role in ("train", "validation", "test"):
        split = getattr(data, role)
        if split is None:
            continue
        advice = "" if role == "train" else f"; or set data.{role}=null to do without"
        try:
            comparisons = sum(len(group.comparisons) for group in read_groups(data.path, split))
        except DatasetError as error:
            raise DatasetError(f"data.{role}: {error}{advice}") from error
        if not comparisons:
            raise DatasetError(f"data.{role}: {data.path}/{split}.parquet holds no comparison{advice}")


def fit(
    judge: Judge, folder: Path, split: str, optim: OptimConfig, *, output: Path, seed: int
) -> dict[str, str]:
    """Train `judge` in place and leave it in evaluation mode.

    Returns:
        The ids of records of which a comparison could not be read, with the reason.

    Raises:
        ConfigError: the training diverged.
        DatasetError: no comparison could be read.
    """
    collator = ComparisonCollator(judge.processor)
    arguments = TrainingArguments(
        output_dir=str(output),
        max_steps=optim.steps,
        per_device_train_batch_size=optim.batch_size,
        gradient_accumulation_steps=optim.accumulation,
        learning_rate=optim.lr,
        lr_scheduler_type="cosine",
        warmup_steps=round(optim.warmup * optim.steps),
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        use_cpu=judge.device.type == "cpu",
        dataloader_pin_memory=False,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as cache, track("training", optim.steps) as advance:
        trainer = JudgeTrainer(
            model=judge,
            args=arguments,
            train_dataset=load_comparisons(folder, split, cache=Path(cache)),
            data_collator=collator,
            callbacks=[
                ReportProgress(advance),
                StopAtNonFinite(),
                MetricsFile(output / "metrics.jsonl"),
            ],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    judge.eval()
    if not collator.read:
        record, reason = next(iter(collator.left_out.items()))
        raise DatasetError(f"no comparison could be read, such as that of record {record!r}: {reason}")
    return collator.left_out


def _first_groups(data: DataConfig) -> list[Group]:
    groups = read_groups(data.path, data.validation or data.train)
    return [group.group() for group in islice(groups, EXPORT_GROUPS)]


def _check_export(
    bundle: Path, dtype: torch.dtype, trained: Sequence[WinMatrix], exported: Sequence[WinMatrix]
) -> float:
    """How far the matrices are apart. Raises `BundleError` if that is more than `dtype` explains."""
    difference = max(
        largest_difference(encode_matrices([one]), encode_matrices([other]))
        for one, other in zip(trained, exported, strict=True)
    )
    tolerance = _explained(dtype)
    if not difference <= tolerance:
        raise BundleError(
            f"{bundle} is not the judge that was trained: on {len(trained)} groups their win matrices differ "
            f"by {difference:.3g}, and rounding to {str(dtype).removeprefix('torch.')} explains "
            f"{tolerance:.3g}; do not use it: export=adapter merges nothing, dtype=float32 rounds less"
        )
    return difference if any(matrix.judged.any() for matrix in trained) else math.nan


def _explained(dtype: torch.dtype) -> float:
    """The largest difference of a probability that is put down to rounding.

    Merging and loading round every weight once, by a relative error of `eps` at most. Through the layers that
    may cost half of the digits, hence the square root, and the factor leaves room for the largest of
    hundreds of pairs: 7e-4 in float32, 0.06 in float16, 0.18 in bfloat16.
    """
    return 2 * math.sqrt(torch.finfo(dtype).eps)


def _measure(engine: Engine, config: TrainConfig) -> tuple[Calibration | None, Evaluation | None]:
    """Fit the temperature on the validation split, then report on the test split with it."""
    calibration = None
    if config.data.validation is not None:
        validation = _evaluate(engine, config.data.path, config.data.validation)
        calibration = Calibration(
            temperature=validation.fitted_temperature(),
            split=config.data.validation,
            n=validation.metrics.comparisons - validation.metrics.unjudged,
        )
    if config.data.test is None:
        return calibration, None
    raw = _evaluate(engine, config.data.path, config.data.test)
    if calibration is None:
        write_report(raw, config.output / "evaluation")
        return None, raw
    evaluation = raw.tempered(calibration.temperature)
    write_report(evaluation, config.output / "evaluation", before=raw)
    return calibration, evaluation


def _evaluate(engine: Engine, folder: Path, split: str) -> Evaluation:
    with track(f"scoring {split}", count_groups(folder, split)) as advance:
        return evaluate(engine, read_groups(folder, split), progress=advance)


def _pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}
