"""Utilities of images with a gradient in their pixels: a judge as a `DifferentiableScorer`.

Preprocessing, vision tower, language model and head are one graph of torch operations, over the same tree of
segments as in training and in the engine. A policy can be trained through it (ReFL, arXiv 2304.05977; DRaFT,
arXiv 2309.17400).

Shapes: K candidates, C = 3 channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge.batch import JudgeBatch
from prefrm.judge.heads import log_odds
from prefrm.judge.images import ImageInput
from prefrm.judge.layout import Pair
from prefrm.judge.model import Judge
from prefrm.judge.transfers import to_device

__all__ = ["DifferentiableJudge"]

# How far a pixel may be outside of 0..1: half a level of 255, as `prefrm.pixels.encode_image` allows.
MARGIN = 0.5 / 255


class DifferentiableJudge:
    """Gives utilities with a gradient in the pixels; satisfies `prefrm.differentiable.DifferentiableScorer`.

    A utility is in nats of the judge's own log-odds, before calibration:

    - scalar head: the head's utility. The difference of two is the log-odds that an engine without
      calibration gives (of a judge with ties, an increasing function of it), up to the rounding of pixels.
    - embedding and verdict heads, which have no utility of one image: the mean log-odds of a candidate
      against the group's K - 1 >= 1 others, of a verdict in both presentation orders. They sum to 0.

    An engine of the same judge must not score in another thread meanwhile: it replaces parts of the model.

    Calibration maps log-odds of pairs, and a power map has no slope at a tie, or an infinite one, so none is
    applied; to apply a temperature, divide by it.

    Args:
        judge: put into evaluation mode and frozen, in place: no parameter requires a gradient.
        fixed_opponents: whether a utility's gradient reaches the candidate's own pixels alone, as if the
            others were constants. It is then that of a scalar head where the judge is Bradley-Terry. If
            false it flows through all candidates, and that of a group's mean utility is 0. Of no effect on a
            scalar head. Of a verdict, fixed opponents are read a second time by the language model.
    """

    def __init__(self, judge: Judge, *, fixed_opponents: bool = True) -> None:
        self.judge = judge.eval().requires_grad_(False)
        self._fixed_opponents = fixed_opponents

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        fixed_opponents: bool = True,
    ) -> "DifferentiableJudge":
        """The judge of a bundle.

        Args:
            path: a folder, or `hf://org/name[@revision]`.
            device, dtype: as in `Judge.from_base`.
            fixed_opponents: as in the class.

        Raises:
            BundleError, ConfigError, MissingExtraError: as `prefrm.bundle.load_bundle`.
        """
        judge = Judge.from_pretrained(path, device=device, dtype=dtype)
        return cls(judge, fixed_opponents=fixed_opponents)

    def utilities(self, prompt: str, pixels: torch.Tensor) -> torch.Tensor:
        """One utility for each candidate: float32 [K] on the judge's device, whatever autocast says.

        Args:
            prompt: what the candidates answer.
            pixels: floats [K, 3, H, W] in 0..1, on any device.

        Activations are held by the result alone, and freed with it or by `backward`.

        Raises:
            ConfigError: `pixels` are not floats of that shape, or K is 1 and the head is not scalar.
            MediaError: a pixel is NaN or outside of 0..1, or the images cannot be resized into the budget.
            RecordError: the prompt is not valid text, or with an image is longer than the model reads.
        """
        self._check(pixels)
        with torch.autocast(self.judge.device.type, enabled=False):
            moved = to_device(pixels, self.judge.device).float()
            images = [self.judge.processor.prepare_pixels(pixels_CHW) for pixels_CHW in moved]
            if self.judge.spec.is_pairwise:
                return self._verdicts(prompt, images)
            return self._alone(prompt, images)

    def _alone(self, prompt: str, images: Sequence[ImageInput]) -> torch.Tensor:
        """Utilities by a head that reads one image at a time."""
        batch = self._batch(prompt, images, [(n, n) for n in range(len(images))])
        readings = self.judge.readings(batch, self.judge.encode(images))
        readings = readings[to_device(batch.pairs_N2[:, 0], readings.device)]
        if self.judge.spec.head == "scalar":
            return readings
        others = readings.detach() if self._fixed_opponents else readings
        log_odds_KK = self.judge.head.compare(readings[:, None], others[None])
        itself_KK = torch.eye(len(images), dtype=torch.bool, device=log_odds_KK.device)
        return log_odds_KK.masked_fill(itself_KK, 0).sum(dim=1) / (len(images) - 1)

    def _verdicts(self, prompt: str, images: Sequence[ImageInput]) -> torch.Tensor:
        """Utilities by a head that reads two images at once."""
        features = self.judge.encode(images)
        size, opponents = len(images), list(images)
        if self._fixed_opponents and images[0].pixels.requires_grad:
            opponents = [replace(image) for image in images]
            features |= {
                opponent: features[image].detach() for opponent, image in zip(opponents, images, strict=True)
            }
        shown = list(dict.fromkeys([*images, *opponents]))
        ahead = len(shown) - size
        orders = [(i, ahead + j) for i in range(size) for j in range(size) if i != j]
        pairs = [pair for first, second in orders for pair in ((first, second), (second, first))]
        batch = self._batch(prompt, shown, pairs)
        outcomes = self.judge.outcomes(self.judge.readings(batch, features), batch.pairs_N2)
        there, back = log_odds(outcomes)[0].view(size, size - 1, 2).unbind(dim=2)
        return ((there - back) / 2).mean(dim=1)

    def _batch(self, prompt: str, images: Sequence[ImageInput], pairs: Sequence[Pair]) -> JudgeBatch:
        """Comparisons of images by their places. Raises `RecordError` if one of them cannot be read."""
        tree = self.judge.processor.tree(prompt, dict(enumerate(images)))
        if len(tree.readable(pairs)) < len(pairs):
            raise RecordError(next(iter(tree.refused.values())))
        return self.judge.processor.collate([(tree, pairs)])

    def _check(self, pixels: torch.Tensor) -> None:
        """Raise `ConfigError` or `MediaError` unless `pixels` are as `utilities` takes them."""
        if not pixels.is_floating_point() or pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel():
            raise ConfigError(f"pixels are floats [K, 3, H, W]; received {pixels.dtype} {list(pixels.shape)}")
        if len(pixels) < 2 and self.judge.spec.head != "scalar":
            raise ConfigError(
                f"the {self.judge.spec.head} head compares at least 2 candidates; received {len(pixels)}; "
                "use a judge with a scalar head for a single one"
            )
        low, high = (float(value) for value in pixels.detach().aminmax())
        # NaN is in no range.
        if not -MARGIN <= low <= high <= 1 + MARGIN:
            raise MediaError(
                f"pixels are in [0, 1]; received values from {low:g} to {high:g}; scale or clamp them first"
            )
