"""The information of a comparison about utilities: which pair of candidates to compare next.

Under the Bradley-Terry model (Bradley and Terry, 1952), comparing i and j adds `p (1 - p)` to the Hessian of
the utilities, in the direction of their difference. The pair with the largest `p (1 - p) Var(u_i - u_j)` is
therefore the one whose answer shrinks the volume of their confidence ellipsoid most: greedy D-optimal design
(Fedorov, "Theory of Optimal Experiments", 1972), as used for paired comparisons by Glickman and Jensen
("Adaptive paired comparison designs", 2005).

Shapes: K candidates.
"""

import numpy as np

from prefrm.winmatrix import Doubles

__all__ = ["PRIOR_PRECISION", "covariance_after", "difference_variances"]

PRIOR_PRECISION = 0.1
"""Of utilities before anything is known: a standard deviation of about 3 nats. It bounds the variance of a
candidate that few comparisons reach."""


def difference_variances(covariance_KK: Doubles) -> Doubles:
    """Var(u_i - u_j) by the covariance of the utilities: [K, K]."""
    spread = covariance_KK.diagonal()
    return np.asarray(spread[:, None] + spread[None, :] - 2 * covariance_KK)


def covariance_after(covariance_KK: Doubles, i: int, j: int, weight: float) -> Doubles:
    """The covariance once i and j are compared, whatever the answer (Sherman and Morrison, 1950).

    Args:
        covariance_KK: of the utilities.
        i: a candidate.
        j: another one.
        weight: p (1 - p) of the pair.
    """
    column = covariance_KK[:, i] - covariance_KK[:, j]
    gain = weight / (1 + weight * (column[i] - column[j]))
    return np.asarray(covariance_KK - gain * np.outer(column, column))
