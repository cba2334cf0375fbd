"""Which steps of a rollout are stochastic, which of them a sample trains, and how they are weighted.

Shapes: T steps of a rollout; S stochastic steps; N samples; U units (steps, or chunks of steps).
"""

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prefrm.flow.settings import StochasticSteps

__all__ = ["condition_strength", "split_units", "stochastic_steps", "trained_units"]


def stochastic_steps(
    rule: StochasticSteps, iteration: int, total: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """The stochastic steps of an iteration in ascending order, each in 0 .. total - 2.

    The last step is never one of them: its s' is 0, where kernels have no noise. Of the rule "each" it is
        every
    step that gets a rollout of its own.

    Args:
        rule: of the method.
        iteration: from 0.
        total: T, steps of the rollout, >= 2.
        rng: seeded by run and iteration; "random" and "shared" draw from it.
    """
    trainable = total - 1
    count = min(rule.count, trainable)
    if rule.rule == "none":
        return ()
    if rule.rule in ("all", "each"):
        return tuple(range(trainable))
    if rule.rule == "sliding":
        positions = (trainable - count) // rule.stride + 1
        start = iteration // rule.every % positions * rule.stride
    else:
        count = count if rule.rule == "random" else 1
        end = min(trainable, max(count, math.floor(rule.within * total)))
        start = int(rng.integers(0, end - count + 1))
    return tuple(range(start, start + count))


def split_units(count: int, chunks: Literal["each", "all"] | tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Positions 0 .. count - 1 of trained steps in the units that share a loss.

    Lengths of chunks are scaled to `count`: (2, 3, 4, 7) of 8 positions are runs of 1, 1, 2 and 4.
    """
    if chunks == "each":
        return tuple((i,) for i in range(count))
    if chunks == "all":
        return (tuple(range(count)),) if count else ()
    ends = np.floor(np.cumsum(chunks) * count / sum(chunks) + 0.5).astype(int)
    starts = [0, *ends[:-1]]
    return tuple(tuple(range(a, b)) for a, b in zip(starts, ends, strict=True) if a < b)


def trained_units(share: float, units: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """[N, U]: which units each sample is trained on, `share` of them (at least one) drawn for each sample."""
    chosen = max(1, math.floor(share * units + 1e-9)) if units else 0
    order = rng.random((samples, units)).argsort(axis=1)
    return np.asarray(order.argsort(axis=1) < chosen)


def condition_strength(s: Any, span: float) -> Any:
    """E2PO's share of the perturbed condition, clip((s - (1 - span)) / span, 0, 1), in the shape of `s`."""
    return np.clip((np.asarray(s, dtype=np.float64) - (1 - span)) / span, 0.0, 1.0)
