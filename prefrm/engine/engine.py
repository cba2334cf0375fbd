"""The local scorer: a judge, and groups in, win matrices out.

A judge that looks at two images reads both orders of every pair; one that looks at one reads each image
once. Each distinct image goes through the vision tower once, and what is read of it serves all its pairs. A
group is computed from its own content alone: what else is in a call changes no bit of its matrix.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch

from prefrm.bundle import load_bundle
from prefrm.engine.cache import EncodedImage, FeatureCache
from prefrm.engine.compilation import compile_layers
from prefrm.engine.plan import GroupPlan, Pair, plan_group
from prefrm.engine.readers import Outcome, open_reader
from prefrm.errors import ConfigError, MediaError, RecordError, ScoringError
from prefrm.judge import ImageInput, Judge
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode
from prefrm.winmatrix import Group, WinMatrix, temper_ties

__all__ = ["DEFAULT_CACHE_BYTES", "DEFAULT_TOKENS", "Engine"]

logger = logging.getLogger(__name__)

DEFAULT_TOKENS = 8192
DEFAULT_CACHE_BYTES = 256 * 2**20
NO_PIXELS = torch.empty(0)


class Engine:
    """Scores groups with a judge on this machine; satisfies `prefrm.winmatrix.Scorer`.

    Args:
        judge: in evaluation mode, or it is put there.
        temperature: > 0; log-odds are divided by it.
        tokens: how many run through the language model at once; one row may have more.
        cache_bytes: how much of what the vision tower said of images is kept for later calls.
        images_at_once: how many images of one shape go through the vision tower together, always so many,
            the last repeated; None is 1 on a CPU, which one keeps busy, and otherwise 8.
        compile: whether the judge's layers are compiled by `torch.compile`, in place: worth its minutes where
            many groups are scored.
        limits: what an encoded image may be.

    The judge must not change while an engine has it: what its vision tower said is kept.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        temperature: float = 1.0,
        tokens: int = DEFAULT_TOKENS,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        images_at_once: int | None = None,
        compile: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
    ) -> None:
        if not 0.0 < temperature < float("inf"):
            raise ConfigError(f"temperature must be positive and finite; received {temperature}")
        for name, value in (("tokens", tokens), ("images_at_once", images_at_once)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1; received {value}")
        self.judge = judge.eval()
        self.temperature = temperature
        self.cache = FeatureCache(cache_bytes)
        self._tokens = tokens
        self._images_at_once = images_at_once or (1 if judge.device.type == "cpu" else 8)
        self._limits = limits
        self._lock = Lock()
        if compile:
            compile_layers(judge)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        tokens: int = DEFAULT_TOKENS,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        compile: bool = False,
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
            tokens=tokens,
            cache_bytes=cache_bytes,
            compile=compile,
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
            # A pass of the model sets what it attends to, which two threads cannot do at once.
            with self._lock:
                return [self._score(group) for group in groups]
        except torch.OutOfMemoryError as error:
            raise ScoringError(
                f"the device ran out of memory with tokens={self._tokens}; "
                "lower it, or train the judge with a lower max_pixels"
            ) from error

    def _score(self, group: Group) -> WinMatrix:
        plan = plan_group(group)
        images, unreadable = self._look_at(plan)
        outcomes, alone = self._compare(group.prompt, images, plan.pairs(list(images)))
        reasons = unreadable | alone
        errors = ["the candidate is missing" if key is None else reasons.get(key, "") for key in plan.places]
        return self._matrix(plan, outcomes, errors)

    def _look_at(self, plan: GroupPlan) -> tuple[dict[str, EncodedImage], dict[str, str]]:
        """The images that can be read, and why each of the others cannot."""
        found: dict[str, EncodedImage] = {}
        reasons: dict[str, str] = {}
        waiting: dict[torch.Size, dict[str, ImageInput]] = {}
        for key, data in plan.images.items():
            if (encoded := self.cache.get(key)) is not None:
                found[key] = encoded
                continue
            try:
                image = self.judge.processor.prepare_image(decode(data, self._limits))
            except MediaError as error:
                reasons[key] = str(error)
                continue
            alike = waiting.setdefault(image.pixels.shape, {})
            alike[key] = image
            if len(alike) == self._images_at_once:
                found |= self._encode(waiting.pop(image.pixels.shape))
        for alike in waiting.values():
            found |= self._encode(alike)
        return {key: found[key] for key in plan.images if key in found}, reasons

    def _encode(self, images: Mapping[str, ImageInput]) -> dict[str, EncodedImage]:
        """Images of one shape, in a pass of a fixed size: so what is said of one depends on no other."""
        shown = list(images.values())
        shown += [replace(shown[-1]) for _ in range(self._images_at_once - len(shown))]
        features = self.judge.encode(shown)
        found = {
            # A part of a larger tensor would keep all of it alive, and the pixels are not needed any more.
            key: EncodedImage(image=replace(image, pixels=NO_PIXELS), features=features[image].clone())
            for key, image in images.items()
        }
        for key, encoded in found.items():
            self.cache.put(key, encoded)
        return found

    def _compare(
        self, prompt: str, images: Mapping[str, EncodedImage], pairs: list[Pair]
    ) -> tuple[dict[Pair, Outcome], dict[str, str]]:
        """What the judge says of each pair that it can read, and why each image in none is in none."""
        try:
            reader = open_reader(self.judge, prompt, images, self._tokens)
        except RecordError as error:
            return {}, dict.fromkeys(images, str(error))
        outcomes = reader.compare(pairs)
        paired = {key for pair in outcomes for key in pair}
        if outcomes and reader.refused:
            logger.warning("some pairs of a group are not judged: %s", next(iter(reader.refused.values())))
        alone = {key: reason for pair, reason in reader.refused.items() for key in pair if key not in paired}
        return outcomes, alone

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
