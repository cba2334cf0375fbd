"""A judge whose utilities have a gradient in the pixels of the candidates.

The image processor runs in torch (`JudgeProcessor.prepare_pixels`); everything after it is the forward pass
that is trained. Utility k has a derivative in candidate k alone, so the gradient of a few candidates is
computed as soon as they are read, and their activations are freed: memory does not grow with the group.

Shapes: K candidates, H height, W width, B candidates of a block, R readouts, N comparisons.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from prefrm import media
from prefrm.errors import ConfigError, MediaError, ScoringError
from prefrm.judge.backbones.resampling import HALF_LEVEL
from prefrm.judge.heads import log_odds
from prefrm.judge.images import ImageInput
from prefrm.judge.layout import Pair, Tree
from prefrm.judge.model import Judge
from prefrm.winmatrix import CalibrationMap, PowerScaling, TemperatureScaling

__all__ = ["DifferentiableJudge", "calibrated", "check_pixels", "with_gradient"]

PROBE_SIDE = 64
"""Pixels along a side of the image of noise with which the image processor is compared."""
PROBE_LEVELS = 12
"""Of 255: no rounding of the probe's pixels changes more, after three resizes one after another."""
SMALLEST_POWER_BASE = 1e-6
"""Below, a power is replaced by its chord: below 1 its derivative at 0 is infinite."""

_Fill = Callable[[Mapping[Any, ImageInput]], Tree]
"""Makes the tree of a prompt of images."""
_Opponent = tuple[ImageInput, torch.Tensor]
"""A candidate and its features, without a gradient."""


class DifferentiableJudge:
    """A judge as a `prefrm.differentiable.DifferentiableScorer`.

    A scalar judge gives each candidate its own utility. Where log-odds exist for pairs alone, which is so for
    the other heads, with `uncertainty="integrate"` and under `PowerScaling`, a utility is the mean of the
    candidate's log-odds against the others, in both presentation orders. The others are constants of its
    derivative: with a gradient in them as well, the utilities would sum to 0 whatever the pixels are.

    Args:
        judge: is put into evaluation mode, and its parameters are frozen. An engine must not score with it at
            the same time.
        calibration: of the log-odds; None leaves them as they are. Log-odds beyond 16.6, where the engine's
            end because float32 probabilities do, go on.
        batch: how many candidates, and how many opponents, are read at once with their activations in memory.

    Raises:
        ConfigError: `batch` is out of range, the judge compares videos or texts, or the image processor does
            something that has no gradient here.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        calibration: CalibrationMap | None = None,
        batch: int = 4,
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be at least 1; received {batch}")
        if judge.spec.kind != "image":
            raise ConfigError(
                f"a gradient in pixels needs a judge of images; this one compares {judge.spec.kind}s"
            )
        _check_preparation(judge)
        self.judge = judge.eval().requires_grad_(False)
        self.calibration = calibration
        self.batch = batch
        has_utilities = judge.spec.head == "scalar" and judge.spec.uncertainty != "integrate"
        self._is_pointwise = has_utilities and not isinstance(calibration, PowerScaling)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        batch: int = 4,
    ) -> "DifferentiableJudge":
        """The judge of a bundle, with the calibration that its manifest records, if any.

        Args:
            path: a folder, or `hf://org/name[@revision]`; other arguments are as in the class and in
                `Judge.from_base`.

        Raises:
            BundleError, ConfigError: as `prefrm.bundle.load_bundle`.
        """
        from prefrm.bundle import load_bundle

        bundle = load_bundle(path, device, dtype)
        recorded = bundle.manifest.calibration
        return cls(bundle.judge, calibration=None if recorded is None else recorded.map, batch=batch)

    def utilities(
        self, prompt: str, pixels: torch.Tensor, *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> torch.Tensor:
        """As in the protocol: float32 [K], in calibrated log-odds, on the device of the pixels.

        Only first derivatives are there. An enclosing autocast has no effect.

        Args:
            prompt: what the candidates answer.
            pixels: floats [K, 3, H, W] in [0, 1], RGB.
            context: encoded images that belong to the prompt; they are constants.
            criterion: what the candidates are compared by; "" is overall preference.

        Raises:
            ConfigError: `pixels` is not such a tensor.
            MediaError: an image of the context cannot be read; pixels are outside [0, 1] or NaN, or cannot be
                resized into the judge's pixel budget.
            RecordError: a text is not valid, or longer than the model can read, or the template has no place
                for the context or the criterion.
            ScoringError: utilities need opponents and there is one candidate, a comparison is longer than the
                model reads, or its answers are too improbable (`JudgeSpec.min_label_mass`).
        """
        check_pixels(pixels)
        if len(pixels) < 2 and not self._is_pointwise:
            raise ScoringError(
                f"utilities of this judge ({self.judge.spec.head} head) are log-odds against other "
                "candidates of the prompt, and there is one candidate; pass two or more"
            )
        shown = [self.judge.processor.prepare_image(media.decode(image)) for image in context]
        fill = partial(self.judge.processor.tree, prompt, context=shown, criterion=criterion)
        return with_gradient(partial(self._differentiated, fill), pixels, self.judge.device)

    def _differentiated(
        self, fill: _Fill, pixels_K3HW: torch.Tensor, wanted: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Utilities [K] and, where `wanted`, the derivative of each in its candidate [K, 3, H, W]."""
        values_K = torch.zeros(len(pixels_K3HW), device=pixels_K3HW.device)
        slopes_K3HW = torch.zeros_like(pixels_K3HW)
        # A judge with its own utilities has no opponents.
        opponents = [] if self._is_pointwise else self._encoded(pixels_K3HW)
        for own, others in self._blocks(len(pixels_K3HW)):
            leaf_B3HW = pixels_K3HW[own.start : own.stop].clone().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                images = dict(zip(own, map(self.judge.processor.prepare_pixels, leaf_B3HW), strict=True))
                if self._is_pointwise:
                    part_B = self._pointwise(fill, images)
                else:
                    shown = {n: opponents[n] for n in others}
                    part_B = self._against(fill, images, shown) / (len(pixels_K3HW) - 1)
            values_K[own.start : own.stop] += part_B.detach()
            if wanted:
                slopes_K3HW[own.start : own.stop] += torch.autograd.grad(part_B.sum(), leaf_B3HW)[0]
        return values_K, slopes_K3HW

    def _blocks(self, count: int) -> Iterator[tuple[range, range]]:
        """Candidates that are read together, and opponents of which there is one for each at least."""
        parts = [range(count)[start : start + self.batch] for start in range(0, count, self.batch)]
        for own in parts:
            for others in [own] if self._is_pointwise else parts:
                if self._is_pointwise or own != others or len(own) > 1:
                    yield own, others

    @torch.no_grad()
    def _encoded(self, pixels_K3HW: torch.Tensor) -> list[_Opponent]:
        found: list[_Opponent] = []
        for part in pixels_K3HW.split(self.batch):
            images = [self.judge.processor.prepare_pixels(image) for image in part]
            found += self.judge.encode(images).items()
        return found

    def _pointwise(self, fill: _Fill, images: Mapping[int, ImageInput]) -> torch.Tensor:
        """Utilities [B] of a scalar head."""
        readings, pairs_N2 = self._readings(fill, images, [(n, n) for n in images], {})
        return calibrated(self.calibration, self.judge.utilities(readings, pairs_N2))

    def _against(
        self, fill: _Fill, images: Mapping[int, ImageInput], opponents: Mapping[int, _Opponent]
    ) -> torch.Tensor:
        """Sums [B] of log-odds against those of the opponents that are other candidates."""
        shown: dict[Pair, ImageInput] = {("own", n): image for n, image in images.items()}
        shown |= {("other", n): image for n, (image, _) in opponents.items()}
        met = [(n, m) for n in images for m in opponents if n != m]
        pairs = [(("own", n), ("other", m)) for n, m in met]
        orders = [order for pair in pairs for order in (pair, pair[::-1])]
        readings, pairs_N2 = self._readings(fill, shown, orders, dict(opponents.values()))
        z_N, _ = log_odds(self.judge.outcomes(readings, pairs_N2))
        merged_N = calibrated(self.calibration, (z_N[0::2] - z_N[1::2]) / 2)
        rows_N = torch.tensor([n - min(images) for n, _ in met], device=merged_N.device)
        return merged_N.new_zeros(len(images)).index_add(0, rows_N, merged_N)

    def _readings(
        self,
        fill: _Fill,
        images: Mapping[Any, ImageInput],
        pairs: Sequence[Pair],
        known: Mapping[ImageInput, torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The head's readings [R, ...], and for each pair the two that it is between [N, 2]."""
        tree = fill(images)
        if len(tree.readable(pairs)) < len(pairs):
            raise ScoringError(next(iter(tree.refused.values())))
        batch = self.judge.processor.collate([(tree, pairs)])
        readings = self.judge.read(self.judge.hidden(batch, known))
        mass_N = self.judge.label_mass(readings, batch.pairs_N2)
        if mass_N is not None and (reason := self.judge.spec.improbable(mass_N.min().item())):
            raise ScoringError(reason)
        return readings, batch.pairs_N2


def with_gradient(
    differentiated: Callable[[torch.Tensor, bool], tuple[torch.Tensor, torch.Tensor]],
    pixels_K3HW: torch.Tensor,
    device: torch.device,
) -> torch.Tensor:
    """Values [K] on the device of the pixels, each with a derivative in its own candidate.

    Args:
        differentiated: maps pixels and whether derivatives are wanted to values [K] and their derivatives
            [K, 3, H, W]; called without autocast.
        pixels_K3HW: of the candidates.
        device: of the judge.
    """
    wanted = torch.is_grad_enabled() and pixels_K3HW.requires_grad
    # A judge of float64 has a gradient of float64.
    inner_K3HW = pixels_K3HW.detach().to(device, torch.promote_types(pixels_K3HW.dtype, torch.float32))
    with torch.autocast(device.type, enabled=False):
        values_K, slopes_K3HW = differentiated(inner_K3HW, wanted)
    values_K = values_K.to(pixels_K3HW.device)
    if not wanted:
        return values_K
    change_K3HW = (pixels_K3HW - pixels_K3HW.detach()) * slopes_K3HW.to(pixels_K3HW)
    return values_K + change_K3HW.flatten(1).sum(dim=1).float()


def calibrated(calibration: CalibrationMap | None, x: torch.Tensor) -> torch.Tensor:
    """`calibration.apply` with a gradient."""
    match calibration:
        case None:
            return x
        case TemperatureScaling():
            return x / calibration.temperature
        case PowerScaling():
            size = x.abs().clamp(min=SMALLEST_POWER_BASE)
            return x * size ** (calibration.power - 1) / calibration.temperature
    raise AssertionError(f"{type(calibration).__name__} has no gradient")


def check_pixels(pixels: torch.Tensor) -> None:
    """Raise `ConfigError` or `MediaError` unless these are floats [K, 3, H, W] in [0, 1]."""
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.numel() or not pixels.is_floating_point():
        raise ConfigError(
            f"pixels are floats of the shape [K, 3, H, W]; received {pixels.dtype} {list(pixels.shape)}"
        )
    low, high = (float(x) for x in pixels.detach().aminmax())
    # Not a comparison from outside: NaN is in no interval.
    if not (low >= -HALF_LEVEL and high <= 1 + HALF_LEVEL):
        raise MediaError(f"pixels are in [0, 1]; received values from {low:g} to {high:g}; scale them first")


def _check_preparation(judge: Judge) -> None:
    """Raise `ConfigError` if the image processor of a checkpoint does what `prepare_pixels` does not."""
    noise_HW3 = np.random.default_rng(0).integers(0, 256, (PROBE_SIDE, PROBE_SIDE, 3), dtype=np.uint8)
    processor = judge.processor
    expected = processor.prepare_image(Image.fromarray(noise_HW3))
    found = processor.prepare_pixels(torch.from_numpy(noise_HW3).permute(2, 0, 1) / 255)
    level = processor.image_processor.rescale_factor / min(processor.image_processor.image_std)
    same_shape = found.grid == expected.grid and found.pixels.shape == expected.pixels.shape
    if not same_shape or float((found.pixels - expected.pixels).abs().max()) > PROBE_LEVELS * level:
        raise ConfigError(
            f"the image processor of {judge.spec.base_model} has settings that have no gradient here; take "
            "those with which the checkpoint was published"
        )
