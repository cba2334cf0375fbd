"""Whole groups: rank correlation with the true quality, what the judge's pick costs, and cycles.

Shapes: K candidates of a group, T triples of candidates.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from prefrm.eval.pairs import JudgedGroup
from prefrm.winmatrix import Doubles, WinMatrix

__all__ = [
    "best_of_k_regret",
    "intransitive_triples",
    "judged_quality",
    "kendall_tau",
    "spearman_rho",
    "win_rates",
]


def kendall_tau(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Kendall's tau-b of two length-K sequences; NaN where either is constant.

    M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).
    """
    sign_a, sign_b = (np.sign(np.subtract.outer(x, x)) for x in (np.asarray(a), np.asarray(b)))
    norm = np.sqrt(np.sum(sign_a**2) * np.sum(sign_b**2))
    return float(np.sum(sign_a * sign_b) / norm) if norm else float("nan")


def spearman_rho(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Spearman's rho of two length-K sequences, equal values sharing their mean rank; NaN where either is
    constant.

    The correlation of the ranks. C. Spearman, "The proof and measurement of association between two
    things", American Journal of Psychology 15 (1904).
    """
    # A value's mean rank, up to a constant, is half of how many it exceeds minus how many exceed it.
    rank_a, rank_b = (np.sign(np.subtract.outer(x, x)).sum(axis=1) for x in (np.asarray(a), np.asarray(b)))
    norm = np.sqrt(np.sum(rank_a**2) * np.sum(rank_b**2))
    return float(np.sum(rank_a * rank_b) / norm) if norm else float("nan")


def best_of_k_regret(rate: Doubles, quality: Doubles) -> float:
    """What the candidate with the highest win rate, of [K], lacks to the best `quality`, of [K].

    Where several share the highest win rate, any of them may be picked: their mean. So a judge that tells
    nothing apart has the regret of a random pick, however the candidates are numbered.
    """
    return float(quality.max() - quality[rate == rate.max()].mean())


def intransitive_triples(matrices: Sequence[WinMatrix]) -> tuple[int, int]:
    """How many triples of candidates have verdicts that no ranking explains, and how many were judged.

    A verdict is the side of 0.5 on which p lies, and exactly 0.5 a tie. A triple counts as judged if all
    of its three pairs were, and not inferred: what is inferred agrees with a ranking. A ranking may hold
    ties. So a triple is intransitive if, gone round in one direction, somebody wins and nobody loses: rock,
    paper, scissors; but also a > b, b = c, c = a. Of the triples of a judge that tosses a coin, a quarter
    are.
    """
    wrong = total = 0
    for matrix in matrices:
        i, j, k = np.array(list(combinations(range(matrix.size), 3)), np.int64).reshape(-1, 3).T
        p = np.where(matrix.valid, matrix.p, np.nan).astype(np.float64)
        round_T3 = np.sign(np.stack([p[i, j], p[j, k], p[k, i]], axis=1) - 0.5)
        round_T3 = round_T3[np.isfinite(round_T3).all(axis=1)]
        wins, losses = (round_T3 > 0).any(axis=1), (round_T3 < 0).any(axis=1)
        wrong += int(np.sum(wins != losses))
        total += len(round_T3)
    return wrong, total


def win_rates(group: JudgedGroup) -> Doubles:
    """The win rates of the judged candidates."""
    rate = group.matrix.win_rate(on_missing="drop").astype(np.float64)
    return rate[np.isfinite(rate)]


def judged_quality(group: JudgedGroup) -> tuple[Doubles, Doubles] | None:
    """Win rate and quality of the judged candidates, or None where there are not two of them."""
    if group.quality is None:
        return None
    rate = group.matrix.win_rate(on_missing="drop").astype(np.float64)
    quality = np.array(group.quality, dtype=np.float64)
    keep = np.isfinite(rate) & np.isfinite(quality)
    return (rate[keep], quality[keep]) if keep.sum() >= 2 else None
