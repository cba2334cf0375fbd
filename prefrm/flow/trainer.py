"""The training loop: rollouts, rewards, advantages, and the losses of whatever method is set.

Groups are dealt to the processes of accelerate; gradients are summed over all of them and divided by the number of
losses, so several processes equal one. Every random number derives from the run's seed and its place, so no state
of a generator is kept. Shapes: N samples of an iteration; B of a batch; R rows of it; T steps.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor

from prefrm.errors import ConfigError
from prefrm.flow.gradients import (
    DifferentiableScorer,
    adjoint_target,
    leap,
    leap_points,
    utility_gradient,
    utility_loss,
)
from prefrm.flow.likelihood import Terms, matching_levels, matching_terms, noised, probe_scores, transition_terms
from prefrm.flow.maps import pixel_map
from prefrm.flow.objectives import data_loss, sample_losses, step_weights
from prefrm.flow.pipelines import Policy
from prefrm.flow.recording import Plan
from prefrm.flow.rollout import Batch, Sampler, Start, normal, seed_of
from prefrm.flow.scoring import Scoring, features
from prefrm.flow.settings import Method
from prefrm.flow.steps import split_units, stochastic_steps, trained_units
from prefrm.rewards.chain import intrinsic_rewards, select
from prefrm.rewards.numbers import Doubles

__all__ = ["OptimizerSettings", "Trainer"]

# What a seed is for, beside those of rollouts.
STEPS, UNITS, LEVELS, NOISE, PROBES, POINTS, DATA = range(10, 17)
# Columns of the table that processes share: prompt, start, step; then rewards, then features.
KEYS = 3
CONFIDENCE = "confidence"
# SOLACE: eight antithetic probes.
HALF_PROBES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSettings:
    """AdamW with a linear warm-up.

    Attributes:
        lr: learning rate.
        warmup: optimizer steps over which it rises.
        weight_decay: decoupled.
        max_grad_norm: gradients are clipped to this norm.
        updates: optimizer steps of an iteration, each on an equal part of its groups.
        batch: samples in one forward pass, at most, but for groups that a loss joins.
        ema: decay of the moving average of the weights that is evaluated and saved; null saves the weights.
    """

    lr: float = 3e-4
    warmup: int = 0
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    updates: int = 1
    batch: int = 32
    ema: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "max_grad_norm", "updates", "batch"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive and finite; received {getattr(self, name)}")
        if min(self.warmup, self.weight_decay) < 0 or not 0 <= (self.ema or 0) < 1:
            raise ConfigError("warmup and weight_decay must not be negative, and ema must be in [0, 1)")


class _Work(NamedTuple):
    """Rows of a batch whose losses are computed in one pass, for one unit of its steps or levels."""

    batch: int
    unit: tuple[int, ...]
    rows: tuple[int, ...]


class Trainer:
    """Trains the adapter of a policy by a method.

    Args:
        policy: probed; with an adapter "old" where `method.needs_old`.
        method: row of settings.
        accelerator: of the process.
        sampler: draws the samples; its rule is the method's.
        scoring: gives the rewards; of no names where the method needs none.
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
        settings: OptimizerSettings,
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
        """One iteration: samples of all `prompts`, and the updates. Returns what is logged.

        Raises:
            ConfigError: the loss or the gradient is not finite.
        """
        clock = [time.monotonic()]
        rng = np.random.default_rng([self.seed, n, STEPS])
        stochastic = stochastic_steps(self.method.rollout.stochastic, n, self.policy.steps, rng)
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        batches, rewards = self._rollout(list(enumerate(prompts))[rank::count], stochastic, n)
        clock.append(time.monotonic())
        advantages, logs = self._advantages(batches, rewards)
        losses = []
        for update in range(self.settings.updates):
            losses.append(self._update(batches, advantages, n, update))
        if self.method.needs_old:
            self.policy.copy_adapter("default", "old", decay=self.method.regularizer.decay_at(n))
        clock.append(time.monotonic())
        means = {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
        seconds = {"seconds_rollout": clock[1] - clock[0], "seconds_update": clock[2] - clock[1]}
        return {**logs, **means, **seconds, "images": float(self._total(sum(len(b.starts) for b in batches)))}

    def weights_to_keep(self) -> Any:
        """A block in which the policy has the weights that are evaluated and saved."""
        return nullcontext() if self.ema is None else _averaged(self.ema, self.parameters)

    # Rollout and rewards

    def _rollout(
        self, prompts: Sequence[tuple[int, str]], stochastic: Sequence[int], n: int
    ) -> tuple[list[Batch], dict[str, Doubles]]:
        """The samples of this process, scored group by group while the next ones are drawn."""
        batches: list[Batch] = []
        waiting = []
        with self.accelerator.autocast(), torch.no_grad():
            for starts in self._sampler.jobs(prompts):
                drawn = self._sampler.draw(self._selected(starts, n), stochastic, n)
                batches += drawn
                waiting.append(self._submitted(drawn))
        scored = [one.result() for one in waiting]
        return batches, {name: np.concatenate([one[name] for one in scored]) for name in self._scoring.names}

    def _submitted(self, drawn: Sequence[Batch]) -> Any:
        keys = [key for batch in drawn for key in batch.keys(self.method.rollout)]
        prompts = [prompt for batch in drawn for prompt in batch.prompts]
        return self._scoring.submit(prompts, torch.cat([batch.images for batch in drawn]), keys)

    def _selected(self, starts: Sequence[Start], n: int) -> list[Start]:
        """Of explored starts, the best and the worst of each prompt, by cheap samples (Sol-RL)."""
        rule = self.method.rollout
        if rule.explore == 1:
            return list(starts)
        rewards = self._submitted(self._sampler.preview(starts, n)).result()
        total = np.sum([self._weights[name] * r for name, r in rewards.items()], axis=0)
        keys = [start.place for start in starts]
        return [starts[i] for i in select(total, keys, best=rule.keep_best, worst=rule.keep_worst)]

    def _advantages(
        self, batches: Sequence[Batch], rewards: dict[str, Doubles]
    ) -> tuple[list[Doubles], dict[str, float]]:
        """Of each batch [B] or [B, T - 1]; NaN where a sample has none. Rewards are those of all processes."""
        method, sizes = self.method, [len(batch.starts) for batch in batches]
        if method.objective.kind == "gradient":
            return [np.ones(size) for size in sizes], {}
        columns = [np.array([(s.place, s.number, batch.step) for batch in batches for s in batch.starts])]
        columns += [r[:, None] for r in rewards.values()]
        if method.intrinsic:
            columns.append(np.concatenate([self._confidence(batch) for batch in batches]))
        if method.advantage.diversity:
            columns.append(np.concatenate([self._encode(b.images).flatten(1).cpu().numpy() for b in batches]))
        table, mine = self._gathered(np.concatenate(columns, axis=1))
        keys = [tuple(key) for key in table[:, :KEYS].astype(int).tolist()]
        if method.rollout.key != "prompt_seed_step":
            keys = [(place, step) for place, _, step in keys]
        split = KEYS + len(rewards)
        named = {name: table[:, KEYS + i] for i, name in enumerate(rewards)}
        if method.intrinsic:
            levels = batches[0].final.sigmas[self.policy.steps // 2 : self.policy.steps]
            scores = table[:, split : split + len(levels)]
            named[CONFIDENCE], split = intrinsic_rewards(scores, levels), split + len(levels)
        a = method.advantage.advantages(
            named,
            keys,
            weights={name: self._weights[name] for name in rewards},
            features=table[:, split:] if method.advantage.diversity else None,
            steps=self.policy.steps - 1,
        )
        rule = method.rollout
        if rule.explore == 1 and (rule.keep_best or rule.keep_worst):
            total = np.sum([self._weights.get(name, 1.0) * r for name, r in named.items()], axis=0)
            dropped = np.ones(len(a), dtype=bool)
            dropped[select(total, keys, best=rule.keep_best, worst=rule.keep_worst)] = False
            a[dropped] = np.nan
        logs = {f"reward/{name}": float(np.nanmean(r)) for name, r in named.items() if not np.isnan(r).all()}
        logs["missing"] = float(np.mean([np.isnan(r).mean() for r in named.values()]))
        return np.split(a[mine], np.cumsum(sizes)[:-1]), logs

    def _gathered(self, table: Doubles) -> tuple[Doubles, slice]:
        """The rows of all processes, and which of them are this one's."""
        rows = torch.from_numpy(table).to(self.accelerator.device)
        padded = self.accelerator.pad_across_processes(rows, pad_index=-1)
        everything = self.accelerator.gather(padded).cpu().numpy()
        start = len(padded) * self.accelerator.process_index
        real = everything[:, 0] >= 0
        before = int(real[:start].sum())
        return everything[real], slice(before, before + len(table))

    def _confidence(self, batch: Batch) -> Doubles:
        """Probe scores [B, steps] of the policy in its own samples (SOLACE)."""
        steps = range(self.policy.steps // 2, self.policy.steps)
        noise = [normal(self._seeds(batch, range(len(batch.starts)), PROBES, h), batch.final.x) for h in range(HALF_PROBES)]
        with torch.no_grad(), self.accelerator.autocast():
            scores = probe_scores(
                lambda i, x: self.policy.velocity(batch.final, i, x.to(batch.final.x.dtype)),
                batch.final.x,
                noise,
                steps,
                batch.final.sigmas,
            )
        return scores.double().cpu().numpy()

    # Updates

    def _update(self, batches: Sequence[Batch], advantages: Sequence[Doubles], n: int, update: int) -> dict[str, float]:
        """One optimizer step on a part of the groups."""
        work = [one for b, a in enumerate(advantages) for one in self._work(b, batches[b], a, n, update)]
        count = self._total(sum(len(one.rows) for one in work))
        total = 0.0
        for one in work:
            with self.accelerator.autocast():
                losses = self._losses(batches[one.batch], one, advantages[one.batch], n)
            self.accelerator.backward(losses.float().sum() / max(count, 1))
            total += float(losses.detach().sum())
        for loss in self._data_losses(batches, n, update):
            self.accelerator.backward(loss)
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "sum")
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        loss = self._total(total) / max(count, 1)
        if not (math.isfinite(loss) and (math.isfinite(norm) or self.accelerator.scaler is not None)):
            raise ConfigError(
                f"iteration {n}: the loss is {loss:g} and the gradient's norm {norm:g}; lower optim.lr "
                f"(now {self.settings.lr:g}) or the method's noise"
            )
        lr = self.settings.lr * min(1.0, (self.updates + 1) / max(self.settings.warmup, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.ema is not None:
            self.ema.step(self.parameters)
        return {"loss": loss, "grad_norm": norm, "lr": lr, "trained": float(count)}

    def _work(self, index: int, batch: Batch, advantage: Doubles, n: int, update: int) -> Iterator[_Work]:
        """Units of steps or levels with the rows that they train; samples of no advantage are skipped."""
        method = self.method
        known = np.isfinite(advantage) & (advantage != 0)
        known = known.any(axis=1) if advantage.ndim > 1 else known
        places = np.array([start.place for start in batch.starts])
        keys = batch.keys(method.rollout)
        if method.objective.within_group:
            wanted = {keys[i] for i in np.flatnonzero(known)}
            finite = np.isfinite(advantage if advantage.ndim == 1 else advantage[:, 0])
            known = np.array([key in wanted for key in keys]) & finite
        turn = places // self.accelerator.num_processes % self.settings.updates == update
        count = 1
        if method.likelihood.kind == "matching":
            count = len(self._levels(batch, 0, n))
        elif method.objective.kind != "gradient":
            count = len(batch.trained)
        units = split_units(count, method.likelihood.chunks)
        rng = np.random.default_rng([self.seed, n, UNITS, batch.starts[0].place, batch.starts[0].number, batch.step + 1])
        chosen = trained_units(method.rollout.stochastic.trained, len(units), len(batch.starts), rng)
        for u, unit in enumerate(units):
            rows = np.flatnonzero(known & turn & chosen[:, u])
            for part in self._parts(rows, keys):
                yield _Work(index, unit, part)

    def _parts(self, rows: Any, keys: Sequence[Any]) -> Iterator[tuple[int, ...]]:
        """Rows of one forward pass: groups stay together where a loss joins them."""
        size = self.settings.batch
        if not self.method.objective.within_group:
            yield from (tuple(int(r) for r in rows[i : i + size]) for i in range(0, len(rows), size))
            return
        groups: dict[Any, list[int]] = {}
        for row in rows:
            groups.setdefault(keys[row], []).append(int(row))
        part: list[int] = []
        for members in groups.values():
            if part and len(part) + len(members) > size:
                yield tuple(part)
                part = []
            part += members
        if part:
            yield tuple(part)

    def _losses(self, batch: Batch, work: _Work, advantage: Doubles, n: int) -> Tensor:
        """[R]."""
        if self.method.objective.gradient not in ("", "adjoint"):
            return self._leap_losses(batch, work.rows, n)
        keys = batch.keys(self.method.rollout)
        numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        group = torch.tensor([numbers[keys[row]] for row in work.rows], device=batch.final.x.device)
        terms = self._matching if self.method.likelihood.kind == "matching" else self._transition
        return sample_losses(
            self.method, [terms(batch, position, work.rows, advantage, group, n) for position in work.unit]
        )

    def _transition(
        self, batch: Batch, position: int, rows: Sequence[int], advantage: Doubles, group: Tensor, n: int
    ) -> Terms:
        recording, i, places = batch.trained[position]
        picked = [places[row] for row in rows]
        # Leaves of a tree share nodes.
        nodes = sorted(set(picked))
        back = torch.tensor([nodes.index(place) for place in picked])
        step, sigmas = recording.steps[i], recording.sigmas
        velocities = self._velocities(lambda: self.policy.velocity(recording, i, rows=nodes)[back])
        return transition_terms(
            self.method,
            x=step.x[picked],
            x_next=step.x_next[picked],
            s=sigmas[i],
            s_next=sigmas[i + 1],
            s_after_first=sigmas[1],
            advantage=_column(advantage, rows, i, step.x.device),
            v_rollout=step.v[picked],
            noise=step.noise,
            weight=float(step_weights(self.method, sigmas)[i]),
            group=group,
            pixel_map=self._map(batch, rows) if self.method.objective.pixel_map else None,
            **velocities,
        )

    def _matching(
        self, batch: Batch, position: int, rows: Sequence[int], advantage: Doubles, group: Tensor, n: int
    ) -> Terms:
        recording = batch.final
        levels = [self._levels(batch, row, n)[position] for row in rows]
        at = levels[0] if len(set(levels)) == 1 else levels
        x0 = recording.x[list(rows)]
        s = torch.tensor([recording.sigmas[i] for i in levels], device=x0.device)
        noise = normal(self._seeds(batch, rows, NOISE, n, position), x0)
        x = noised(x0, noise, s).to(x0.dtype)
        velocities = self._velocities(lambda: self.policy.velocity(recording, at, x, rows))
        weights = step_weights(self.method, recording.sigmas)
        target = None
        if self.method.objective.gradient == "adjoint":
            slope = utility_gradient(lambda x0: self._utilities(batch, rows, x0), x0)
            target = adjoint_target(velocities["v_ref"], slope, s, self.method.objective.scale)
        return matching_terms(
            self.method,
            x0=x0,
            noise=noise,
            s=s,
            advantage=_column(advantage, rows, levels[0], x0.device),
            weight=weights[levels].to(x0.device),
            group=group,
            target=target,
            **velocities,
        )

    def _velocities(self, velocity: Callable[[], Tensor]) -> dict[str, Tensor]:
        """Of the policy, with a gradient, and of the others that the method needs."""
        found = {}
        for name, adapter, needed in (
            ("v_ref", None, self.method.needs_reference),
            ("v_old", "old", self.method.needs_old),
        ):
            if needed:
                with self.policy.using(adapter):
                    found[name] = velocity()
        return found | {"v": velocity()}

    def _leap_losses(self, batch: Batch, rows: Sequence[int], n: int) -> Tensor:
        """Through the sampler to a differentiable scorer (ReFL, DRaFT-K, LeapAlign)."""
        objective, recording = self.method.objective, batch.final
        rng = np.random.default_rng([self.seed, n, POINTS, batch.starts[0].place])
        path = [recording.steps[i].x[list(rows)] for i in range(self.policy.steps)] + [recording.x[list(rows)]]
        x0 = leap(
            lambda i, x: self.policy.velocity(recording, i, x.to(path[0].dtype), rows),
            path,
            recording.sigmas,
            leap_points(objective, self.policy.steps, rng),
            anchored=objective.gradient == "leap",
            nested=objective.nested,
        )
        return utility_loss(objective, self._utilities(batch, rows, x0))

    def _utilities(self, batch: Batch, rows: Sequence[int], x0: Tensor) -> Tensor:
        assert self._differentiable is not None, "the method needs a differentiable scorer"
        prompts = [batch.starts[row].prompt for row in rows]
        pixels = self.policy.decode(prompts, x0.to(batch.final.x.dtype))
        utilities = torch.empty(len(rows), device=pixels.device)
        for prompt in dict.fromkeys(prompts):
            same = [n for n, other in enumerate(prompts) if other == prompt]
            utilities[same] = self._differentiable.utilities(prompt, pixels[same]).float()
        return utilities

    def _data_losses(self, batches: Sequence[Batch], n: int, update: int) -> Iterator[Tensor]:
        """The matching error on samples of the reference, which stand for its training data.

        As prior preservation of DreamBooth (arXiv 2208.12242): no autoencoder is asked to encode images.
        """
        if not self.method.objective.data_weight or not batches:
            return
        starts = [start for start in batches[0].starts[: self.settings.batch]]
        seeds = [seed_of(self.seed, n, DATA, update, s.place, s.number) for s in starts]
        with self.policy.using(None), self.accelerator.autocast():
            final = self.policy.draw([s.prompt for s in starts], seeds=seeds, plan=Plan(), decode=False)
        data = Batch(starts=tuple(starts), leaf=(0,) * len(starts), step=-1, final=final, trained=())
        count = len(self._levels(data, 0, n))
        rows, ones = range(len(starts)), np.ones(len(starts))
        for position in range(count):
            with self.accelerator.autocast():
                terms = self._matching(data, position, rows, ones, torch.arange(len(starts)), n)
                loss = data_loss(self.method, terms).float().mean()
            yield loss / count / self.accelerator.num_processes

    def _levels(self, batch: Batch, row: int, n: int) -> tuple[int, ...]:
        """Steps of the grid at whose levels a sample is trained."""
        (seed,) = self._seeds(batch, [row], LEVELS, n)
        return matching_levels(self.method.likelihood, self.policy.steps, np.random.default_rng(seed))

    def _seeds(self, batch: Batch, rows: Sequence[int], *use: int) -> list[tuple[int, ...]]:
        """Of each sample, or of its prompt where a group shares its noise."""
        shared = self.method.likelihood.shared_noise
        return [
            (self.seed, *use, start.place, 0 if shared else 1 + start.number, 0 if shared else batch.leaf[row])
            for row, start in ((row, batch.starts[row]) for row in rows)
        ]

    def _map(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """Weights over the latents (ViPO)."""
        images, x0 = batch.images[list(rows)], batch.final.x
        if x0.ndim == 4:
            return pixel_map(self._encode(images), (x0.shape[2], x0.shape[3]))[:, None].to(x0.device)
        height = round(math.sqrt(x0.shape[1] * images.shape[2] / images.shape[3]))
        return pixel_map(self._encode(images), (height, x0.shape[1] // height)).flatten(1)[..., None]

    def _total(self, value: float) -> float:
        """The sum over all processes."""
        number = torch.tensor(float(value), dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(number, "sum"))


def _column(advantage: Doubles, rows: Sequence[int], step: int, device: Any) -> Tensor:
    picked = advantage[list(rows)]
    return torch.from_numpy(picked[:, step] if picked.ndim > 1 else picked).float().to(device)


class _averaged:
    """The moving average in place of the weights."""

    def __init__(self, ema: EMAModel, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._ema, self._parameters = ema, parameters

    def __enter__(self) -> None:
        self._ema.store(self._parameters)
        self._ema.copy_to(self._parameters)

    def __exit__(self, *error: object) -> None:
        self._ema.restore(self._parameters)
