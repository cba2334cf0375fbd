"""The local scorer: a judge, and groups in, win matrices out.

Both orders of every pair are read. A group is computed from its own content alone: its micro-batches
hold nothing of another group, so what else is in a call changes no bit of its matrix.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from prefrm.bundle import load_bundle
from prefrm.chunks import chunks
from prefrm.engine.plan import GroupPlan, plan_group
from prefrm.errors import ConfigError, MediaError, RecordError, ScoringError
from prefrm.judge import ImageInput, Judge, PairInput
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode
from prefrm.winmatrix import Group, WinMatrix

__all__ = ["DEFAULT_BATCH_SIZE", "Engine"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 32
Pair = tuple[str, str]
"""Two images by their digests, in the order shown."""


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
            BundleError, ConfigError: as `prefrm.bundle.load_bundle`.
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

        A candidate that is missing or unreadable costs its own pairs, two images that are too large
        to be read together cost theirs, and a prompt that cannot be read costs those of its group.
        `WinMatrix.errors` says why, for each candidate that is in no pair that could be read.

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
        images, unreadable = self._prepare_images(plan)
        inputs, alone = self._prepare_pairs(group.prompt, images, plan.pairs(list(images)))
        reasons = unreadable | alone
        errors = ["the candidate is missing" if key is None else reasons.get(key, "") for key in plan.places]
        log_odds = plan.spread(self._compare(images, inputs))
        return WinMatrix.from_order_logits(log_odds / self.temperature, errors=errors)

    def _prepare_images(self, plan: GroupPlan) -> tuple[dict[str, ImageInput], dict[str, str]]:
        """The images that can be read, and why each of the others cannot."""
        images, reasons = {}, {}
        for key, data in plan.images.items():
            try:
                images[key] = self.judge.processor.prepare_image(decode(data, self._limits))
            except MediaError as error:
                reasons[key] = str(error)
        return images, reasons

    def _prepare_pairs(
        self, prompt: str, images: Mapping[str, ImageInput], pairs: Sequence[Pair]
    ) -> tuple[dict[Pair, PairInput], dict[str, str]]:
        """The pairs that can be read, and why each image that is in none of them is in none."""
        inputs: dict[Pair, PairInput] = {}
        refused: dict[str, str] = {}
        for a, b in pairs:
            try:
                inputs[a, b] = self.judge.processor.prepare_pair(prompt, images[a], images[b])
            except RecordError as error:
                refused |= {a: str(error), b: str(error)}
        paired = {key for pair in inputs for key in pair}
        if inputs and refused:
            logger.warning("some pairs of a group are not judged: %s", next(iter(refused.values())))
        return inputs, {key: reason for key, reason in refused.items() if key not in paired}

    def _compare(
        self, images: Mapping[str, ImageInput], inputs: Mapping[Pair, PairInput]
    ) -> dict[Pair, float]:
        paired = {key for pair in inputs for key in pair}
        features: dict[ImageInput, torch.Tensor] = {}
        for run in chunks([image for key, image in images.items() if key in paired], self._batch_size):
            features |= self.judge.encode(run)
        log_odds: list[float] = []
        for batch in chunks(list(inputs.values()), self._batch_size):
            log_odds += self.judge.compare(self.judge.processor.collate(batch), features).tolist()
        return dict(zip(inputs, log_odds, strict=True))
