"""The guard that keeps refused images, videos and texts away from a scorer."""

from collections.abc import Sequence
from dataclasses import replace

from prefrm.errors import MediaError
from prefrm.media import probe
from prefrm.video import probe_video
from prefrm.winmatrix import (
    Candidate,
    Group,
    Inputs,
    Scorer,
    WinMatrix,
    check_answer,
    inputs_of,
    score_readable,
)
from serving.limits import Limits
from serving.queueing.cost import cost_of

__all__ = ["GuardedScorer"]


class GuardedScorer:
    """A scorer that is never handed a candidate or a context image beyond the limits.

    Each is checked by its size and its header, before anything decodes it, as the kind that the scorer reads.
    A refused candidate becomes a missing one. A group is not judged if the scorer does not read it, or if a
    context image is refused. The matrix says why.

    Attributes:
        cost: the scorer's own estimate of a group, if it has one.
    """

    def __init__(self, scorer: Scorer, limits: Limits) -> None:
        self.cost = cost_of(scorer)
        self._scorer = scorer
        self._limits = limits

    def inputs(self) -> Inputs:
        """What the scorer inside reads."""
        return inputs_of(self._scorer)

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """As the scorer inside, with the refusals among the matrices' `errors`."""
        inputs = self.inputs()
        # One group that a scorer does not read may fail its whole call.
        refusals = [inputs.refusal(group) or self._context_refusal(group) for group in groups]
        return score_readable(groups, refusals, self._score)

    def _score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        inputs = self.inputs()
        reasons = [[self._refusal(candidate, inputs) for candidate in group.candidates] for group in groups]
        kept = [_without(*pair) for pair in zip(groups, reasons, strict=True)]
        matrices = self._scorer.score(kept)
        check_answer(matrices, kept)
        return [_explained(*pair) for pair in zip(matrices, reasons, strict=True)]

    def _context_refusal(self, group: Group) -> str:
        for n, image in enumerate(group.context):
            try:
                probe(image, self._limits.image)
            except MediaError as error:
                return f"context image {n}: {error}"
        return ""

    def _refusal(self, candidate: Candidate, inputs: Inputs) -> str:
        if not candidate:
            return ""
        if isinstance(candidate, str):
            return self._limits.text_refusal(candidate)
        limits = self._limits.image
        try:
            if inputs.read_as(candidate) == "video":
                probe_video(candidate, limits.video)
            else:
                probe(candidate, limits)
        except MediaError as error:
            return str(error)
        return ""


def _without(group: Group, reasons: Sequence[str]) -> Group:
    if not any(reasons):
        return group
    kept = (None if reason else one for one, reason in zip(group.candidates, reasons, strict=True))
    return replace(group, candidates=tuple(kept))


def _explained(matrix: WinMatrix, reasons: Sequence[str]) -> WinMatrix:
    if not any(reasons):
        return matrix
    errors = tuple(ours or theirs for ours, theirs in zip(reasons, matrix.errors, strict=True))
    return replace(matrix, errors=errors)
