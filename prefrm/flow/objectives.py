"""What is minimized: one loss per sample from `Terms`, step weights and regularizers.

A unit is a sequence of `Terms`: the steps that share a loss, usually one. Shapes: B samples; S steps of a
unit.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefrm.flow.kernels import dim_mean, gradient_size, precise, spread
from prefrm.flow.likelihood import Terms, matching_error
from prefrm.flow.settings import Method

__all__ = [
    "OBJECTIVES",
    "balance",
    "clipped_ratio",
    "data_loss",
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


def sample_losses(method: Method, unit: Unit) -> Tensor:
    """Loss of each sample, [B]: the weighted objective plus the regularizer; its mean is minimized.

    The advantage, the group and the weight are those of the unit's first step.
    """
    objective = OBJECTIVES[method.objective.kind](unit, method)
    return method.objective.scale * unit[0].weight * objective + regularizer(method, unit)


def data_loss(method: Method, terms: Terms) -> Tensor:
    """The weighted matching error of images of the user's own, [B]."""
    return -method.objective.data_weight * terms.log_prob


def regularizer(method: Method, unit: Unit) -> Tensor:
    """Weighted distances to the reference and to the old policy, [B]."""
    rule, total = method.regularizer, torch.zeros_like(unit[0].log_prob)
    if rule.reference and rule.form == "log_prob":
        total = total + rule.reference * _reduced(unit, lambda t: t.log_prob - _given(t.log_prob_ref)) ** 2
    elif rule.reference:
        total = total + rule.reference * _reduced(unit, lambda t: _distance(t, rule.form))
    if rule.old:
        total = total + rule.old * _reduced(unit, lambda t: _mean_square(t.v, _given(t.v_old)))
    return total


def step_weights(method: Method, sigmas: Sequence[float]) -> Tensor:
    """Weights [T - 1] of the steps 0 .. T-2 of the grid `sigmas` [T + 1], float64.

    They have mean 1 over these steps, whichever of them are trained, unless `step_scale` is set.
    """
    rule, rollout = method.objective, method.rollout
    s = torch.tensor(sigmas, dtype=torch.float64)
    now, then = s[:-2], s[1:-1]
    weights = torch.ones_like(now)
    if rule.step_weight == "inverse_dt":
        weights = 1 / (now - then)
    elif rule.step_weight == "std":
        weights = spread(rollout.kernel, rollout.noise, now, then, sigmas[1])[0]
    elif rule.step_weight == "inverse_gradient":
        weights = 1 / gradient_size(rollout.kernel, rollout.noise, now, then, sigmas[1])
    if rule.step_weights:
        places = [np.linspace(0, 1, n) for n in (len(now), len(rule.step_weights))]
        weights = weights * torch.from_numpy(np.interp(*places, rule.step_weights))
    return weights / weights.mean() if rule.step_scale is None else rule.step_scale * weights


def clipped_ratio(unit: Unit, method: Method) -> Tensor:
    """max(-A rho, -A clip(rho)) with rho = exp(log p - log p_old); GRPO-Guard's rho, or Flow-DPPO's mask."""
    rule, advantage = method.objective, unit[0].advantage
    log_ratio = _reduced(unit, _guarded_log_ratio if rule.guard else _log_ratio, method.likelihood.reduce)
    ratio = torch.exp(log_ratio)
    if rule.trust is None:
        return _clipped(ratio, advantage, rule.clip)
    divergence = _reduced(
        unit, lambda t: _mean_square(_given(t.mean), _given(t.mean_old)) / (2 * _given(t.std) ** 2)
    )
    away = (ratio - 1) * advantage > 0
    return -advantage * ratio * ~((divergence >= rule.trust) & away)


def balance(unit: Unit, method: Method) -> Tensor:
    """TMPO (softmax trajectory balance): the clipped ratio with the advantage log target - log policy.

    target = softmax(beta A) and policy = softmax(P) over a group, P the path's log-probability; the log-ratio
    of P is centered in the group.
    """
    rule, first = method.objective, unit[0]
    same = _same_group(first)
    path, old = (
        _reduced(unit, f, method.likelihood.reduce) for f in (lambda t: t.log_prob, lambda t: t.log_prob_old)
    )
    advantage = (_log_softmax(rule.beta * first.advantage, same) - _log_softmax(path, same)).detach()
    change = path - old
    centered = change - (same * change).sum(1) / same.sum(1)
    return _clipped(torch.exp(centered.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)), advantage, rule.clip)


def least_squares(unit: Unit, method: Method) -> Tensor:
    """w (A 2 <e, d> + (kappa A + lam) |d|^2) with d = v - v_old, e = v_old - target; means over dimensions.

    DiffusionNFT is kappa 0, lam its beta: up to a constant this is (r |v+ - target|^2 + (1 - r) |v- -
        target|^2) /
    beta with A = 2 r - 1 and v+- = v_old +- beta d. With the weight "self" each of the two squares is divided
    by its own scale, so that form is computed. AdvantageFlow, and AWM with its term to the old policy, are
    kappa 1.
    """
    return _reduced(unit, lambda t: _squares(t, method))


def weighted(unit: Unit, method: Method) -> Tensor:
    """A times the matching error: reward-weighted regression, and RAFT with advantages of 0 and 1."""
    return unit[0].advantage * matched(unit, method)


def matched(unit: Unit, method: Method) -> Tensor:
    """The matching error alone: closed-form adjoint matching, whose target holds the reward's gradient."""
    return -_reduced(unit, lambda t: t.log_prob)


def dpo(unit: Unit, method: Method) -> Tensor:
    """-log sigmoid(beta / 2 sum_i A_i (log p_i - log p_ref,i)) of each group, given to each of its samples.

    With A = 1 for the preferred sample and -1 for the other this is Flow-DPO.
    """
    first = unit[0]
    gain = first.advantage * _reduced(unit, lambda t: t.log_prob - _given(t.log_prob_ref))
    return -logsigmoid(method.objective.beta / 2 * (_same_group(first) * gain).sum(1))


OBJECTIVES: Mapping[str, Callable[[Unit, Method], Tensor]] = MappingProxyType(
    {
        "clipped_ratio": clipped_ratio,
        "least_squares": least_squares,
        "balance": balance,
        "weighted": weighted,
        "dpo": dpo,
        "gradient": matched,
    }
)
"""Losses of samples by `Objective.kind`, [B]. "gradient" is "adjoint" here; `prefrm.flow.gradients` has the
losses of the other gradients."""


def _squares(terms: Terms, method: Method) -> Tensor:
    rule, kind, advantage = method.objective, method.likelihood.weight, terms.advantage
    v, v_old, target = precise(terms.v), precise(_given(terms.v_old)), _given(terms.target)
    d, e = v - v_old, v_old - target
    if kind == "self":
        toward, away = (matching_error(kind, v_old + b * d, target, terms.s) for b in (rule.lam, -rule.lam))
        return ((1 + advantage) / 2 * toward + (1 - advantage) / 2 * away) / rule.lam
    scale = {"uniform": torch.ones_like(terms.s), "t": terms.s, "t2": terms.s**2}[kind]
    return scale * (advantage * 2 * dim_mean(e * d) + (rule.kappa * advantage + rule.lam) * dim_mean(d**2))


def _clipped(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def _log_ratio(terms: Terms) -> Tensor:
    return terms.log_prob - terms.log_prob_old


def _guarded_log_ratio(terms: Terms) -> Tensor:
    std = _given(terms.std)
    shift = _mean_square(_given(terms.mean), _given(terms.mean_old)) / (2 * std**2)
    return std * (_log_ratio(terms) + shift)


def _distance(terms: Terms, form: str) -> Tensor:
    if form == "velocity":
        return _mean_square(terms.v, _given(terms.v_ref))
    kl = _mean_square(_given(terms.mean), _given(terms.mean_ref)) / (2 * _given(terms.std) ** 2)
    return kl * terms.dt if form == "kl_dt" else kl


def _reduced(unit: Unit, value: Callable[[Terms], Tensor], how: str = "mean") -> Tensor:
    values = torch.stack([value(terms) for terms in unit])
    return values.sum(0) if how == "sum" else values.mean(0)


def _mean_square(a: Tensor, b: Tensor) -> Tensor:
    return dim_mean((precise(a) - precise(b)) ** 2)


def _same_group(terms: Terms) -> Tensor:
    group = _given(terms.group)
    return (group[:, None] == group[None, :]).to(terms.log_prob.dtype)


def _log_softmax(values: Tensor, same: Tensor) -> Tensor:
    inside = values[None, :].expand_as(same).masked_fill(same == 0, -torch.inf)
    return values - torch.logsumexp(inside, dim=1)


def _given(value: Tensor | None) -> Tensor:
    assert value is not None, "the method needs terms that were not computed"
    return value
