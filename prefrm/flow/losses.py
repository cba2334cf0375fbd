"""Losses of samples: evaluates a policy again where it drew, and assembles the terms of the objective.

Every random number derives from the run's seed, the iteration and the sample, so batches do not matter.
Shapes: B samples of a batch; R rows of it; T steps.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefrm.differentiable import DifferentiableScorer
from prefrm.flow.features import features, pixel_map
from prefrm.flow.gradients import adjoint_target, leap, utility_gradient, utility_loss
from prefrm.flow.kernels import Level
from prefrm.flow.likelihood import Terms, noised, probe_scores
from prefrm.flow.objectives import matched, sample_losses, step_weights
from prefrm.flow.pipelines import Policy
from prefrm.flow.rollout import OLD, Batch, normal
from prefrm.flow.settings import Method
from prefrm.rewards.chain import members
from prefrm.winmatrix import Doubles

__all__ = ["DREW", "Losses", "Work"]

DREW = "drew"
"""The adapter with the weights of the policy that drew, where ratios of several updates need them."""

# Purposes of seeds, beside those of rollouts.
UNITS, LEVELS, NOISE, PROBES, POINTS = range(11, 16)
# SOLACE: eight antithetic probes.
HALF_PROBES = 4


class Work(NamedTuple):
    """Samples of a batch whose losses are computed in one pass, for one unit of its steps or noise levels."""

    batch: Batch
    rows: list[int]
    advantage: Doubles  # [B, 1], or [B, T - 1] where advantages differ by step
    unit: tuple[int, ...]
    # By row, for all units: the map over its latents (ViPO), or the gradient of its utility in x0 (EAM).
    shared: Mapping[int, Tensor]
    is_data: bool = False  # whether the samples stand for training data

    def shared_rows(self) -> Tensor:
        """[R, ...] of `shared`."""
        return torch.stack([self.shared[row] for row in self.rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Computes the losses of a method."""

    policy: Policy  # probed; with the adapters that the method needs (`trainer.adapters`)
    method: Method
    batch: int  # samples in one forward pass, at most, but for a group that a loss joins
    seed: int  # of the run
    encode: Callable[[Tensor], Tensor] = features  # features [B, H, W, D] of images
    differentiable: DifferentiableScorer | None = None  # for objectives that follow its gradient

    def work(self, batch: Batch, advantage: Doubles, places: set[int]) -> Iterator[Work]:
        """Units of a batch, each with the rows that it trains: of these prompts, with an advantage.

        Args:
            batch: of samples.
            advantage: [B, 1] or [B, T - 1]; NaN trains nothing.
            places: numbers of prompts in the iteration.
        """
        method, keys = self.method, batch.keys(self.method.rollout)
        known = np.isfinite(advantage).all(axis=1)
        useful = known & (advantage != 0).any(axis=1)
        if method.objective.kind == "balance":
            wanted = {key for key, use in zip(keys, useful, strict=True) if use}
            useful = known & np.array([key in wanted for key in keys])
        useful &= np.array([sample.place in places for sample in batch.samples])
        matching = method.likelihood.kind == "matching"
        count = len(self._levels(batch, 0)) if matching else len(batch.trained)
        units = method.likelihood.units(1 if method.objective.through_sampler else count)
        rngs = [
            np.random.default_rng([*s, batch.step + 1]) for s in self._seeds(batch, range(len(keys)), UNITS)
        ]
        chosen = np.stack([method.rollout.stochastic.chosen(len(units), rng) for rng in rngs])
        shared = dict[int, Tensor]()
        if method.objective.pixel_map or method.objective.kind == "adjoint":
            each = self._map if method.objective.pixel_map else self._slope
            for rows in self._passes(np.flatnonzero(useful).tolist(), keys):
                shared |= zip(rows, each(batch, rows), strict=True)
        for u, unit in enumerate(units):
            for rows in self._passes(np.flatnonzero(useful & chosen[:, u]).tolist(), keys):
                yield Work(batch, rows, advantage, unit, shared)

    def data(self, batch: Batch) -> list[Work]:
        """The matching error on samples of the reference policy, which stand for its training data.

        As the prior preservation of DreamBooth (arXiv 2208.12242), it needs no images and no encoder.
        """
        levels, ones = range(len(self._levels(batch, 0))), np.ones((len(batch.samples), 1))
        passes = [*self._passes([*range(len(ones))], batch.samples)]
        return [Work(batch, rows, ones, (n,), {}, is_data=True) for n in levels for rows in passes]

    def of(self, work: Work) -> Tensor:
        """The loss of each row, [R]."""
        objective, matching = self.method.objective, self.method.likelihood.kind == "matching"
        if work.is_data:
            return objective.data_weight * matched([self._matching(work, place) for place in work.unit])
        if objective.through_sampler:
            return self._through_sampler(work.batch, work.rows)
        terms = self._matching if matching else self._transition
        return sample_losses([terms(work, place) for place in work.unit])

    def confidence(self, batch: Batch) -> Tensor:
        """Probe scores [B, T - T // 2] of the policy in its own samples (SOLACE)."""
        final, rows, steps = batch.final, range(len(batch.samples)), self.policy.steps
        noise = [normal(self._seeds(batch, rows, PROBES, half), final.x) for half in range(HALF_PROBES)]
        with torch.no_grad():
            return probe_scores(
                lambda i, x: self.policy.velocity(final, i, x.to(final.x.dtype), guided=False),
                final.x,
                noise,
                range(steps // 2, steps),
                final.sigmas,
            )

    def _passes(self, rows: list[int], keys: Sequence[Hashable]) -> Iterator[list[int]]:
        """Rows of one forward pass; groups stay together where a loss or a judge's gradient joins them."""
        together = self.method.objective.within_group
        part: list[int] = []
        for places in members([keys[row] if together else row for row in rows]):
            if part and len(part) + len(places) > self.batch:
                yield part
                part = []
            part = part + [rows[place] for place in places]
        if part:
            yield part

    def _transition(self, work: Work, position: int) -> Terms:
        recording, i, nodes = work.batch.trained[position]
        picked = [nodes[row] for row in work.rows]
        # Leaves of a tree share nodes.
        distinct = sorted(set(picked))
        back = [distinct.index(node) for node in picked]
        step, sigmas = recording.steps[i], recording.sigmas
        return self._terms(
            work,
            [i] * len(picked),
            sigmas[i],
            lambda: self.policy.velocity(recording, i, rows=distinct)[back],
            s_next=sigmas[i + 1],
            s_after_first=sigmas[1],
            x=step.x[picked],
            x_next=step.x_next[picked],
            v_rollout=step.v[picked],
            noise=step.noise,
            pixel_map=work.shared_rows() if self.method.objective.pixel_map else None,
        )

    def _matching(self, work: Work, position: int) -> Terms:
        batch, rows, final = work.batch, work.rows, work.batch.final
        levels = [self._levels(batch, row)[position] for row in rows]
        s = torch.tensor([final.sigmas[i] for i in levels], device=final.x.device)
        x0, noise = final.x[rows], normal(self._seeds(batch, rows, NOISE, position), final.x[rows])
        x = noised(x0, noise, s).to(x0.dtype)
        velocity = lambda: self.policy.velocity(final, levels, x, rows)  # noqa: E731
        terms = self._terms(work, levels, s, velocity, target=noise - x0.float())
        if work.is_data or self.method.objective.kind != "adjoint":
            return terms
        assert terms.v_ref is not None
        target = adjoint_target(terms.v_ref, work.shared_rows(), s, self.method.objective.lam)
        return replace(terms, target=target)

    def _terms(
        self, work: Work, steps: list[int], s: Level, velocity: Callable[[], Tensor], **more: Any
    ) -> Terms:
        """Terms of either likelihood: advantages, groups, weights, and the velocities that are needed."""
        method, batch = self.method, work.batch
        others: dict[str | None, Tensor] = {}
        reference = [None] if method.needs_reference else []
        for adapter in (*reference, *(name for name in (OLD, DREW) if name in self.policy.adapters)):
            with self.policy.using(adapter):
                others[adapter] = velocity()
        v, keys = velocity(), batch.keys(method.rollout)
        advantage = work.advantage[work.rows, np.minimum(steps, work.advantage.shape[1] - 1)]
        drew = OLD if method.rollout.policy == "old" else DREW
        return Terms(
            method=method,
            advantage=torch.from_numpy(advantage).to(v.device, torch.float32),
            s=s,
            v=v,
            # Without an adapter of its own, a policy of before is the one in training.
            v_old=others.get(OLD, v.detach()),
            v_ref=others.get(None),
            weight=step_weights(method, batch.final.sigmas)[steps].to(v.device, torch.float32),
            group=torch.tensor([keys.index(keys[row]) for row in work.rows], device=v.device),
            **{"v_rollout": others.get(drew, v.detach())} | more,
        )

    def _through_sampler(self, batch: Batch, rows: list[int]) -> Tensor:
        """To a differentiable scorer (ReFL, DRaFT-K, LeapAlign)."""
        objective, final = self.method.objective, batch.final
        rng = np.random.default_rng([self.seed, batch.iteration, POINTS])
        x0 = leap(
            lambda i, x: self.policy.velocity(final, i, x.to(final.x.dtype), rows),
            [final.steps[i].x[rows] for i in range(self.policy.steps)] + [final.x[rows]],
            final.sigmas,
            objective.points(self.policy.steps, rng),
            anchored=objective.kind == "leap",
            nested=objective.nested,
        )
        return utility_loss(objective, self._utilities(batch, rows, x0))

    def _utilities(self, batch: Batch, rows: Sequence[int], x0: Tensor) -> Tensor:
        assert self.differentiable is not None, "the method needs a differentiable scorer"
        samples = [batch.samples[row] for row in rows]
        pixels = self.policy.decode([sample.prompt for sample in samples], x0.to(batch.final.x.dtype))
        utilities = torch.zeros(len(samples), device=pixels.device)
        for same in members([sample.place for sample in samples]):
            utilities[same] = self.differentiable.utilities(samples[same[0]].prompt, pixels[same]).float()
        return utilities

    def _levels(self, batch: Batch, row: int) -> tuple[int, ...]:
        """Steps of the grid at whose noise levels a sample is trained."""
        (seed,) = self._seeds(batch, [row], LEVELS)
        return self.method.likelihood.levels(self.policy.steps, np.random.default_rng(seed))

    def _seeds(self, batch: Batch, rows: Sequence[int], use: int, *more: int) -> list[tuple[int, ...]]:
        """One for each sample, or for each prompt where a group shares its noise."""
        end = 1 if self.method.likelihood.shared_noise else None
        return [(self.seed, use, batch.iteration, *more, *batch.samples[row].node[:end]) for row in rows]

    def _slope(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """Gradients of utilities in x0 (EAM)."""
        return utility_gradient(lambda x0: self._utilities(batch, rows, x0), batch.final.x[[*rows]])

    def _map(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """Weights over the latents (ViPO), packed ones too."""
        images, x0 = batch.images[[*rows]], batch.final.x
        if x0.ndim == 4:
            return pixel_map(self.encode(images), (x0.shape[2], x0.shape[3]))[:, None].to(x0.device)
        height = round(math.sqrt(x0.shape[1] * images.shape[2] / images.shape[3]))
        size = (height, x0.shape[1] // height)
        return pixel_map(self.encode(images), size).flatten(1)[..., None].to(x0.device)
