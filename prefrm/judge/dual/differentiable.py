"""A dual encoder whose utilities have a gradient in the pixels of the candidates.

Shapes: K candidates, B of a block, H height, W width.
"""

from collections.abc import Sequence
from functools import partial

import torch

from prefrm.differentiable import require_plain
from prefrm.errors import ConfigError, ScoringError
from prefrm.judge.differentiable import calibrated, check_pixels, with_gradient
from prefrm.judge.dual.model import DualJudge
from prefrm.judge.dual.pictures import prepare_pixels
from prefrm.winmatrix import CalibrationMap, PowerScaling

__all__ = ["DifferentiableDual"]


class DifferentiableDual:
    """A dual encoder as a `prefrm.differentiable.DifferentiableScorer`.

    A candidate has its own utility. Under `PowerScaling` it is the mean of the candidate's calibrated
    log-odds against the others, which are constants of its derivative.

    Args:
        judge: is put into evaluation mode; its parameters are frozen.
        calibration: of differences of utilities; None leaves them as they are.
        batch: how many candidates are read at once with their activations in memory.

    Raises:
        ConfigError: `batch` is out of range.
    """

    def __init__(
        self, judge: DualJudge, *, calibration: CalibrationMap | None = None, batch: int = 4
    ) -> None:
        if batch < 1:
            raise ConfigError(f"batch must be at least 1; received {batch}")
        self.judge = judge.eval().requires_grad_(False)
        self.calibration = calibration
        self.batch = batch
        self._is_pointwise = not isinstance(calibration, PowerScaling)

    def utilities(
        self, prompt: str, pixels: torch.Tensor, *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> torch.Tensor:
        """As in the protocol: float32 [K], in calibrated log-odds, on the device of the pixels.

        First derivatives only. An enclosing autocast has no effect.

        Args:
            prompt: what the candidates answer.
            pixels: floats [K, 3, H, W] in [0, 1], RGB.

        Raises:
            ConfigError: `pixels` is not such a tensor, or there is a context or a criterion.
            MediaError: pixels are outside [0, 1] or NaN, or one side is far longer than the other.
            RecordError: the prompt is not valid text.
            ScoringError: under `PowerScaling` there is one candidate.
        """
        check_pixels(pixels)
        require_plain(context, criterion)
        if len(pixels) < 2 and not self._is_pointwise:
            raise ScoringError(
                "utilities under a calibration with a power are log-odds against other candidates of the "
                "prompt, and there is one candidate; pass two or more"
            )
        return with_gradient(partial(self._differentiated, prompt), pixels, self.judge.device)

    def _differentiated(
        self, prompt: str, pixels_K3HW: torch.Tensor, wanted: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Utilities [K] and, where `wanted`, the derivative of each in its candidate [K, 3, H, W]."""
        with torch.no_grad():
            text = self.judge.encode_text(prompt)
        own: list[torch.Tensor] = []
        slopes: list[torch.Tensor] = []
        for block_B3HW in pixels_K3HW.split(self.batch):
            leaf_B3HW = block_B3HW.clone().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                u_B = self._raw(leaf_B3HW, text)
            own.append(u_B.detach())
            if wanted:
                slopes += torch.autograd.grad(u_B.sum(), leaf_B3HW)
        with torch.enable_grad():
            u_K = torch.cat(own).requires_grad_()
            values_K = self._calibrated(u_K)
            # Of each in its own raw utility.
            (factors_K,) = torch.autograd.grad(values_K.sum(), u_K)
        slopes_K3HW = factors_K[:, None, None, None] * torch.cat(slopes) if wanted else pixels_K3HW
        return values_K.detach(), slopes_K3HW

    def _raw(self, pixels_B3HW: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        squares = torch.stack([prepare_pixels(image, self.judge.spec.image) for image in pixels_B3HW])
        return self.judge.utilities(self.judge.encode_images(squares), text)

    def _calibrated(self, u_K: torch.Tensor) -> torch.Tensor:
        """Utilities [K] by raw ones, of which the opponents' are constants."""
        if self._is_pointwise:
            # Not the same object, of which the derivative in itself would be asked.
            return calibrated(self.calibration, u_K) + 0
        z_KK = calibrated(self.calibration, u_K[:, None] - u_K.detach())
        others_KK = ~torch.eye(len(u_K), dtype=torch.bool, device=u_K.device)
        return (z_KK * others_KK).sum(dim=1) / (len(u_K) - 1)
