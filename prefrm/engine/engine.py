"""The local scorer: a judge, and groups in, win matrices out.

A judge that looks at two images reads both orders of every pair; one that looks at one reads each image
once. A group is computed from its own content alone: its micro-batches
hold nothing of another group, so what else is in a call changes no bit of its matrix.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from prefrm.bundle import load_bundle
from prefrm.chunks import chunks
from prefrm.engine.plan import GroupPlan, plan_group
from prefrm.errors import ConfigError, MediaError, RecordError, ScoringError
from prefrm.judge import ImageInput, Judge, SequenceInput, log_odds
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode
from prefrm.winmatrix import Group, WinMatrix, temper_ties

__all__ = ["DEFAULT_BATCH_SIZE", "Engine"]

logger = logging.getLogger(__name__)

DEFAULT_BATCH_SIZE = 32
Pair = tuple[str, str]
"""Two images by their digests, in the order shown."""
Outcome = tuple[float, float | None]
"""Log-odds that the first is preferred, and P(tie) of a judge with ties."""


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
        pairs = plan.pairs(list(images))
        compare = self._compare_pairs if self.judge.spec.is_pairwise else self._compare_singles
        outcomes, alone = compare(group.prompt, images, pairs)
        reasons = unreadable | alone
        errors = ["the candidate is missing" if key is None else reasons.get(key, "") for key in plan.places]
        return self._matrix(plan, outcomes, errors)

    def _matrix(self, plan: GroupPlan, outcomes: Mapping[Pair, Outcome], errors: list[str]) -> WinMatrix:
        log_odds = plan.spread({pair: z for pair, (z, _) in outcomes.items()})
        ties = {pair: share for pair, (_, share) in outcomes.items() if share is not None}
        return WinMatrix.from_order_logits(
            log_odds / self.temperature,
            errors=errors,
            tie=self._ties(plan.spread(ties), log_odds) if ties else None,
            order_free=not self.judge.spec.is_pairwise,
        )

    def _ties(
        self, tie: npt.NDArray[np.float64], log_odds: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """P(tie) of both presentation orders together; a candidate ties with itself."""
        merged = temper_ties((tie + tie.T) / 2, (log_odds - log_odds.T) / 2, self.temperature)
        np.fill_diagonal(merged, 1.0)
        return merged

    def _prepare_images(self, plan: GroupPlan) -> tuple[dict[str, ImageInput], dict[str, str]]:
        """The images that can be read, and why each of the others cannot."""
        images, reasons = {}, {}
        for key, data in plan.images.items():
            try:
                images[key] = self.judge.processor.prepare_image(decode(data, self._limits))
            except MediaError as error:
                reasons[key] = str(error)
        return images, reasons

    def _compare_pairs(
        self, prompt: str, images: Mapping[str, ImageInput], pairs: Sequence[Pair]
    ) -> tuple[dict[Pair, Outcome], dict[str, str]]:
        """What the judge says of each pair that it can read, and why each image in none is in none."""
        inputs: dict[Pair, SequenceInput] = {}
        refused: dict[str, str] = {}
        for a, b in pairs:
            try:
                inputs[a, b] = self.judge.processor.prepare_pair(prompt, images[a], images[b])
            except RecordError as error:
                refused |= {a: str(error), b: str(error)}
        paired = {key for pair in inputs for key in pair}
        if inputs and refused:
            logger.warning("some pairs of a group are not judged: %s", next(iter(refused.values())))
        readings = self._read({key: images[key] for key in images if key in paired}, list(inputs.values()))
        alone = {key: reason for key, reason in refused.items() if key not in paired}
        return self._outcomes(readings, {pair: (n, n) for n, pair in enumerate(inputs)}), alone

    def _compare_singles(
        self, prompt: str, images: Mapping[str, ImageInput], pairs: Sequence[Pair]
    ) -> tuple[dict[Pair, Outcome], dict[str, str]]:
        """The same of a judge that reads one image at a time: each pair is compared once and turned round."""
        inputs: dict[str, SequenceInput] = {}
        refused: dict[str, str] = {}
        for key, image in images.items():
            try:
                inputs[key] = self.judge.processor.prepare_single(prompt, image)
            except RecordError as error:
                refused[key] = str(error)
        readings = self._read({key: images[key] for key in inputs}, list(inputs.values()))
        place = {key: n for n, key in enumerate(inputs)}
        compared = {(a, b): (place[a], place[b]) for a, b in pairs if a <= b and a in place and b in place}
        outcomes = self._outcomes(readings, compared)
        return {(b, a): (-z, share) for (a, b), (z, share) in outcomes.items()} | outcomes, refused

    def _read(
        self, images: Mapping[str, ImageInput], sequences: Sequence[SequenceInput]
    ) -> torch.Tensor | None:
        """The head's readings of the sequences, in order; None of none."""
        features: dict[ImageInput, torch.Tensor] = {}
        for run in chunks(list(images.values()), self._batch_size):
            features |= self.judge.encode(run)
        readings = [
            self.judge.read(self.judge.processor.collate(batch), features)
            for batch in chunks(sequences, self._batch_size)
        ]
        return torch.cat(readings) if readings else None

    def _outcomes(
        self, readings: torch.Tensor | None, pairs: Mapping[Pair, tuple[int, int]]
    ) -> dict[Pair, Outcome]:
        if readings is None or not pairs:
            return {}
        outcomes = self.judge.outcomes(readings, torch.tensor(list(pairs.values())))
        z, share = log_odds(outcomes)
        shares = [None] * len(pairs) if share is None else share.tolist()
        return dict(zip(pairs, zip(z.tolist(), shares, strict=True), strict=True))
