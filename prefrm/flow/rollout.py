"""Rollouts: the samples of groups, as plain paths, branches or trees, by calls of the pipeline.

A sample depends on its own seed alone, not on the batch that it is drawn in. The seed derives from the run's
seed, the iteration, the prompt, the start (the initial noise) and, of a tree, the leaf.
Shapes: B samples of a batch; K samples of a group.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prefrm.errors import MediaError
from prefrm.flow.pipelines import Policy
from prefrm.flow.recording import Plan, Recording
from prefrm.flow.settings import Rollout, StochasticSteps
from prefrm.pixels import encode_image
from prefrm.rewards.chain import group_keys

__all__ = ["OLD", "Batch", "Sample", "Sampler", "Trained", "encode_images", "normal", "seed_of"]

OLD = "old"
"""The adapter with the weights of the old policy, where it is not the policy in training."""

# Purposes of seeds.
INITIAL, TRANSITION, CONDITION = range(3)


class Sample(NamedTuple):
    """A prompt, its number in the iteration, one of its initial noises, and a leaf of the tree from there."""

    prompt: str
    place: int
    start: int
    leaf: int = 0

    @property
    def node(self) -> tuple[int, ...]:
        """The part of its seeds that is beside the run's seed and the iteration."""
        return self.place, self.start, self.leaf


class Trained(NamedTuple):
    """A stochastic step of a batch: its recording, and the row in it of each sample, [B]."""

    recording: Recording
    step: int
    rows: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Samples that the same calls of the pipeline drew."""

    iteration: int
    samples: tuple[Sample, ...]  # [B]
    step: int = -1  # the one stochastic step of samples that are compared at it; -1 of others
    final: Recording  # of the call that ended in the images, a row for each sample
    trained: tuple[Trained, ...] = ()  # the stochastic steps, ascending

    @property
    def images(self) -> Tensor:
        """[B, 3, H, W] in [0, 1]."""
        assert self.final.images is not None
        return self.final.images

    def keys(self, rule: Rollout) -> list[tuple[int, ...]]:
        """The group of each sample."""
        _, places, starts, _ = zip(*self.samples, strict=True)
        return group_keys(rule.key, places, starts, [self.step] * len(self.samples))


@dataclass(frozen=True)
class Sampler:
    """Draws the samples of groups."""

    policy: Policy
    rule: Rollout
    # K, samples of a prompt; with branches, the next multiple of a tree's leaves, and with the rule "each",
    # for each step.
    group: int
    batch: int  # images in one call of the pipeline, at most, but for the leaves of one tree
    seed: int  # of the run
    steps: int  # T
    keep_path: bool = True  # keep the states of Euler steps, which only gradients through the sampler need

    @property
    def _leaves(self) -> int:
        return math.prod(self.rule.tree(self.steps))

    @property
    def _capacity(self) -> int:
        return max(1, self.batch // self._leaves)

    def jobs(self, prompts: Sequence[tuple[int, str]]) -> Iterator[list[Sample]]:
        """Starts of whole groups that fit into one call of the pipeline, or of one group.

        Args:
            prompts: each with its number in the iteration.
        """
        starts = math.ceil(self.group / self._leaves)
        size = max(1, self._capacity // starts)
        for n in range(0, len(prompts), size):
            yield [
                Sample(text, place, start)
                for place, text in prompts[n : n + size]
                for start in range(starts * self.rule.explore)
            ]

    def draw(self, starts: Sequence[Sample], stochastic: Sequence[int], iteration: int) -> list[Batch]:
        """The samples of `starts`, with these stochastic steps."""
        batches: list[Batch] = []
        for n in range(0, len(starts), self._capacity):
            some = starts[n : n + self._capacity]
            if self.rule.stochastic.rule == "each":
                trunk = replace(self, keep_path=True)._call(some, iteration, Plan(stop=self.steps - 1))
                batches += [self._tree(some, (i,), iteration, i, trunk.steps[i].x) for i in stochastic]
            else:
                batches.append(self._tree(some, stochastic, iteration))
        return batches

    def preview(self, starts: Sequence[Sample], iteration: int) -> list[Batch]:
        """The same starts, cheaply: by the ODE in half the steps."""
        none = StochasticSteps(rule="none")
        rule = replace(self.rule, kernel="ode", stochastic=none, branches=(), branch_noise=())
        return replace(self, rule=rule, steps=max(self.steps // 2, 1)).draw(starts, (), iteration)

    def _tree(
        self,
        samples: Sequence[Sample],
        stochastic: Sequence[int],
        iteration: int,
        begin: int = 0,
        x: Tensor | None = None,
    ) -> Batch:
        """Branch at the first of the stochastic steps, from the states `x` at step `begin`."""
        rule, branches = self.rule, self.rule.tree(self.steps)
        levels = rule.branch_noise or (rule.noise,) * len(branches)
        drawn: list[Recording] = []
        noise = dict[int, float]()
        for depth, end in enumerate((*stochastic[: len(branches)], self.steps)):
            if end == self.steps:
                noise |= dict.fromkeys(stochastic[len(branches) :], rule.noise)
            if begin < end:
                plan = Plan(kernel=rule.kernel, noise=noise, start=begin, stop=end)
                drawn.append(self._call(samples, iteration, plan, x))
                x = drawn[-1].x
            if depth < len(branches):
                k = branches[depth]
                samples = [s._replace(leaf=s.leaf * k + child) for s in samples for child in range(k)]
                x = None if x is None else x.repeat_interleave(k, 0)
                begin, noise = end, {end: levels[depth]}
        count = len(samples)
        trained = [
            Trained(one, i, [n * len(one.x) // count for n in range(count)])
            for one in drawn
            for i, step in one.steps.items()
            if step.noise
        ]
        single = rule.stochastic.rule in ("each", "shared")
        step = stochastic[0] if single and stochastic else -1
        return Batch(
            iteration=iteration, samples=tuple(samples), step=step, final=drawn[-1], trained=tuple(trained)
        )

    def _call(
        self, samples: Sequence[Sample], iteration: int, plan: Plan, x: Tensor | None = None
    ) -> Recording:
        """One call of the pipeline, with the noise of these samples."""
        base, rule = (self.seed, iteration), self.rule
        starts = [(sample.place, 0 if rule.same_noise else sample.start) for sample in samples]
        nodes = [(*base, *sample.node) for sample in samples]
        perturb = partial(_perturbed, rule, [(*node, CONDITION) for node in nodes])
        plan = replace(
            plan,
            draw=lambda i, like: normal([(*node, TRANSITION, i) for node in nodes], like),
            even_grid=rule.even_grid,
            perturb=perturb if rule.condition_noise else None,
        )
        lags = rule.policy == "old" and OLD in self.policy.adapters
        with self.policy.using(OLD) if lags else nullcontext():
            return self.policy.draw(
                [sample.prompt for sample in samples],
                seeds=[seed_of(*base, *start, INITIAL) for start in starts],
                plan=plan,
                latents=x if plan.start else None,
                steps=self.steps,
                decode=plan.stop in (None, self.steps),
                keep_path=self.keep_path,
            )


def seed_of(*parts: int) -> int:
    """A seed of a generator of torch from whole numbers >= 0."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def normal(seeds: Sequence[Sequence[int]], like: Tensor) -> Tensor:
    """Standard normal numbers in the shape [B, ...] of `like`, each row from its own seed; float32."""
    generators = [torch.Generator().manual_seed(seed_of(*seed)) for seed in seeds]
    return torch.stack([torch.randn(like.shape[1:], generator=one) for one in generators]).to(like.device)


def encode_images(images: Tensor) -> list[bytes | None]:
    """PNG of each of [N, 3, H, W] on the CPU; None of one with a pixel that is not a number in [0, 1]."""
    encoded: list[bytes | None] = []
    for image in images:
        try:
            encoded.append(encode_image(image))
        except MediaError:
            encoded.append(None)
    return encoded


def _perturbed(rule: Rollout, seeds: Sequence[Sequence[int]], s: float, value: Any) -> Any:
    """The prompt's embedding with noise on it, on both sides of a guidance alike (E2PO)."""
    if isinstance(value, list):
        return [_perturbed(rule, [seeds[n % len(seeds)]], s, one[None])[0] for n, one in enumerate(value)]
    strength = rule.condition_strength(s) * rule.condition_noise
    noise = normal(seeds, value).repeat(len(value) // len(seeds), *[1] * (value.ndim - 1))
    # By token: neither other samples nor padding may change it.
    return value + (strength * value.float().std(-1, keepdim=True) * noise).to(value.dtype)
