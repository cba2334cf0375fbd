"""One line of a table, for the parts that measure tables. No torch."""

from dataclasses import dataclass

__all__ = ["EngineCell", "TrainingRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCell:
    """What a group of K images costs by one method.

    Attributes:
        method: one of `prefrm.bench.methods.METHODS`.
        k: K.
        seconds: from encoded images to all comparisons in both orders; the median of the rounds.
        decoded_seconds: the same of images that were decoded ahead.
        tflops: 10^12 operations of the method that are done in a second of `decoded_seconds`.
        peak_mb: the most memory above the weights, in MiB; None of an estimate.
        timed_pairs: on how many comparisons it was timed, each order counting as one.
        estimated_from: the K from whose time this one was scaled, by operations; None if it was measured.
        reason: why there are no numbers; "" if there are.
    """

    method: str
    k: int
    seconds: float | None = None
    decoded_seconds: float | None = None
    tflops: float | None = None
    peak_mb: float | None = None
    timed_pairs: int = 0
    estimated_from: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRow:
    """What a training step costs.

    Attributes:
        method: "plain" for a loop of `transformers` over whole prompts, or the attention of a judge.
        k: candidates of a group.
        groups: of a step.
        comparisons: of a step, each presentation order counting as one.
        tokens: that a step reads in the language model.
        seconds: of the median step.
        peak_gib: the most memory that was in use, weights and optimizer included.
        reason: why there are no numbers; "" if there are.
    """

    method: str
    k: int
    groups: int
    comparisons: int
    tokens: int = 0
    seconds: float | None = None
    peak_gib: float | None = None
    reason: str = ""
