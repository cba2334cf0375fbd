"""What one server accepts, and the guard that keeps refused images away from the scorer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from prefrm.errors import ConfigError, MediaError
from prefrm.media import DEFAULT_LIMITS, ImageLimits, probe
from prefrm.winmatrix import Group, Scorer, WinMatrix

__all__ = ["GuardedScorer", "Limits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on untrusted requests and on what may wait.

    Attributes:
        image: bytes, pixels and formats of each image; one beyond them is a candidate that cannot be judged.
        group_size: K of a group; a request beyond it is refused, as by the three below.
        request_groups: B, groups of one request.
        request_bytes: bytes of one request, after decompression.
        queued_groups: groups that may wait for the scorer.
        queued_bytes: bytes of images that may wait for the scorer.
        batch_groups: groups that are scored together; one request is never divided.
    """

    image: ImageLimits = DEFAULT_LIMITS
    group_size: int = 64
    request_groups: int = 256
    request_bytes: int = 256 * 2**20
    queued_groups: int = 1024
    queued_bytes: int = 2**30
    batch_groups: int = 64

    def __post_init__(self) -> None:
        if self.queued_groups < self.request_groups or self.queued_bytes < self.request_bytes:
            raise ConfigError(
                "the queue must have room for one request: queued_groups >= request_groups and "
                f"queued_bytes >= request_bytes; received {self.queued_groups} < {self.request_groups} "
                f"or {self.queued_bytes} < {self.request_bytes}"
            )


class GuardedScorer:
    """A scorer that is never handed an image beyond the limits.

    Each image is checked by its size and its header, before anything decodes it. A refused one becomes a
    missing candidate, and the matrix says why.
    """

    def __init__(self, scorer: Scorer, limits: ImageLimits) -> None:
        self._scorer = scorer
        self._limits = limits

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """As the scorer inside, with the refusals among the matrices' `errors`."""
        refusals = [[self._refusal(image) for image in group.images] for group in groups]
        if not any(any(reasons) for reasons in refusals):
            return self._scorer.score(groups)
        matrices = self._scorer.score(
            [_without(group, reasons) for group, reasons in zip(groups, refusals, strict=True)]
        )
        return [_explained(matrix, reasons) for matrix, reasons in zip(matrices, refusals, strict=True)]

    def _refusal(self, image: bytes | None) -> str:
        if image is None:
            return ""
        try:
            probe(image, self._limits)
        except MediaError as error:
            return str(error)
        return ""


def _without(group: Group, reasons: Sequence[str]) -> Group:
    if not any(reasons):
        return group
    images = tuple(None if reason else image for image, reason in zip(group.images, reasons, strict=True))
    return Group(prompt=group.prompt, images=images)


def _explained(matrix: WinMatrix, reasons: Sequence[str]) -> WinMatrix:
    if not any(reasons):
        return matrix
    errors = tuple(ours or theirs for ours, theirs in zip(reasons, matrix.errors, strict=True))
    return replace(matrix, errors=errors)
