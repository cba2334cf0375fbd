"""The guard that keeps refused images and videos away from a scorer."""

from collections.abc import Sequence
from dataclasses import replace

from prefrm.errors import MediaError
from prefrm.media import ImageLimits, probe
from prefrm.video import probe_media
from prefrm.winmatrix import Group, Scorer, WinMatrix
from serving.limits import with_refusals
from serving.queueing.cost import cost_of

__all__ = ["GuardedScorer"]


class GuardedScorer:
    """A scorer that is never handed an image or a video beyond the limits.

    Each is checked by its size and its headers, before anything decodes it. A refused candidate becomes a
    missing one, and the matrix says why; a group whose context is refused is not judged.

    Attributes:
        cost: the scorer's own estimate of a group, if it has one.
    """

    def __init__(self, scorer: Scorer, limits: ImageLimits) -> None:
        self.cost = cost_of(scorer)
        self._scorer = scorer
        self._limits = limits

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """As the scorer inside, with the refusals among the matrices' `errors`."""
        whole = [self._context_refusal(group) for group in groups]
        judged = [group for group, refusal in zip(groups, whole, strict=True) if not refusal]
        reasons = [[self._refusal(candidate) for candidate in group.encoded] for group in judged]
        if not any(whole) and not any(map(any, reasons)):
            return self._scorer.score(groups)
        matrices = self._scorer.score(list(map(_without, judged, reasons))) if judged else []
        return with_refusals(
            groups, whole, (_explained(*both) for both in zip(matrices, reasons, strict=True))
        )

    def _refusal(self, candidate: bytes | None) -> str:
        if candidate is None:
            return ""
        try:
            probe_media(candidate, self._limits)
        except MediaError as error:
            return str(error)
        return ""

    def _context_refusal(self, group: Group) -> str:
        for place, image in enumerate(group.context):
            try:
                probe(image, self._limits)
            except MediaError as error:
                return f"context image {place}: {error}"
        return ""


def _without(group: Group, reasons: Sequence[str]) -> Group:
    if not any(reasons):
        return group
    kept = tuple(None if reason else found for found, reason in zip(group.candidates, reasons, strict=True))
    return replace(group, candidates=kept)


def _explained(matrix: WinMatrix, reasons: Sequence[str]) -> WinMatrix:
    if not any(reasons):
        return matrix
    errors = tuple(ours or theirs for ours, theirs in zip(reasons, matrix.errors, strict=True))
    return replace(matrix, errors=errors)
