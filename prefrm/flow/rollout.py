"""Rollouts: the samples of groups, as plain paths, branches or trees, by calls of the pipeline.

A sample depends on its own seed alone, not on the batch that it is drawn in. The seed derives from the run's
seed, the iteration, the prompt, the start (the initial noise) and, of a tree, the leaf.
Shapes: B samples of a batch; K samples of a group.
"""

import math
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefrm.flow.pipelines import Policy
from prefrm.flow.recording import Plan, Recording
from prefrm.flow.settings import Rollout, StochasticSteps
from prefrm.flow.steps import condition_strength
from prefrm.rewards.chain import group_keys

__all__ = ["Batch", "Sampler", "Start", "Trained", "normal", "seed_of"]

# What a seed is for.
INITIAL, TRANSITION, CONDITION = range(3)
NONE = StochasticSteps(rule="none")


class Start(NamedTuple):
    """Where a path or a tree begins: a prompt, its number in the iteration, and one of its initial noises."""

    prompt: str
    place: int
    number: int


class Trained(NamedTuple):
    """A stochastic step of a batch: its recording, and the row in it of each sample, [B]."""

    recording: Recording
    step: int
    rows: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples that the same calls of the pipeline drew.

    Attributes:
        starts: of each sample, [B].
        leaf: number of each sample among those of its start, [B].
        step: the one stochastic step of samples that are compared at it; -1 of others.
        final: recording of the call that ended in the images, a row for each sample.
        trained: the stochastic steps, ascending.
    """

    starts: tuple[Start, ...]
    leaf: tuple[int, ...]
    step: int
    final: Recording
    trained: tuple[Trained, ...]

    @property
    def prompts(self) -> list[str]:
        return [start.prompt for start in self.starts]

    @property
    def images(self) -> Tensor:
        """[B, 3, H, W] in [0, 1]."""
        assert self.final.images is not None
        return self.final.images

    def keys(self, rule: Rollout) -> list[tuple[int, ...]]:
        """The group of each sample."""
        places, numbers = zip(*((start.place, start.number) for start in self.starts), strict=True)
        return group_keys(rule.key, places, numbers, [self.step] * len(self.starts))


class Sampler:
    """Draws the samples of groups.

    Args:
        policy: which draws.
        rule: how a group's samples come about.
        group: K, samples of a prompt; with branches, the next multiple of a tree's leaves, and with the rule
            "each", for each step.
        batch: images in one call of the pipeline, at most, but for the leaves of one tree.
        seed: of the run.
    """

    def __init__(self, policy: Policy, rule: Rollout, *, group: int, batch: int, seed: int) -> None:
        self.policy, self.rule, self.seed = policy, rule, seed
        self._leaves = math.prod(rule.branches)
        self._starts = math.ceil(group / self._leaves)
        self._capacity = max(1, batch // self._leaves)

    def jobs(self, prompts: Sequence[tuple[int, str]]) -> Iterator[list[Start]]:
        """Starts of whole groups that fit into one call of the pipeline, or of one group.

        Args:
            prompts: each with its number in the iteration.
        """
        size = max(1, self._capacity // self._starts)
        for n in range(0, len(prompts), size):
            yield [
                Start(text, place, number)
                for place, text in prompts[n : n + size]
                for number in range(self._starts * self.rule.explore)
            ]

    def draw(self, starts: Sequence[Start], stochastic: Sequence[int], iteration: int) -> list[Batch]:
        """The samples of `starts`, with these stochastic steps."""
        batches: list[Batch] = []
        for n in range(0, len(starts), self._capacity):
            some = starts[n : n + self._capacity]
            if self.rule.stochastic.rule == "each":
                trunk = self._drawn(some, [0] * len(some), iteration, Plan(stop=self.policy.steps - 1))
                batches += [self._tree(some, (i,), iteration, trunk) for i in stochastic]
            else:
                batches.append(self._tree(some, stochastic, iteration))
        return batches

    def preview(self, starts: Sequence[Start], iteration: int) -> list[Batch]:
        """The same starts, cheaply: by the ODE in half the steps."""
        cheap = copy(self)
        cheap.rule = replace(self.rule, kernel="ode", stochastic=NONE, branches=(), branch_noise=())
        steps = max(self.policy.steps // 2, 1)
        return [
            cheap._tree(starts[n : n + self._capacity], (), iteration, steps=steps)
            for n in range(0, len(starts), self._capacity)
        ]

    def _tree(
        self,
        starts: Sequence[Start],
        stochastic: Sequence[int],
        iteration: int,
        trunk: Recording | None = None,
        steps: int | None = None,
    ) -> Batch:
        """Branch at the first of the stochastic steps; a trunk may be recorded already."""
        rule, total = self.rule, steps or self.policy.steps
        branches = rule.branches[: len(stochastic)]
        ends = [0, *stochastic[: len(branches)], total]
        starts, leaf = list(starts), [0] * len(starts)
        x: Tensor | None = None
        drawn: list[Recording] = []
        for depth, (begin, end) in enumerate(pairwise(ends)):
            noise: dict[int, float] = {}
            if depth:
                k = branches[depth - 1]
                leaf = [n * k + child for n in leaf for child in range(k)]
                starts = [start for start in starts for _ in range(k)]
                x = None if x is None else x.repeat_interleave(k, 0)
                noise[begin] = rule.branch_noise[depth - 1] if rule.branch_noise else rule.noise
            if end == total:
                noise |= dict.fromkeys(stochastic[len(branches) :], rule.noise)
            if trunk is not None and not depth:
                x = trunk.steps[end].x
            elif begin < end:
                plan = Plan(kernel=rule.kernel, noise=noise, start=begin, stop=end)
                drawn.append(self._drawn(starts, leaf, iteration, plan, x, steps))
                x = drawn[-1].x
        trained = [
            Trained(one, i, [n * len(one.x) // len(starts) for n in range(len(starts))])
            for one in drawn
            for i, step in one.steps.items()
            if step.noise
        ]
        single = rule.stochastic.rule in ("each", "shared")
        return Batch(
            starts=tuple(starts),
            leaf=tuple(leaf),
            step=stochastic[0] if single and stochastic else -1,
            final=drawn[-1],
            trained=tuple(trained),
        )

    def _drawn(
        self,
        starts: Sequence[Start],
        leaf: Sequence[int],
        iteration: int,
        plan: Plan,
        x: Tensor | None = None,
        steps: int | None = None,
    ) -> Recording:
        base = (self.seed, iteration)
        nodes = [(*base, start.place, start.number, n) for start, n in zip(starts, leaf, strict=True)]
        numbers = [0 if self.rule.same_noise else start.number for start in starts]
        seeds = [
            seed_of(*base, start.place, number, INITIAL)
            for start, number in zip(starts, numbers, strict=True)
        ]
        plan = replace(plan, draw=lambda i, like: normal([(*node, TRANSITION, i) for node in nodes], like))
        if self.rule.condition_noise:
            plan = replace(
                plan, perturb=partial(_perturbed, self.rule, [(*node, CONDITION) for node in nodes])
            )
        return self.policy.draw(
            [start.prompt for start in starts],
            seeds=seeds,
            plan=plan,
            latents=x if plan.start else None,
            steps=steps,
            decode=plan.stop in (None, steps or self.policy.steps),
        )


def seed_of(*parts: int) -> int:
    """A seed of a generator of torch from whole numbers >= 0."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def normal(seeds: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    """Standard normal numbers in the shape [B, ...] of `like`, each row from a seed of its own; float32."""
    rows = [
        torch.randn(like.shape[1:], generator=torch.Generator().manual_seed(seed_of(*seed))) for seed in seeds
    ]
    return torch.stack(rows).to(like.device)


def _perturbed(rule: Rollout, seeds: Sequence[Sequence[int]], s: float, value: Any) -> Any:
    """The prompt's embedding with noise on it, on both sides of a guidance alike (E2PO)."""
    if isinstance(value, list):
        return [_perturbed(rule, [seeds[n % len(seeds)]], s, one[None])[0] for n, one in enumerate(value)]
    strength = float(condition_strength(s, rule.condition_span)) * rule.condition_noise
    noise = normal(seeds, value).repeat(len(value) // len(seeds), *[1] * (value.ndim - 1))
    return value + (strength * value.float().std() * noise).to(value.dtype)
