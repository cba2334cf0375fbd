"""Differentiable scorers: behind a URL, combined by a scorer file, or of a bundle. Needs torch.

Shapes: K candidates, H height, W width.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from prefrm.client import RemoteGradient
from prefrm.differentiable import DifferentiableScorer, require_plain
from prefrm.engine import open_engine
from prefrm.errors import ConfigError
from prefrm.scorers.credentials import with_own_tokens
from prefrm.scorers.files import ScorerFile, read_scorer_file
from prefrm.scorers.targets import is_chat, is_scorer_file, is_url, sources
from prefrm.winmatrix import TemperatureScaling

__all__ = ["MeanUtilities", "RemoteDifferentiable", "open_gradient"]


class RemoteDifferentiable:
    """A judge behind a URL as a `prefrm.differentiable.DifferentiableScorer`; the judge stays on its machine.

    The server returns utilities and derivatives together, so a call is one request and `backward` sends
    nothing: utility k depends on candidate k alone, so any vector-Jacobian product is a multiple of that
    derivative. Pixels travel as float32. Only first derivatives are there.

    Args:
        client: of a server that was started with `--gradients`.
    """

    def __init__(self, client: RemoteGradient) -> None:
        self.client = client

    def utilities(
        self, prompt: str, pixels: torch.Tensor, *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> torch.Tensor:
        """As in the protocol: float32 [K], on the device of the pixels.

        Raises:
            RequestError: the server gives no gradient, or its judge refuses the prompt or the pixels.
            ScoringError: as `prefrm.client.RemoteScorer.score`.
        """
        require_plain(context, criterion)
        sent_K3HW = pixels.detach().to("cpu", torch.float32).contiguous().numpy()
        found = self.client.gradient(prompt, sent_K3HW)
        values_K, slopes_K3HW = (torch.from_numpy(one.copy()).to(pixels.device) for one in found)
        if not (torch.is_grad_enabled() and pixels.requires_grad):
            return values_K
        # Zero, with the derivatives that the server found.
        change_K3HW = (pixels - pixels.detach()) * slopes_K3HW.to(pixels)
        return values_K + change_K3HW.flatten(1).sum(dim=1).float()


class MeanUtilities:
    """The weighted mean of several differentiable scorers' utilities, divided by a temperature.

    Utilities are log-odds against the others of a group, so this is the gradient of an `Ensemble` by "mean".

    Args:
        members: scorers with their positive weights.
        temperature: of the calibration.
    """

    def __init__(
        self, members: Sequence[tuple[DifferentiableScorer, float]], *, temperature: float = 1.0
    ) -> None:
        self.members = tuple(members)
        self.temperature = temperature

    def utilities(
        self, prompt: str, pixels: torch.Tensor, *, context: Sequence[bytes] = (), criterion: str = ""
    ) -> torch.Tensor:
        """As in the protocol. Raises as the members do."""
        total = sum(weight for _, weight in self.members) * self.temperature
        parts = [
            weight / total * scorer.utilities(prompt, pixels, context=context, criterion=criterion)
            for scorer, weight in self.members
        ]
        return torch.stack(parts).sum(dim=0)


def open_gradient(
    target: Path | str,
    *,
    device: torch.device | str = "auto",
    connect: Callable[..., RemoteGradient] = RemoteGradient.connect,
) -> DifferentiableScorer:
    """The differentiable scorer that `target` names.

    Args:
        target: a bundle, the URL of a server (`http://` or `https://`) that was started with `--gradients`,
            or a scorer file with `combine: mean` over such.
        device: of bundles.
        connect: opens every URL, with the tokens of `prefrm.scorers.open_scorer`.

    Raises:
        ConfigError: it has no gradient; scorer files are read before anything is loaded.
        BundleError: a bundle cannot be loaded.
    """
    for leaf in sources(target):
        if is_chat(leaf):
            raise ConfigError(f"{leaf}: a chat endpoint has no gradient; name a bundle or a server of prefrm")
    return _opened(str(target), device, with_own_tokens(connect, target))


def _opened(
    target: str, device: torch.device | str, connect: Callable[[str], RemoteGradient]
) -> DifferentiableScorer:
    if is_url(target):
        return RemoteDifferentiable(connect(target))
    if not is_scorer_file(target):
        return open_engine(target, device=device).differentiable()
    file = read_scorer_file(target)
    temperature = _temperature(target, file)
    members = [(_opened(one.scorer, device, connect), one.weight) for one in file.scorers]
    return MeanUtilities(members, temperature=temperature)


def _temperature(target: str, file: ScorerFile) -> float:
    """Of the calibration of a file. Raises `ConfigError` if the file has no gradient."""
    if len(file.scorers) > 1 and file.combine != "mean":
        raise ConfigError(f"{target}: combine {file.combine} has no gradient; only mean has one")
    if named := [one.name for one in file.scorers if one.criterion]:
        raise ConfigError(f"{target}: {named[0]}: gradients are of overall preference; leave it out")
    calibration = None if file.calibration is None else file.calibration.map
    if calibration is None:
        return 1.0
    if not isinstance(calibration, TemperatureScaling):
        raise ConfigError(
            f"{target}: the calibration {calibration.describe()} has no gradient; only a temperature has one"
        )
    return calibration.temperature
