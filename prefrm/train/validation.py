"""Validation during training: metrics, early stopping, and the best weights."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from prefrm.engine import DEFAULT_TOKENS, Engine
from prefrm.errors import DatasetError
from prefrm.eval import evaluate
from prefrm.judge import Judge
from prefrm.records import PreferenceGroup
from prefrm.train.callbacks import VALIDATION
from prefrm.train.distributed import gather, is_first
from prefrm.train.memory import FailOnMemory
from prefrm.train.state import gather_weights

__all__ = ["Validation"]


class Validation(TrainerCallback):
    """Scores validation groups every few steps and after the last one; the lowest log loss is the best.

    The log loss is that of the judge under the calibration that fits these groups best: a calibration is
    fitted after the training, so the judge's confidence before it does not measure its quality.

    Args:
        judge: the judge that is trained.
        groups: gives the groups, as often as it is called.
        every: steps from one validation to the next.
        patience: the training ends after this number of validations without a lower log loss, and the weights
            of the lowest one are kept; None does neither.
        tokens: of the engine that scores.

    Attributes:
        best_weights: of the lowest log loss so far, on the CPU; None without patience.
        metrics: of the step that ended last, if it was validated: `validation_log_loss`, in nats, and
            `validation_accuracy` (absent if no comparison is strict).
    """

    def __init__(
        self,
        judge: Judge,
        groups: Callable[[], Iterator[PreferenceGroup]],
        *,
        every: int,
        patience: int | None = None,
        tokens: int = DEFAULT_TOKENS,
    ) -> None:
        self.best_weights: dict[str, torch.Tensor] | None = None
        self._judge = judge
        self._groups = groups
        self._every = every
        self._patience = patience
        self._tokens = tokens
        self._lowest = float("inf")
        self._waited = 0
        self.metrics: dict[str, float] = {}

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.metrics = {}
        if state.global_step % self._every and state.global_step < state.max_steps:
            return
        self.metrics = gather(self._measure() if is_first() else None)[0]
        if self._patience is None:
            return
        if (log_loss := self.metrics["validation_log_loss"]) < self._lowest:
            self._lowest, self._waited = log_loss, 0
            self.best_weights = gather_weights(self._judge)
            return
        self._waited += 1
        if self._waited >= self._patience:
            control.should_training_stop = control.should_save = True

    def state_dict(self) -> dict[str, Any]:
        """The state without `best_weights` as JSON, for a checkpoint."""
        return {"lowest": None if self._lowest == float("inf") else self._lowest, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any], best_weights: dict[str, torch.Tensor] | None) -> None:
        """Restore the result of `state_dict`."""
        self._lowest = float("inf") if state["lowest"] is None else state["lowest"]
        self._waited = state["waited"]
        self.best_weights = best_weights

    def _measure(self) -> dict[str, float]:
        engine = Engine(self._judge, tokens=self._tokens)
        evaluation = evaluate(FailOnMemory(engine), self._groups())
        metrics = evaluation.metrics
        if metrics.unjudged == metrics.comparisons:
            raise DatasetError("no validation pair could be judged, so the training cannot be followed")
        calibrated = evaluation.calibrated(evaluation.fitted_calibration())
        numbers = {f"{VALIDATION}log_loss": calibrated.metrics.log_loss}
        if metrics.accuracy.pairs:
            numbers[f"{VALIDATION}accuracy"] = metrics.accuracy.value
        return numbers
