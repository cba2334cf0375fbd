"""The training loop: rollouts, rewards, advantages, and the losses of whatever method is set.

Groups are dealt to the processes of accelerate; gradients are summed over all of them and divided by the
number of losses, so several processes equal one. Every random number derives from the run's seed and its
place, so no generator has a state. Shapes: N samples of an iteration; B of a batch; R rows of it; T steps.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor

from prefrm.differentiable import DifferentiableScorer
from prefrm.errors import ConfigError
from prefrm.flow.config import OptimConfig
from prefrm.flow.gradients import (
    adjoint_target,
    leap,
    leap_points,
    utility_gradient,
    utility_loss,
)
from prefrm.flow.likelihood import Terms, matching_levels, noised, probe_scores
from prefrm.flow.maps import pixel_map
from prefrm.flow.objectives import matched, sample_losses, step_weights
from prefrm.flow.pipelines import Policy
from prefrm.flow.rollout import Batch, Sampler, Start, normal, seed_of
from prefrm.flow.scoring import Scoring, features
from prefrm.flow.settings import Method
from prefrm.flow.steps import split_units, stochastic_steps, trained_units
from prefrm.rewards.chain import intrinsic_rewards, select
from prefrm.rewards.numbers import Doubles

__all__ = ["Trainer"]

# What a seed is for, beside those of rollouts.
STEPS, UNITS, LEVELS, NOISE, PROBES, POINTS, DATA = range(10, 17)
# Columns of the table that processes share: prompt, start, step; then rewards, then features.
KEYS = 3
CONFIDENCE = "confidence"
# SOLACE: eight antithetic probes.
HALF_PROBES = 4


class _Work(NamedTuple):
    """Samples of a batch whose losses are computed in one pass, for one unit of its steps or noise levels."""

    batch: Batch
    advantage: Doubles
    unit: tuple[int, ...]
    rows: tuple[int, ...]


class Trainer:
    """Trains the adapter of a policy by a method.

    Args:
        policy: probed; with an adapter "old" where `method.needs_old`.
        method: row of settings.
        accelerator: of the process.
        sampler: draws the samples by the method's rollout.
        scoring: gives the rewards.
        weights: of the rewards, by name.
        settings: of the optimizer.
        seed: of the run.
        differentiable: a scorer with a gradient; the objective "gradient" needs one.
        encode: features [B, H, W, D] of images, for diversity and maps over pixels.
    """

    def __init__(
        self,
        policy: Policy,
        method: Method,
        accelerator: Accelerator,
        sampler: Sampler,
        scoring: Scoring,
        weights: dict[str, float],
        settings: OptimConfig,
        *,
        seed: int,
        differentiable: DifferentiableScorer | None = None,
        encode: Callable[[Tensor], Tensor] = features,
    ) -> None:
        self.policy, self.method, self.accelerator, self.settings = policy, method, accelerator, settings
        self._sampler, self._scoring, self._weights, self.seed = sampler, scoring, weights, seed
        self._differentiable, self._encode = differentiable, encode
        self.parameters = policy.parameters()
        adamw = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay)
        self.optimizer = accelerator.prepare(adamw)
        self.ema = None if settings.ema is None else EMAModel(self.parameters, decay=settings.ema)
        self.updates = 0

    def iteration(self, n: int, prompts: Sequence[str]) -> dict[str, float]:
        """One iteration: the samples of all `prompts`, and the updates. Returns what is logged.

        Raises:
            ConfigError: the loss or the gradient is not finite.
        """
        started = time.monotonic()
        rng = np.random.default_rng([self.seed, n, STEPS])
        stochastic = stochastic_steps(self.method.rollout.stochastic, n, self.policy.steps, rng)
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        batches, rewards = self._rollout(list(enumerate(prompts))[rank::count], stochastic, n)
        rolled = time.monotonic()
        advantages, logs = self._advantages(batches, rewards)
        turns = np.array_split(np.arange(len(prompts)), self.settings.updates)
        updates = [self._update(batches, advantages, n, set(places.tolist())) for places in turns]
        if self.method.needs_old:
            self.policy.copy_adapter("default", "old", decay=self.method.regularizer.decay_at(n))
        logs |= {name: float(np.mean([one[name] for one in updates])) for name in updates[0]}
        logs["images"] = self._total(sum(len(batch.starts) for batch in batches))
        return logs | {"seconds_rollout": rolled - started, "seconds_update": time.monotonic() - rolled}

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """In the block, the policy has the weights that are evaluated and saved."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

    def _rollout(
        self, prompts: Sequence[tuple[int, str]], stochastic: Sequence[int], n: int
    ) -> tuple[list[Batch], dict[str, Doubles]]:
        """The samples of this process, scored group by group while the next ones are drawn."""
        batches: list[Batch] = []
        waiting = []
        with self.accelerator.autocast():
            for starts in self._sampler.jobs(prompts):
                drawn = self._sampler.draw(self._selected(starts, n), stochastic, n)
                waiting.append(self._submitted(drawn))
                batches += drawn
        scored = [one.result() for one in waiting]
        return batches, {name: np.concatenate([one[name] for one in scored]) for name in self._scoring.names}

    def _submitted(self, drawn: Sequence[Batch]) -> Any:
        keys = [key for batch in drawn for key in batch.keys(self.method.rollout)]
        prompts = [prompt for batch in drawn for prompt in batch.prompts]
        return self._scoring.submit(prompts, torch.cat([batch.images for batch in drawn]), keys)

    def _selected(self, starts: Sequence[Start], n: int) -> Sequence[Start]:
        """Of explored starts, the best and the worst of each prompt, by cheap samples (Sol-RL)."""
        rule = self.method.rollout
        if rule.explore == 1:
            return starts
        rewards = self._submitted(self._sampler.preview(starts, n)).result()
        return [starts[i] for i in self._extremes(rewards, [s.place for s in starts], rule.explore)]

    def _extremes(self, rewards: dict[str, Doubles], keys: Sequence[Any], explore: int = 1) -> list[int]:
        """Places of the best and the worst samples of each group, by the weighted sum of the rewards."""
        rule, size = self.method.rollout, len(keys) / len(set(keys)) / explore
        total = np.sum([self._weights.get(name, 1.0) * r for name, r in rewards.items()], axis=0)
        return select(total, keys, best=round(rule.keep_best * size), worst=round(rule.keep_worst * size))

    def _advantages(
        self, batches: Sequence[Batch], rewards: dict[str, Doubles]
    ) -> tuple[list[Doubles], dict[str, float]]:
        """Of each batch [B], or [B, T - 1]; NaN where a sample has none. They use all processes' rewards."""
        rule, sizes = self.method.rollout, [len(batch.starts) for batch in batches]
        columns: list[Any] = [[(s.place, s.number, batch.step) for batch in batches for s in batch.starts]]
        columns += [r[:, None] for r in rewards.values()]
        levels = batches[0].final.sigmas[self.policy.steps // 2 : self.policy.steps]
        if self.method.intrinsic:
            columns.append(np.concatenate([self._confidence(batch, n) for n, batch in enumerate(batches)]))
        if self.method.advantage.diversity:
            columns.append(np.concatenate([self._encode(b.images).flatten(1).cpu() for b in batches]))
        table, mine = self._gathered(np.concatenate(columns, axis=1))
        triples = table[:, :KEYS].astype(int).tolist()
        width = KEYS if rule.key == "prompt_seed_step" else 2
        keys = [(place, step, number)[:width] for place, number, step in triples]
        split = KEYS + len(rewards)
        named = dict(zip(rewards, table[:, KEYS:split].T, strict=True))
        if self.method.intrinsic:
            named[CONFIDENCE] = intrinsic_rewards(table[:, split : split + len(levels)], levels)
            split += len(levels)
        logs = {f"reward/{name}": float(np.nanmean(r)) for name, r in named.items() if not np.isnan(r).all()}
        logs["missing"] = float(np.mean([np.isnan(r).mean() for r in named.values()])) if named else 0.0
        if self.method.objective.kind == "gradient":
            return [np.ones(size) for size in sizes], logs
        a = self.method.advantage.advantages(
            named,
            keys,
            weights={name: self._weights[name] for name in rewards},
            features=table[:, split:] if self.method.advantage.diversity else None,
            steps=self.policy.steps - 1,
        )
        if rule.explore == 1 and (rule.keep_best or rule.keep_worst):
            dropped = np.ones(len(a), dtype=bool)
            dropped[self._extremes(named, keys)] = False
            a[dropped] = np.nan
        return np.split(a[mine], np.cumsum(sizes)[:-1]), logs

    def _gathered(self, table: Doubles) -> tuple[Doubles, slice]:
        """The rows of all processes, and which of them are this one's."""
        rows = torch.from_numpy(table).to(self.accelerator.device)
        padded = self.accelerator.pad_across_processes(rows, pad_index=-1)
        everything = self.accelerator.gather(padded).cpu().numpy()
        real = everything[:, 0] >= 0
        before = int(real[: len(padded) * self.accelerator.process_index].sum())
        return everything[real], slice(before, before + len(table))

    def _confidence(self, batch: Batch, n: int) -> Doubles:
        """Probe scores [B, T - T // 2] of the policy in its own samples (SOLACE)."""
        final, rows = batch.final, range(len(batch.starts))
        noise = [normal(self._seeds(batch, rows, PROBES, n, half), final.x) for half in range(HALF_PROBES)]
        with torch.no_grad(), self.accelerator.autocast():
            scores = probe_scores(
                lambda i, x: self.policy.velocity(final, i, x.to(final.x.dtype)),
                final.x,
                noise,
                range(self.policy.steps // 2, self.policy.steps),
                final.sigmas,
            )
        return np.asarray(scores.double().cpu())

    def _update(
        self, batches: Sequence[Batch], advantages: Sequence[Doubles], n: int, places: set[int]
    ) -> dict[str, float]:
        """One optimizer step on the groups of some prompts."""
        work = [one for b, a in zip(batches, advantages, strict=True) for one in self._work(b, a, n, places)]
        count = self._total(sum(len(one.rows) for one in work))
        total = 0.0
        for one in work:
            with self.accelerator.autocast():
                part = self._losses(one, n).float().sum() / max(count, 1)
            self.accelerator.backward(part)
            total += float(part.detach())
        if self.method.objective.data_weight:
            firsts = {start.place: start for batch in batches for start in batch.starts if start.number == 0}
            self._preserve([start for place, start in firsts.items() if place in places], n, len(places))
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "sum")
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        loss = self._total(total)
        # With a scaler, an overflow is skipped, and the scale falls.
        if not (math.isfinite(loss) and (math.isfinite(norm) or self.accelerator.scaler is not None)):
            raise ConfigError(
                f"iteration {n}: the loss is {loss:g} and the gradient's norm {norm:g}; lower optim.lr "
                f"(now {self.settings.lr:g}) or the method's noise"
            )
        self.updates += 1
        lr = self.settings.lr * min(1.0, self.updates / max(self.settings.warmup, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.parameters)
        return {"loss": loss, "grad_norm": norm, "lr": lr, "trained": count}

    def _work(self, batch: Batch, advantage: Doubles, n: int, places: set[int]) -> Iterator[_Work]:
        """Units of a batch, each with the rows that it trains; samples without an advantage are skipped."""
        method, keys = self.method, batch.keys(self.method.rollout)
        known = np.isfinite(advantage).reshape(len(keys), -1).all(axis=1)
        useful = known & (advantage != 0).reshape(len(keys), -1).any(axis=1)
        if method.objective.kind == "balance":
            wanted = {key for key, use in zip(keys, useful, strict=True) if use}
            useful = known & np.array([key in wanted for key in keys])
        useful &= np.array([start.place in places for start in batch.starts])
        count = len(self._levels(batch, 0, n)) if method.likelihood.kind == "matching" else len(batch.trained)
        leaping = method.objective.gradient not in ("none", "adjoint")
        units = split_units(1 if leaping else count, method.likelihood.chunks)
        share, seeds = method.rollout.stochastic.trained, self._seeds(batch, range(len(keys)), UNITS, n)
        rngs = [np.random.default_rng([*seed, batch.step + 1]) for seed in seeds]
        chosen = np.concatenate([trained_units(share, len(units), 1, rng) for rng in rngs])
        for u, unit in enumerate(units):
            for rows in self._parts(np.flatnonzero(useful & chosen[:, u]).tolist(), keys):
                yield _Work(batch, advantage, unit, tuple(rows))

    def _parts(self, rows: list[int], keys: Sequence[Any]) -> Iterator[list[int]]:
        """Rows of one forward pass; groups stay together where a loss or a judge's gradient joins them."""
        size, objective = self.settings.batch, self.method.objective
        together = objective.within_group or objective.kind == "gradient"
        whole: dict[Any, list[int]] = {}
        for row in rows:
            whole.setdefault(keys[row] if together else row, []).append(row)
        part: list[int] = []
        for members in whole.values():
            if part and len(part) + len(members) > size:
                yield part
                part = []
            part = part + members
        if part:
            yield part

    def _losses(self, work: _Work, n: int) -> Tensor:
        """[R]."""
        if self.method.objective.gradient not in ("none", "adjoint"):
            return self._leap_losses(work.batch, work.rows, n)
        matching = self.method.likelihood.kind == "matching"
        terms = self._matching if matching else self._transition
        return sample_losses([terms(work, position, n) for position in work.unit])

    def _transition(self, work: _Work, position: int, n: int) -> Terms:
        recording, i, places = work.batch.trained[position]
        picked = [places[row] for row in work.rows]
        # Leaves of a tree share nodes.
        nodes = sorted(set(picked))
        back = [nodes.index(place) for place in picked]
        step, sigmas = recording.steps[i], recording.sigmas
        return Terms(
            **self._common(work, i, lambda: self.policy.velocity(recording, i, rows=nodes)[back]),
            s=sigmas[i],
            s_next=sigmas[i + 1],
            s_after_first=sigmas[1],
            x=step.x[picked],
            x_next=step.x_next[picked],
            v_rollout=step.v[picked],
            noise=step.noise,
            weight=float(step_weights(self.method, sigmas)[i]),
            pixel_map=self._map(work) if self.method.objective.pixel_map else None,
        )

    def _matching(self, work: _Work, position: int, n: int) -> Terms:
        batch, final = work.batch, work.batch.final
        levels = [self._levels(batch, row, n)[position] for row in work.rows]
        x0 = final.x[list(work.rows)]
        s = torch.tensor([final.sigmas[i] for i in levels], device=x0.device)
        noise = normal(self._seeds(batch, work.rows, NOISE, n, position), x0)
        x = noised(x0, noise, s).to(x0.dtype)
        common = self._common(work, levels, lambda: self.policy.velocity(final, levels, x, work.rows))
        target = noise - x0.float()
        if self.method.objective.gradient == "adjoint":
            slope = utility_gradient(lambda x0: self._utilities(batch, work.rows, x0), x0)
            target = adjoint_target(common["v_ref"], slope, s, self.method.objective.lam)
        weight = step_weights(self.method, final.sigmas)[levels].to(x0.device, torch.float32)
        return Terms(**common, s=s, target=target, weight=weight)

    def _common(self, work: _Work, step: int | list[int], velocity: Callable[[], Tensor]) -> dict[str, Any]:
        """Terms of both likelihoods: advantages, groups, and the velocities that the method needs."""
        found: dict[str, Any] = {"method": self.method}
        if self.method.needs_reference:
            with self.policy.using(None):
                found["v_ref"] = velocity()
        if self.method.needs_old:
            with self.policy.using("old"):
                found["v_old"] = velocity()
        found["v"] = v = velocity()
        picked = work.advantage[list(work.rows)]
        picked = picked[np.arange(len(picked)), step] if picked.ndim > 1 else picked
        keys = work.batch.keys(self.method.rollout)
        numbers = {key: number for number, key in enumerate(keys)}
        found["group"] = torch.tensor([numbers[keys[row]] for row in work.rows], device=v.device)
        return found | {"advantage": torch.from_numpy(picked).to(v.device, torch.float32)}

    def _leap_losses(self, batch: Batch, rows: Sequence[int], n: int) -> Tensor:
        """Through the sampler to a differentiable scorer (ReFL, DRaFT-K, LeapAlign)."""
        objective, final = self.method.objective, batch.final
        rng = np.random.default_rng([self.seed, n, POINTS])
        path = [final.steps[i].x[list(rows)] for i in range(self.policy.steps)] + [final.x[list(rows)]]
        x0 = leap(
            lambda i, x: self.policy.velocity(final, i, x.to(final.x.dtype), rows),
            path,
            final.sigmas,
            leap_points(objective, self.policy.steps, rng),
            anchored=objective.gradient == "leap",
            nested=objective.nested,
        )
        return utility_loss(objective, self._utilities(batch, rows, x0))

    def _utilities(self, batch: Batch, rows: Sequence[int], x0: Tensor) -> Tensor:
        assert self._differentiable is not None, "the method needs a differentiable scorer"
        prompts = [batch.starts[row].prompt for row in rows]
        pixels = self.policy.decode(prompts, x0.to(batch.final.x.dtype))
        utilities = torch.zeros(len(rows), device=pixels.device)
        for prompt in dict.fromkeys(prompts):
            same = [n for n, other in enumerate(prompts) if other == prompt]
            utilities[same] = self._differentiable.utilities(prompt, pixels[same]).float()
        return utilities

    def _preserve(self, starts: Sequence[Start], n: int, total: int) -> None:
        """Gradient of the matching error on samples of the reference, which stand for its training data.

        As the prior preservation of DreamBooth (arXiv 2208.12242), it needs no images and no encoder. There
        are `total` samples over all processes.
        """
        seeds = [seed_of(self.seed, n, DATA, start.place) for start in starts]
        with self.policy.using(None), self.accelerator.autocast():
            final = self.policy.draw([start.prompt for start in starts], seeds=seeds, decode=False)
        rows = tuple(range(len(starts)))
        data = Batch(starts=tuple(starts), leaf=(0,) * len(rows), step=-1, final=final, trained=())
        work = _Work(data, np.ones(len(rows)), (), rows)
        count = len(self._levels(data, 0, n))
        for position in range(count):
            with self.accelerator.autocast():
                loss = matched([self._matching(work, position, n)]).float().sum()
            self.accelerator.backward(self.method.objective.data_weight * loss / (count * total))

    def _levels(self, batch: Batch, row: int, n: int) -> tuple[int, ...]:
        """Steps of the grid at whose noise levels a sample is trained."""
        (seed,) = self._seeds(batch, [row], LEVELS, n)
        return matching_levels(self.method.likelihood, self.policy.steps, np.random.default_rng(seed))

    def _seeds(self, batch: Batch, rows: Sequence[int], *use: int) -> list[tuple[int, ...]]:
        """One for each sample, or for each prompt where a group shares its noise."""
        starts, shared = [batch.starts[row] for row in rows], self.method.likelihood.shared_noise
        places = [(s.place, s.number, batch.leaf[row]) for s, row in zip(starts, rows, strict=True)]
        return [(self.seed, *use, *(place[:1] if shared else place)) for place in places]

    def _map(self, work: _Work) -> Tensor:
        """Weights over the latents (ViPO), packed ones too."""
        images, x0 = work.batch.images[list(work.rows)], work.batch.final.x
        if x0.ndim == 4:
            return pixel_map(self._encode(images), (x0.shape[2], x0.shape[3]))[:, None].to(x0.device)
        height = round(math.sqrt(x0.shape[1] * images.shape[2] / images.shape[3]))
        size = (height, x0.shape[1] // height)
        return pixel_map(self._encode(images), size).flatten(1)[..., None].to(x0.device)

    def _total(self, value: float) -> float:
        """The sum over all processes."""
        number = torch.tensor(float(value), dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(number, "sum"))
