"""The training loop: rollouts, rewards, advantages and updates, for whatever method is set.

Groups are dealt to the processes of accelerate; gradients are summed over all of them and divided by the
number of losses, so several processes equal one. Random numbers derive from seeds, so a checkpoint of the
adapters and the optimizer is enough to continue bit by bit:

weights.safetensors   ADAPTER.N, the weights of each adapter in order, and optimizer.N.NAME
state.json            the iteration, the number of updates, the scaler's state, and the settings of the run

Shapes: N samples of an iteration; B of a batch; T steps.
"""

import json
import math
import time
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from prefrm.config import flatten
from prefrm.errors import ConfigError
from prefrm.flow.config import OptimConfig
from prefrm.flow.losses import DREW, Losses, Work
from prefrm.flow.rollout import OLD, Batch, Sample, Sampler, encode_images
from prefrm.flow.settings import Method, Rollout
from prefrm.group_log import GroupLog, LoggedGroup
from prefrm.rewards.chain import diversity, extremes, intrinsic_rewards, members
from prefrm.rewards.samples import Reward
from prefrm.winmatrix import Doubles, Group, WinMatrix

__all__ = ["AVERAGE", "Trainer", "adapters"]

AVERAGE = "average"
"""The adapter with the moving average of the weights."""

WEIGHTS, STATE = "weights.safetensors", "state.json"
# Settings that may change when a run is resumed.
FREE = (
    *("output", "device", "optim.iterations", "checkpoint_every", "report_to", "evaluation", "held_out"),
    "log_groups",
)
# Purpose of a seed, beside those of rollouts and losses.
STEPS = 10
# The average's decay after n updates is at most n / (n + 9), as in diffusers' EMAModel.
WARM_UP = 9


def adapters(method: Method, settings: OptimConfig) -> list[str]:
    """Adapters of the policy that a training needs, beside "default"."""
    several, names = settings.updates > 1, []
    # Without a decay the old policy is the one in training, until an iteration's second update.
    if method.needs_old and (several or method.regularizer.decay > 0):
        names.append(OLD)
    # No rollout records the denominator of a ratio of matching likelihoods.
    ratio = method.likelihood.kind == "matching" and method.objective.kind in ("clipped_ratio", "balance")
    if ratio and several and method.rollout.policy == "current":
        names.append(DREW)
    return names if settings.ema is None else [*names, AVERAGE]


class _Scores(NamedTuple):
    """Rewards [N] of samples by name, and their groups for the log, in order of first appearance."""

    rewards: dict[str, Doubles]
    groups: list[LoggedGroup]


@dataclass(kw_only=True)
class Trainer:
    """Trains the adapter of a policy by a method."""

    losses: Losses  # whose policy has the other `adapters`
    accelerator: Accelerator  # of the process
    sampler: Sampler  # draws the samples by the method's rollout
    rewards: Mapping[str, Reward]  # by name
    weights: Mapping[str, float]  # of the rewards
    settings: OptimConfig
    updates: int = 0  # optimizer steps that are done
    log: GroupLog | None = None  # of the groups of the last iterations

    def __post_init__(self) -> None:
        self.policy, self.method, self.seed = self.losses.policy, self.losses.method, self.losses.seed
        self.parameters, rate, decay = self.policy.parameters(), self.settings.lr, self.settings.weight_decay
        self.optimizer = self.accelerator.prepare(
            torch.optim.AdamW(self.parameters, lr=rate, weight_decay=decay)
        )

    @property
    def kept(self) -> str:
        """Name of the adapter that is evaluated and saved."""
        return "default" if self.settings.ema is None else AVERAGE

    def iteration(self, n: int, prompts: Sequence[str]) -> dict[str, float]:
        """One iteration: the samples of all `prompts`, and the updates. Returns what is logged.

        Raises:
            ConfigError: the loss or the gradient is not finite.
        """
        started = time.monotonic()
        if DREW in self.policy.adapters:
            self.policy.copy_adapter("default", DREW)
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        batches, scores = self._rollout(list(enumerate(prompts))[rank::count], n)
        rolled = time.monotonic()
        advantages, logs = self._advantages(batches, scores.rewards)
        self._write_log(batches, scores.groups, advantages)
        del scores
        turns = np.array_split(np.arange(len(prompts)), self.settings.updates)
        updates = [self._update(batches, advantages, n, set(places.tolist())) for places in turns]
        if OLD in self.policy.adapters:
            self.policy.copy_adapter("default", OLD, decay=self.method.regularizer.decay_at(n))
        logs |= {name: float(np.mean([one[name] for one in updates])) for name in updates[0]}
        logs["images"] = self._total(sum(len(batch.samples) for batch in batches))
        return logs | {"seconds_rollout": rolled - started, "seconds_update": time.monotonic() - rolled}

    def _rollout(self, prompts: Sequence[tuple[int, str]], n: int) -> tuple[list[Batch], _Scores]:
        """The samples of this process; a thread scores groups while the next ones are drawn."""
        rng = np.random.default_rng([self.seed, n, STEPS])
        stochastic = self.method.rollout.stochastic.draw(n, self.policy.steps, rng)
        batches, waiting, thread = list[Batch](), [], ThreadPoolExecutor(1)
        try:
            with self.accelerator.autocast():
                for starts in self.sampler.jobs(prompts):
                    drawn = self.sampler.draw(self._explored(starts, n, thread), stochastic, n)
                    waiting.append(thread.submit(self._scores, drawn, n))
                    batches += drawn
            scored = [one.result() for one in waiting]
        finally:
            # After an error or an interrupt, nothing that is left is scored.
            thread.shutdown(cancel_futures=True)
        return batches, _Scores(
            {name: np.concatenate([one.rewards[name] for one in scored]) for name in self.rewards},
            [group for one in scored for group in one.groups],
        )

    def _explored(self, starts: Sequence[Sample], n: int, thread: Executor) -> Sequence[Sample]:
        """Of explored starts, the best and the worst of each prompt, by cheap samples (Sol-RL)."""
        rule = self.method.rollout
        if rule.explore == 1:
            return starts
        rewards = thread.submit(self._scores, self.sampler.preview(starts, n)).result().rewards
        best, worst = rule.keep_best / rule.explore, rule.keep_worst / rule.explore
        places = [start.place for start in starts]
        return [starts[i] for i in extremes(rewards, places, weights=self.weights, best=best, worst=worst)]

    def _scores(self, batches: Sequence[Batch], n: int | None = None) -> _Scores:
        """Rewards of whole groups; those of iteration `n` are for the log, too."""
        keys = [key for batch in batches for key in batch.keys(self.method.rollout)]
        prompts = [sample.prompt for batch in batches for sample in batch.samples]
        images = encode_images(torch.cat([batch.images for batch in batches]))
        matrices: dict[tuple[int, ...], dict[str, WinMatrix]] = {}

        def rewards(name: str, reward: Reward) -> Doubles:
            def each(places: Sequence[int], matrix: WinMatrix) -> None:
                matrices.setdefault(tuple(places), {})[name] = matrix

            return reward.rewards(prompts, images, keys, each=each)

        found = {name: rewards(name, reward) for name, reward in self.rewards.items()}
        if self.log is None or n is None:
            return _Scores(found, [])
        groups = [
            LoggedGroup(
                group=Group(prompt=prompts[places[0]], candidates=tuple(images[k] for k in places)),
                matrices=matrices.get(tuple(places), {}),
                rewards={name: values[places].tolist() for name, values in found.items()},
                step=n + 1,
            )
            for places in _comparable(keys)
        ]
        return _Scores(found, groups)

    def _write_log(
        self, batches: Sequence[Batch], groups: Sequence[LoggedGroup], advantages: Sequence[Doubles]
    ) -> None:
        """Log the groups of all batches with their advantages, of each sample the mean over steps."""
        if self.log is None:
            return
        keys = [key for batch in batches for key in batch.keys(self.method.rollout)]
        shown = np.concatenate([one.mean(axis=1) for one in advantages])
        pairs = zip(groups, _comparable(keys), strict=True)
        self.log.add([replace(group, advantages=shown[places].tolist()) for group, places in pairs])

    def _advantages(
        self, batches: Sequence[Batch], rewards: dict[str, Doubles]
    ) -> tuple[list[Doubles], dict[str, float]]:
        """Of each batch [B, 1] or [B, T - 1], from the rewards of all processes; NaN where there is none."""
        method, rule, steps = self.method, self.method.rollout, self.policy.steps
        own, rank = [key for batch in batches for key in batch.keys(rule)], self.accelerator.process_index
        keys = [tuple(key) for key in self._gathered(np.array(own)).tolist()]
        mine = self._gathered(np.full(len(own), rank)) == rank
        named = {name: self._gathered(r) for name, r in rewards.items()}
        distances = None
        if method.intrinsic:
            with self.accelerator.autocast():
                scores = torch.cat([self.losses.confidence(batch) for batch in batches]).cpu().numpy()
            levels = batches[0].final.sigmas[steps // 2 : steps]
            named["confidence"] = intrinsic_rewards(self._gathered(scores), levels)
        if method.advantage.diversity:
            # A process has whole groups.
            encoded = [self.losses.encode(batch.images).flatten(1).cpu() for batch in batches]
            distances = self._gathered(diversity(torch.cat(encoded).numpy(), own))
        logs = {f"reward/{name}": float(np.nanmean(r)) for name, r in named.items() if not np.isnan(r).all()}
        logs["missing"] = float(np.mean([np.isnan(r).mean() for r in named.values()])) if named else 0.0
        if method.objective.differentiates:
            a = np.ones(len(keys))
        else:
            a = method.advantage.advantages(
                named, keys, weights=self.weights, distances=distances, steps=steps - 1
            )
            if rule.explore == 1 and (rule.keep_best or rule.keep_worst):
                ranked = {"advantage": a.reshape(len(keys), -1).mean(axis=1)}
                kept = extremes(ranked, keys, weights={}, best=rule.keep_best, worst=rule.keep_worst)
                a[~np.isin(np.arange(len(a)), kept)] = np.nan
        ends = np.cumsum([len(batch.samples) for batch in batches])[:-1]
        return np.split(a[mine].reshape(len(own), -1), ends), logs

    def _gathered(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The rows of all processes, in their order."""
        here = torch.from_numpy(rows).to(self.accelerator.device)
        counts = self.accelerator.gather(torch.tensor([len(here)], device=here.device)).tolist()
        blocks = self.accelerator.gather(self.accelerator.pad_across_processes(here)).split(max(counts))
        whole = [block[:count] for block, count in zip(blocks, counts, strict=True)]
        return np.asarray(torch.cat(whole).cpu().numpy())

    def _update(
        self, batches: Sequence[Batch], advantages: Sequence[Doubles], n: int, places: set[int]
    ) -> dict[str, float]:
        """One optimizer step on the groups of some prompts."""
        pairs = zip(batches, advantages, strict=True)
        with self.accelerator.autocast():
            work = [one for batch, a in pairs for one in self.losses.work(batch, a, places)]
        loss, count = self._backward(work)
        if self.method.objective.data_weight:
            prompts = {sample.place: sample.prompt for batch in batches for sample in batch.samples}
            # From a noise that no sample of the rollout starts from.
            unused = self.sampler.group * self.method.rollout.explore
            starts = [Sample(prompts[place], place, unused) for place in sorted(places & {*prompts})]
            with self.policy.using(None), self.accelerator.autocast():
                drawn = replace(self.sampler, rule=Rollout()).draw(starts, (), n)
            loss += self._backward([one for batch in drawn for one in self.losses.data(batch)])[0]
        norm = self._step(loss, n)
        return {"loss": loss, "grad_norm": norm, "lr": self.optimizer.param_groups[0]["lr"], "trained": count}

    def _backward(self, work: Sequence[Work]) -> tuple[float, float]:
        """Gradient of the mean loss over the rows of all processes; returns the mean and their number."""
        count = self._total(sum(len(one.rows) for one in work))
        loss = 0.0
        for one in work:
            with self.accelerator.autocast():
                part = self.losses.of(one).float().sum() / count
            self.accelerator.backward(part)
            loss += float(part.detach())
        return self._total(loss), count

    def _step(self, loss: float, n: int) -> float:
        """Step by the gradient of all processes; returns its norm."""
        for parameter in self.parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(gradient, "sum")
        norm = float(self.accelerator.clip_grad_norm_(self.parameters, self.settings.max_grad_norm))
        # With a scaler, an overflow is skipped, and the scale falls.
        if not (math.isfinite(loss) and (math.isfinite(norm) or self.accelerator.scaler is not None)):
            raise ConfigError(
                f"iteration {n}: the loss is {loss:g} and the gradient's norm {norm:g}; lower optim.lr "
                f"(now {self.settings.lr:g}) or the method's noise"
            )
        self.updates += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(self.updates)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.settings.ema is not None:
            warm = self.updates / (self.updates + WARM_UP) if self.updates > 1 else 0.0
            self.policy.copy_adapter("default", AVERAGE, decay=min(self.settings.ema, warm))
        return norm

    def _total(self, value: float) -> float:
        """The sum over all processes."""
        return float(self._gathered(np.array([value], dtype=np.float64)).sum())

    def save(self, folder: Path, iteration: int, settings: Mapping[str, Any]) -> None:
        """Fill an empty folder, after an iteration of a run with these settings."""
        states = self.optimizer.state_dict()["state"].items()
        optimizer = {f"optimizer.{n}.{name}": tensor for n, state in states for name, tensor in state.items()}
        tensors = {name: tensor.detach().cpu() for name, tensor in (self._adapters() | optimizer).items()}
        save_file(tensors, folder / WEIGHTS)
        scaler = self.accelerator.scaler
        state = {
            "iteration": iteration,
            "updates": self.updates,
            "scaler": None if scaler is None else scaler.state_dict(),
            "settings": settings,
        }
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, folder: Path, settings: Mapping[str, Any]) -> int:
        """Restore what `save` wrote; returns the number of iterations that are done.

        Raises:
            ConfigError: the checkpoint is of a run with other settings.
        """
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        before, now = flatten(state["settings"]), flatten(settings)
        changed = ", ".join(
            f"{key} was {before.get(key)!r} and is {now.get(key)!r}"
            for key in {**before, **now}
            if before.get(key) != now.get(key) and not key.startswith(FREE)
        )
        if changed:
            raise ConfigError(f"{folder} is of a run with other settings: {changed}; set them as they were")
        tensors = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, weight in self._adapters().items():
                weight.copy_(tensors.pop(name))
        optimizer = self.optimizer.state_dict()
        for key, tensor in tensors.items():
            _, n, name = key.split(".")
            optimizer["state"].setdefault(int(n), {})[name] = tensor
        self.optimizer.load_state_dict(optimizer)
        self.updates = state["updates"]
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        return int(state["iteration"])

    def _adapters(self) -> dict[str, torch.Tensor]:
        policy = self.policy
        return {f"{name}.{n}": w for name in policy.adapters for n, w in enumerate(policy.parameters(name))}


def _comparable(keys: Sequence[Hashable]) -> list[list[int]]:
    """Places of the samples of each group that has two at least."""
    return [places for places in members(keys) if len(places) > 1]
