"""Who is best: rankings, and the small conversions that trainers outside the GRPO family ask for.

Shapes: K candidates of a group.
"""

from dataclasses import dataclass

import numpy as np

from prefrm.errors import ConfigError, DataError
from prefrm.rewards.numbers import Numbers, doubles
from prefrm.winmatrix import Doubles, OnMissing, WinMatrix

__all__ = ["PreferencePair", "best_fraction", "diffusion_nft_rewards", "dpo_pairs", "ranking", "ranks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Candidate `chosen` was preferred to `rejected`; `margin` is 2 P(chosen wins) - 1, in (0, 1]."""

    chosen: int
    rejected: int
    margin: float


def ranking(matrix: WinMatrix) -> list[int]:
    """The candidates with a win rate, highest first; equal ones in the order of their indices."""
    rate = matrix.win_rate(on_missing="drop")
    return [int(n) for n in np.argsort(-rate, kind="stable") if not np.isnan(rate[n])]


def ranks(matrix: WinMatrix) -> dict[int, int]:
    """Candidate -> rank from 1, in the order of `ranking`; equal win rates share a rank."""
    rate = matrix.win_rate(on_missing="drop")
    return {n: 1 + int((rate > rate[n]).sum()) for n in ranking(matrix)}


def dpo_pairs(
    matrix: WinMatrix,
    *,
    min_margin: float = 0.0,
    inferred: bool = False,
    on_missing: OnMissing = "raise",
) -> list[PreferencePair]:
    """Every judged pair with a margin above `min_margin`, widest first: the data of DPO (arXiv 2305.18290).

    An exact tie yields no pair. Pairs of equal margin keep the order of their indices.

    Args:
        matrix: the group's.
        min_margin: in [0, 1).
        inferred: take the pairs, too, that were inferred from judged ones.
        on_missing: "raise" refuses a matrix with a pair that is neither judged nor inferred.

    Raises:
        ConfigError: `min_margin` is not in [0, 1).
        IncompleteMatrixError: a pair is neither judged nor inferred and `on_missing` is "raise".
    """
    if not 0 <= min_margin < 1:
        raise ConfigError(f"min_margin must be in [0, 1); received {min_margin}")
    matrix.require_complete(on_missing)
    margin = 2 * matrix.p.astype(np.float64) - 1
    asked = matrix.known if inferred else matrix.valid
    pairs = [
        PreferencePair(chosen=int(i), rejected=int(j), margin=float(margin[i, j]))
        for i, j in np.argwhere(asked & (margin > min_margin))
    ]
    return sorted(pairs, key=lambda pair: -pair.margin)


def best_fraction(rewards: Numbers, alpha: float) -> list[int]:
    """The indices of the best `alpha` of one prompt's K samples, best first: RAFT (arXiv 2304.06767).

    At least one is kept and the count is rounded to the nearest whole number. Samples of NaN reward are not
    counted and never kept, so a prompt without any reward keeps nothing; of equal rewards the first wins.

    Raises:
        ConfigError: `alpha` is not in (0, 1].
        DataError: the rewards are not real numbers of one prompt.
    """
    if not 0 < alpha <= 1:
        raise ConfigError(f"alpha is the share of samples to keep, in (0, 1]; received {alpha}")
    r_K = doubles(rewards)
    if r_K.ndim != 1:
        raise DataError(f"rewards of one prompt have shape [samples]; received {list(r_K.shape)}")
    known = np.flatnonzero(~np.isnan(r_K))
    best = known[np.argsort(-r_K[known], kind="stable")]
    return [int(i) for i in best[: max(1, round(alpha * len(known)))]]


def diffusion_nft_rewards(advantages: Numbers, *, max_advantage: float = 5.0) -> Doubles:
    """`clip(A / (2 A_max) + 1/2, 0, 1)`: DiffusionNFT's optimality probability (arXiv 2509.16117).

    In the shape of `advantages`; NaN stays NaN. A win rate lies in [0, 1] already and needs no conversion.

    Raises:
        ConfigError: `max_advantage` is not positive.
        DataError: the advantages are not real numbers.
    """
    if not max_advantage > 0:
        raise ConfigError(f"max_advantage must be positive; received {max_advantage}")
    return np.clip(doubles(advantages) / (2 * max_advantage) + 0.5, 0.0, 1.0)
