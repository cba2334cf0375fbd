"""Illusory advantage: what a judge's rewards hand out to candidates that are equally good.

The effect is Pref-GRPO's (arXiv 2508.20751): a pointwise score hardly differs between equally good
candidates, and normalising it inside the group blows up whatever difference there is. Here every
largest set of two or more candidates of one group that have the same `quality` is taken as a group of
its own, its matrix cut out of the group's, and rewarded in three ways:

- `bradley_terry`, the pointwise view: one utility for each candidate, by maximum likelihood, in nats;
- `win_rate`: the mean probability of winning, in [0, 1];
- `hard_win_rate`: the share of opponents beaten, which turns a p of 0.51 into a whole win.

All of them come from the same matrix, so what differs is the form of the reward and not what the judge
saw. The right advantage is 0 throughout. Dividing by the set's own standard deviation gives a mean
|advantage| of about 0.8 whatever the size of the differences is (if they are roughly normal; less if few
stand out), for each of the three, unless they are exactly 0, which hard win rates now and then are: under
that rule no reward is safe from it. Dividing by the
standard deviation of all groups (`scope="batch"`) shows how large the differences are beside those that
the same reward makes elsewhere; there a judge that sees equals as equals gives 0, and one that guesses
as much as to anybody else. The one over the other is what the normalisation inside the group amplifies.
A win rate over few opponents is noisy, and small sets show it.

Shapes: K candidates of a group, S of a set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from prefrm.eval.pairs import JudgedGroup
from prefrm.eval.statistics import mean
from prefrm.rewards import FLOW_GRPO, PREF_GRPO, REWARDS, RewardFunction
from prefrm.winmatrix import Doubles, WinMatrix

__all__ = ["VIEWS", "IllusoryAdvantage", "equal_sets", "illusory_advantages"]

VIEWS = ("bradley_terry", "win_rate", "hard_win_rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class IllusoryAdvantage:
    """What one reward gives to candidates that are equally good; NaN where no such candidates are.

    Attributes:
        sets: number of sets of equally good candidates, of which at least two were judged.
        candidates: how many candidates they hold.
        spread: the rewards' standard deviation in a set, mean over sets, in the reward's own unit.
        usual_spread: the standard deviation of the same reward about its group's mean, over all groups.
        group_advantage: mean |advantage| when the set's own standard deviation divides (`PREF_GRPO`).
        batch_advantage: mean |advantage| when the `usual_spread` divides (`FLOW_GRPO`).
        amplification: `group_advantage / batch_advantage`, how much the set's own standard deviation blows
            up differences that, beside the usual ones, are small.
        noise_to_signal: in the groups as they are, the mean difference of the rewards of two candidates
            of equal quality over that of two of different quality, each group's rewards divided by their
            standard deviation; 0 is right, and 1 is a guess.
    """

    sets: int
    candidates: int
    spread: float
    usual_spread: float
    group_advantage: float
    batch_advantage: float
    amplification: float
    noise_to_signal: float


def illusory_advantages(judged: Sequence[JudgedGroup]) -> dict[str, IllusoryAdvantage]:
    """For each of `VIEWS`, what it gives to equally good candidates; no entry without `quality` at all."""
    known = [group for group in judged if group.quality is not None]
    sets = [matrix for group in known for matrix in equal_sets(group)]
    return {name: _measure(REWARDS[name], known, sets) for name in VIEWS} if known else {}


def equal_sets(group: JudgedGroup) -> Iterator[WinMatrix]:
    """The matrix of each largest set of at least two candidates of the same quality, judged or not."""
    if group.quality is None:
        return
    for level in sorted({value for value in group.quality if np.isfinite(value)}):
        same = [n for n, value in enumerate(group.quality) if value == level]
        if len(same) >= 2:
            yield group.matrix.subset(same)


def _measure(
    reward: RewardFunction, groups: Sequence[JudgedGroup], sets: Sequence[WinMatrix]
) -> IllusoryAdvantage:
    whole = [_rewards(reward, group.matrix) for group in groups]
    inside = [given for matrix in sets if np.isfinite(given := _rewards(reward, matrix)).sum() >= 2]
    away = [given - mean(given) for given in whole]
    usual = float(np.sqrt(mean(np.concatenate(away) ** 2)))
    own = [PREF_GRPO.advantages(given[None])[0] for given in inside]
    # The batch of FLOW_GRPO is every group there is, not the sets alone: else the sets would set the scale.
    shared = [FLOW_GRPO.clipped((given - mean(given)) / (usual + FLOW_GRPO.eps)) for given in inside]
    by_group, by_batch = _size(own), _size(shared)
    return IllusoryAdvantage(
        sets=len(inside),
        candidates=sum(int(np.isfinite(given).sum()) for given in inside),
        spread=mean([np.nanstd(given) for given in inside]),
        usual_spread=usual,
        group_advantage=by_group,
        batch_advantage=by_batch,
        amplification=by_group / by_batch if by_batch > 0 else float("nan"),
        noise_to_signal=_noise_to_signal(groups, whole),
    )


def _rewards(reward: RewardFunction, matrix: WinMatrix) -> Doubles:
    return reward(matrix, on_missing="drop").astype(np.float64)


def _size(advantages: Sequence[Doubles]) -> float:
    return mean(np.abs(np.concatenate(advantages))) if advantages else float("nan")


def _noise_to_signal(groups: Sequence[JudgedGroup], rewards: Sequence[Doubles]) -> float:
    noise, signal = [], []
    for group, given in zip(groups, rewards, strict=True):
        i, j = np.triu_indices(len(given), 1)
        scaled = PREF_GRPO.advantages(given[None])[0]
        gap = np.abs(scaled[i] - scaled[j])
        quality = np.asarray(group.quality, np.float64)
        noise.append(gap[quality[i] == quality[j]])
        signal.append(gap[(quality[i] != quality[j]) & np.isfinite(quality[i] - quality[j])])
    below, above = (mean(np.concatenate(parts)) for parts in (noise, signal))
    return below / above if above > 0 else float("nan")
