"""Objectives: one loss for each sample, step weights and regularizers.

A unit is a sequence of `Terms`: the steps that share a loss, usually one. The advantage, group and weight are
those of its first step. Shapes: B samples; T steps of a rollout.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefrm.flow.kernels import dim_mean, gradient_size, precise, spread, wide
from prefrm.flow.likelihood import Terms, matching_error, squared_distance
from prefrm.flow.settings import Method

__all__ = [
    "balance",
    "clipped_ratio",
    "dpo",
    "least_squares",
    "matched",
    "regularizer",
    "sample_losses",
    "step_weights",
    "weighted",
]

# TMPO clamps the centered log-ratio of a path to this.
MAX_LOG_RATIO = 10.0

Unit = Sequence[Terms]


def sample_losses(unit: Unit) -> Tensor:
    """Loss of each sample, [B]: the weighted objective plus the regularizer; its mean is minimized."""
    rule, loss = unit[0].method.objective, regularizer(unit)
    return loss + rule.scale * wide(unit[0].weight, loss) * OBJECTIVES[rule.kind](unit)


def regularizer(unit: Unit) -> Tensor:
    """Weighted distances to the reference and to the old policy, [B]."""
    rule, total = unit[0].method.regularizer, torch.zeros_like(unit[0].advantage)
    if rule.reference and rule.form == "log_prob":
        total = total + rule.reference * _mean(unit, lambda t: t.gain(t.v_ref)) ** 2
    elif rule.reference:
        total = total + rule.reference * _mean(unit, _distance)
    if rule.old:
        total = total + rule.old * _mean(unit, lambda t: squared_distance(t.v, t.v_old))
    return total


def step_weights(method: Method, sigmas: Sequence[float]) -> Tensor:
    """Weights [T - 1], float64, of the steps 0 .. T-2 of the grid `sigmas` [T + 1].

    They have mean 1 over these steps, whichever of them are trained, unless `step_scale` is set.
    """
    rule, kernel, noise = method.objective, method.rollout.kernel, method.rollout.noise
    grid = torch.tensor(sigmas, dtype=torch.float64)
    s, s_next, weights = grid[:-2], grid[1:-1], torch.ones(len(sigmas) - 2, dtype=torch.float64)
    if rule.step_weight == "inverse_dt":
        weights = 1 / (s - s_next)
    elif rule.step_weight == "std":
        weights = spread(kernel, noise, s, s_next, sigmas[1])[0]
    elif rule.step_weight == "inverse_gradient":
        weights = 1 / gradient_size(kernel, noise, s, s_next, sigmas[1])
    if rule.step_weights:
        places, known = (np.linspace(0, 1, n) for n in (len(s), len(rule.step_weights)))
        weights = weights * torch.from_numpy(np.interp(places, known, np.asarray(rule.step_weights)))
    return weights / weights.mean() if rule.step_scale is None else rule.step_scale * weights


def clipped_ratio(unit: Unit) -> Tensor:
    """max(-A rho, -A clip(rho)) with rho = p / p_old; GRPO-Guard's rho, or Flow-DPPO's mask for the clip."""
    rule, advantage = unit[0].method.objective, unit[0].advantage
    ratio = torch.exp(_chunk(unit, _guarded if rule.guard else _log_ratio))
    if rule.trust is None:
        return _clipped(ratio, advantage, rule.clip)
    far = _mean(unit, lambda t: t.divergence(t.v_rollout)) >= rule.trust
    return -advantage * ratio * ~(far & ((ratio - 1) * advantage > 0))


def balance(unit: Unit) -> Tensor:
    """TMPO's softmax trajectory balance: the clipped ratio with the advantage log target - log policy.

    target = softmax(beta A) and policy = softmax(log p of the path) over a group, where the log-ratio is
    centered.
    """
    rule, same, path = unit[0].method.objective, _same_group(unit), _chunk(unit, lambda t: t.log_prob(t.v))
    target = _log_softmax(rule.beta * unit[0].advantage, same)
    change = _chunk(unit, _log_ratio)
    centered = change - (same * change).sum(1) / same.sum(1)
    ratio = torch.exp(centered.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
    return _clipped(ratio, target - _log_softmax(path.detach(), same), rule.clip)


def least_squares(unit: Unit) -> Tensor:
    """A 2 <e, d> + (kappa A + lam) |d|^2 with d = v - v_old, e = v_old - target; means over dimensions.

    DiffusionNFT is kappa 0 with lam its beta, up to a constant: with A = 2 r - 1 and v+- = v_old +- lam d, it
    is (r |v+ - target|^2 + (1 - r) |v- - target|^2) / lam. The weight "self" scales each of these two squares
    by itself, so that form is computed. AdvantageFlow, and AWM with its distance to the old policy, are
    kappa 1.
    """
    return _mean(unit, _squares)


def weighted(unit: Unit) -> Tensor:
    """A times the matching error: reward-weighted regression, and RAFT with advantages of 0 and 1."""
    return unit[0].advantage * matched(unit)


def matched(unit: Unit) -> Tensor:
    """The matching error: of a data term, or of adjoint matching, whose target has the reward's gradient."""
    return -_mean(unit, lambda t: t.log_prob(t.v))


def dpo(unit: Unit) -> Tensor:
    """-log sigmoid(beta / 2 sum_i A_i log (p_i / p_ref,i)) of each group, given to each of its samples.

    With A = 1 for the preferred sample and -1 for the other this is Flow-DPO.
    """
    gain = unit[0].advantage * _mean(unit, lambda t: t.gain(t.v_ref))
    return -logsigmoid(unit[0].method.objective.beta / 2 * (_same_group(unit) * gain).sum(1))


OBJECTIVES = {loss.__name__: loss for loss in (clipped_ratio, least_squares, balance, weighted, dpo)}
OBJECTIVES["adjoint"] = matched


def _squares(terms: Terms) -> Tensor:
    rule, kind, a = terms.method.objective, terms.method.likelihood.weight, terms.advantage
    assert terms.target is not None and terms.v_old is not None
    v_old, target = precise(terms.v_old.detach()), precise(terms.target)
    d, e = precise(terms.v) - v_old, v_old - target
    if kind == "self":
        toward, away = (matching_error(kind, v_old + b * d, target, terms.s) for b in (rule.lam, -rule.lam))
        return ((1 + a) / 2 * toward + (1 - a) / 2 * away) / rule.lam
    return 2 * a * dim_mean(e * d) + (rule.kappa * a + rule.lam) * dim_mean(d**2)


def _clipped(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def _log_ratio(terms: Terms) -> Tensor:
    return terms.gain(terms.v_rollout)


def _guarded(terms: Terms) -> Tensor:
    return terms.transition(terms.v).std * (_log_ratio(terms) + terms.divergence(terms.v_rollout))


def _distance(terms: Terms) -> Tensor:
    form = terms.method.regularizer.form
    if form == "velocity":
        return squared_distance(terms.v, terms.v_ref)
    kl = terms.divergence(terms.v_ref)
    return kl * (wide(terms.s, kl) - wide(terms.s_next, kl)) if form == "kl_dt" else kl


def _chunk(unit: Unit, value: Callable[[Terms], Tensor]) -> Tensor:
    values = torch.stack([value(terms) for terms in unit])
    return values.sum(0) if unit[0].method.likelihood.reduce == "sum" else values.mean(0)


def _mean(unit: Unit, value: Callable[[Terms], Tensor]) -> Tensor:
    return torch.stack([value(terms) for terms in unit]).mean(0)


def _same_group(unit: Unit) -> Tensor:
    group = unit[0].group
    assert group is not None
    return group[:, None] == group


def _log_softmax(values: Tensor, same: Tensor) -> Tensor:
    return values - torch.logsumexp(torch.where(same, values, -torch.inf), dim=1)
