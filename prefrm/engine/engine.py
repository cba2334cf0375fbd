"""The local scorer: a judge, and groups in, win matrices out.

Both orders of every pair are read. A group is computed from its own content alone: its micro-batches
hold nothing of another group, so what else is in a call changes no bit of its matrix.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from prefrm.bundle import load_bundle
from prefrm.engine.plan import GroupPlan, chunks, plan_group
from prefrm.errors import ConfigError, DataError, MediaError, ScoringError
from prefrm.judge import ImageInput, Judge
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["DEFAULT_BATCH_SIZE", "Engine"]

DEFAULT_BATCH_SIZE = 32


class Engine:
    """Scores groups with a judge on this machine; satisfies `prefrm.winmatrix.Scorer`.

    Args:
        judge: in evaluation mode, or it is put there.
        temperature: > 0; log-odds are divided by it.
        batch_size: how many comparisons, or images, run through the model at once.
        limits: what an encoded image may be.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        temperature: float = 1.0,
        batch_size: int = DEFAULT_BATCH_SIZE,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        if not 0.0 < temperature < float("inf"):
            raise ConfigError(f"temperature must be positive and finite; received {temperature}")
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1; received {batch_size}")
        self.judge = judge.eval()
        self.temperature = temperature
        self._batch_size = batch_size
        self._limits = limits

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        batch_size: int = DEFAULT_BATCH_SIZE,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> "Engine":
        """The engine of a bundle, with the temperature of its calibration (1 if it has none).

        Raises:
            BundleError: as `prefrm.bundle.load_bundle`.
        """
        bundle = load_bundle(path, device, dtype)
        calibration = bundle.manifest.calibration
        return cls(
            bundle.judge,
            temperature=1.0 if calibration is None else calibration.temperature,
            batch_size=batch_size,
            limits=limits,
        )

    @torch.inference_mode()
    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order.

        A candidate that is missing or unreadable costs its own pairs, and a prompt that cannot be
        read those of its group; `WinMatrix.errors` says why.

        Raises:
            ScoringError: the device ran out of memory.
        """
        try:
            return [self._score(group) for group in groups]
        except torch.OutOfMemoryError as error:
            raise ScoringError(
                f"the device ran out of memory with batch_size={self._batch_size}; "
                "lower it, or train the judge with a lower max_pixels"
            ) from error

    def _score(self, group: Group) -> WinMatrix:
        plan = plan_group(group)
        images, reasons = self._prepare(plan)
        errors = ["the candidate is missing" if key is None else reasons.get(key, "") for key in plan.places]
        try:
            log_odds = self._compare(group.prompt, images, plan.pairs(list(images)))
        except DataError as error:
            return WinMatrix.missing([reason or str(error) for reason in errors])
        return WinMatrix.from_order_logits(plan.spread(log_odds) / self.temperature, errors=errors)

    def _prepare(self, plan: GroupPlan) -> tuple[dict[str, ImageInput], dict[str, str]]:
        images, reasons = {}, {}
        for key, data in plan.images.items():
            try:
                images[key] = self.judge.processor.prepare_image(decode(data, self._limits))
            except MediaError as error:
                reasons[key] = str(error)
        return images, reasons

    def _compare(
        self, prompt: str, images: dict[str, ImageInput], pairs: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], float]:
        prepare = self.judge.processor.prepare_pair
        inputs = [prepare(prompt, images[a], images[b]) for a, b in pairs]
        features: dict[ImageInput, torch.Tensor] = {}
        if pairs:
            for run in chunks(list(images.values()), self._batch_size):
                features |= self.judge.encode(run)
        log_odds: list[float] = []
        for batch in chunks(inputs, self._batch_size):
            log_odds += self.judge.compare(self.judge.processor.collate(batch), features).tolist()
        return dict(zip(pairs, log_odds, strict=True))
