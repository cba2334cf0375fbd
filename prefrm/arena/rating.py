"""How models stand against each other by one scorer: win matrix, win rates and Bradley-Terry ratings.

Images of one prompt are not independent, so every 95% interval is clustered by prompt: win rates have that
of `prefrm.eval.statistics`, ratings the sandwich variance of their fit with prompts as clusters (Huber 1967;
Liang and Zeger, Biometrika 73, 1986) and a quantile of Student's t. Both add pseudo-comparisons, without
which a model that always wins would have no finite rating, and verdicts that are alike would look certain.

Shapes: G groups, each with one image of every model; M models; Q prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.eval.statistics import difference_interval, student_quantile, weighted_mean
from prefrm.rewards.utilities import fit_utilities, reachable
from prefrm.winmatrix import Doubles
from prefrm.winmatrix.probabilities import sigmoid

__all__ = ["ELO", "MEAN_RATING", "Estimate", "Standings", "standings"]


ELO = 400 / np.log(10)
"""Points of a rating per nat: 400 points are odds of 10 to 1 (Elo's scale)."""
MEAN_RATING = 1000.0
# Of every pair of models, half of them won by each: of two models the adjusted logit of Gart ("Alternative
# analyses of contingency tables", Journal of the Royal Statistical Society B 28, 1966).
PSEUDO_COMPARISONS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with the ends of its 95% interval; NaN where there is no data."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """`value`, `low` and `high`, None where there is no data."""
        named = {"value": self.value, "low": self.low, "high": self.high}
        return {name: value if np.isfinite(value) else None for name, value in named.items()}


UNKNOWN = Estimate(value=np.nan, low=np.nan, high=np.nan)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Standings:
    """Models by one scorer, over some prompts.

    Attributes:
        prompts: number of prompts with a comparison.
        comparisons: number of pairs of images with a verdict.
        win_matrix: [M, M]; mean of P(model i's image beats model j's), 0.5 on the diagonal, NaN where two
            models were not compared.
        win_matrix_low: [M, M], lower ends of the intervals; `win_matrix_high`: upper ends.
        win_rate: of each model, the mean of P(its image beats another model's).
        rating: of each model, on Elo's scale, with a mean of 1000; NaN for all unless comparisons connect
            all models that have any, and for a model that has none.
    """

    prompts: int
    comparisons: int
    win_matrix: Doubles
    win_matrix_low: Doubles
    win_matrix_high: Doubles
    win_rate: tuple[Estimate, ...]
    rating: tuple[Estimate, ...]

    def to_json(self, models: Sequence[str]) -> dict[str, Any]:
        """Plain data, None where there is no data; `models` are the names of the M models."""
        ends = {"win_matrix_low": self.win_matrix_low, "win_matrix_high": self.win_matrix_high}
        return {
            "prompts": self.prompts,
            "comparisons": self.comparisons,
            **{name: _nullable(array) for name, array in ({"win_matrix": self.win_matrix} | ends).items()},
            **{
                name: {model: one.to_json() for model, one in zip(models, estimates, strict=True)}
                for name, estimates in (("win_rate", self.win_rate), ("rating", self.rating))
            },
        }


def standings(p_GMM: Doubles, prompt_G: npt.NDArray[np.int64]) -> Standings:
    """The standings of M >= 2 models from the win matrices of G groups.

    Args:
        p_GMM: P(model i's image beats model j's), NaN where unknown; the diagonal does not count.
        prompt_G: the prompt of each group, as a number.
    """
    models = p_GMM.shape[1]
    p_GMM = np.where(np.eye(models, dtype=bool), np.nan, p_GMM)
    known_GMM = np.isfinite(p_GMM)
    matrix = np.full((3, models, models), 0.5)
    for i, j in np.argwhere(~np.eye(models, dtype=bool)):
        one = _share(p_GMM[:, i, j], prompt_G)
        matrix[:, i, j] = one.value, one.low, one.high
    return Standings(
        prompts=len(np.unique(prompt_G[np.any(known_GMM, axis=(1, 2))])),
        comparisons=int(known_GMM.sum()) // 2,
        win_matrix=matrix[0],
        win_matrix_low=matrix[1],
        win_matrix_high=matrix[2],
        win_rate=tuple(_share(p_GMM[:, i], prompt_G) for i in range(models)),
        rating=_ratings(p_GMM, prompt_G),
    )


def _share(p: Doubles, prompt_G: npt.NDArray[np.int64]) -> Estimate:
    """The mean of what is known of p, [G] or [G, M]."""
    prompt = np.broadcast_to(prompt_G.reshape(-1, *[1] * (p.ndim - 1)), p.shape)
    known = np.isfinite(p)
    weight = np.ones(int(known.sum()))
    # A further pair may be won or lost.
    low, high = difference_interval(p[known], weight, prompt[known], [0.0, 1.0])
    return Estimate(value=weighted_mean(p[known], weight), low=float(max(low, 0)), high=float(min(high, 1)))


def _ratings(p_GMM: Doubles, prompt_G: npt.NDArray[np.int64]) -> tuple[Estimate, ...]:
    met_MM = np.any(np.isfinite(p_GMM), axis=0)
    rated = np.flatnonzero(np.any(met_MM, axis=1))
    found = [UNKNOWN] * len(met_MM)
    if len(rated) and reachable(met_MM[np.ix_(rated, rated)]).all():
        for model, rating in zip(rated, _fitted(p_GMM[:, rated][:, :, rated], prompt_G), strict=True):
            found[model] = rating
    return tuple(found)


def _fitted(p_GMM: Doubles, prompt_G: npt.NDArray[np.int64]) -> list[Estimate]:
    """The ratings of models that comparisons connect."""
    count = p_GMM.shape[1]
    pseudo_PMM = _pseudo_groups(count)
    p_NMM = np.concatenate([p_GMM, pseudo_PMM])
    # A pair stands in four pseudo-groups.
    weight_N11 = np.repeat([1.0, PSEUDO_COMPARISONS / 4], [len(p_GMM), len(pseudo_PMM)])[:, None, None]
    known_NMM = np.isfinite(p_NMM)
    weight_MM = (known_NMM * weight_N11).sum(0)
    won_MM = np.where(known_NMM, p_NMM * weight_N11, 0).sum(0)
    u = fit_utilities(won_MM / np.where(weight_MM > 0, weight_MM, 1), weight_MM, 0.0)
    expected_MM = sigmoid(u[:, None] - u)
    slope_NM = np.where(known_NMM, weight_N11 * (p_NMM - expected_MM), 0).sum(2)
    prompts, cluster_G = np.unique(prompt_G, return_inverse=True)
    cluster_N = np.concatenate([cluster_G, len(prompts) + np.arange(len(pseudo_PMM))])
    slope_CM = np.zeros((len(prompts) + len(pseudo_PMM), count))
    np.add.at(slope_CM, cluster_N, slope_NM)
    curvature_MM = weight_MM * expected_MM * expected_MM.T
    information_MM = np.diag(curvature_MM.sum(1)) - curvature_MM
    # The likelihood does not see a common shift, which the pseudo-inverse leaves out.
    influence_CM = slope_CM @ np.linalg.pinv(information_MM)
    seen = len(np.unique(prompt_G[np.any(np.isfinite(p_GMM), axis=(1, 2))]))
    influence_CM[: len(prompts)] *= np.sqrt(seen / max(seen - 1, 1))
    half = student_quantile(seen - 1) * np.sqrt((influence_CM**2).sum(0))
    return [
        Estimate(
            value=MEAN_RATING + ELO * x, low=MEAN_RATING + ELO * (x - h), high=MEAN_RATING + ELO * (x + h)
        )
        for x, h in zip(u.tolist(), half.tolist(), strict=True)
    ]


def _pseudo_groups(models: int) -> Doubles:
    """For each model a group in which it beats all others and one in which it loses to all: [2 M, M, M]."""
    p = np.full((2 * models, models, models), np.nan)
    for n in range(models):
        others = np.arange(models) != n
        for place, won in ((n, 1.0), (models + n, 0.0)):
            p[place, n, others], p[place, others, n] = won, 1 - won
    return p


def _nullable(values: Doubles) -> list[list[float | None]]:
    return [[x if np.isfinite(x) else None for x in row] for row in values.tolist()]
