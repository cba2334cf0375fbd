"""Which steps of a rollout are stochastic, and which of them a sample trains.

Shapes: T steps of a rollout; N samples; U units (steps, or chunks of steps, that share a loss).
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prefrm.flow.settings import StochasticSteps

__all__ = ["condition_strength", "split_units", "stochastic_steps", "trained_units"]


def stochastic_steps(
    rule: StochasticSteps, iteration: int, total: int, rng: np.random.Generator
) -> tuple[int, ...]:
    """The stochastic steps of an iteration, ascending, each in 0 .. T-2 for T = `total` >= 2.

    The last step is never one of them: its s' is 0, where kernels have no noise. With the rule "each" each
    of these gets a rollout. "random" and "shared" draw from `rng`, seeded by run and iteration.
    """
    first = min(rule.first, total - 2)
    room = total - 1 - first
    count = rule.on_path(total)
    if rule.rule == "none":
        return ()
    if rule.rule in ("all", "each"):
        return tuple(range(first, total - 1))
    if rule.rule == "sliding":
        positions = (room - count) // rule.stride + 1
        start = iteration // rule.every % positions * rule.stride if rule.every else 0
    else:
        drawn = min(room, max(count, int(rule.within * total) - first))
        start = int(rng.integers(drawn - count + 1))
    return tuple(range(first + start, first + start + count))


def split_units(count: int, chunks: Literal["each", "all"] | tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Positions 0 .. count - 1 of the trained steps in the units that share a loss.

    Lengths of chunks are scaled to `count`: (2, 3, 4, 7) of 8 positions are runs of 1, 2, 2 and 3.
    """
    if isinstance(chunks, str):
        chunks = (1,) * count if chunks == "each" else (count,)
    ends = np.floor(np.cumsum(chunks) * count / max(sum(chunks), 1) + 0.5).astype(int).tolist()
    runs = (tuple(range(start, end)) for start, end in zip([0, *ends], ends, strict=False))
    return tuple(run for run in runs if run)


def trained_units(share: float, units: int, samples: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """[N, U]: the units that each sample is trained on: `share` of them, rounded down, but at least one."""
    chosen = max(1, int(share * units + 1e-9))
    return np.asarray(rng.random((samples, units)).argsort(axis=1).argsort(axis=1) < chosen)


def condition_strength(s: Any, span: float) -> Any:
    """E2PO's share of the perturbed condition at noise level s: clip((s - (1 - span)) / span, 0, 1)."""
    return np.clip((np.asarray(s, dtype=np.float64) - (1 - span)) / span, 0.0, 1.0)
