"""The guard that keeps refused images away from a scorer."""

from collections.abc import Sequence
from dataclasses import replace

from prefrm.errors import MediaError
from prefrm.media import ImageLimits, probe
from prefrm.winmatrix import Group, Scorer, WinMatrix
from serving.queueing.cost import cost_of

__all__ = ["GuardedScorer"]


class GuardedScorer:
    """A scorer that is never handed an image beyond the limits.

    Each image is checked by its size and its header, before anything decodes it. A refused one becomes a
    missing candidate, and the matrix says why.

    Attributes:
        cost: the scorer's own estimate of a group, if it has one.
    """

    def __init__(self, scorer: Scorer, limits: ImageLimits) -> None:
        self.cost = cost_of(scorer)
        self._scorer = scorer
        self._limits = limits

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """As the scorer inside, with the refusals among the matrices' `errors`."""
        refusals = [[self._refusal(image) for image in group.encoded] for group in groups]
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
    images = tuple(None if reason else image for image, reason in zip(group.candidates, reasons, strict=True))
    return replace(group, candidates=images)


def _explained(matrix: WinMatrix, reasons: Sequence[str]) -> WinMatrix:
    if not any(reasons):
        return matrix
    errors = tuple(ours or theirs for ours, theirs in zip(reasons, matrix.errors, strict=True))
    return replace(matrix, errors=errors)
