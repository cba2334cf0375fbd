"""The overhead of `prefrm.flow` beside a loop over `diffusers`: DiffusionNFT on Stable Diffusion 3.

Both draw the same numbers of images in the same steps, encode them as PNG, take rewards that cost nothing and
train an adapter of the same size at the same noise levels. They alternate, and a figure is the median of the
rounds: of the process's CPU time on one thread, or on a GPU of wall-clock time.

Shapes: N images; T steps.
"""

import json
import statistics
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig
from torch import Tensor

from prefrm.bench.meters import describe_device, wait_for
from prefrm.bench.provenance import versions
from prefrm.bench.training import one_thread_on_cpu
from prefrm.display import markdown_table
from prefrm.errors import ConfigError
from prefrm.flow.config import LORA_TARGETS, OptimConfig, PolicyConfig
from prefrm.flow.losses import Losses
from prefrm.flow.methods import method
from prefrm.flow.pipelines import Policy, load_pipeline
from prefrm.flow.rollout import Sampler, encode_images
from prefrm.flow.settings import with_settings
from prefrm.flow.trainer import Trainer
from prefrm.judge.model import resolve_device
from prefrm.progress import track
from prefrm.rewards.samples import Pointwise

__all__ = ["FlowReport", "Loop", "PlainLoop", "PrefrmLoop", "Settings", "bench_flow", "plain_loss"]

# On-policy and without the distance to the reference: one forward and one backward pass for each noise level.
METHOD = with_settings(method("nft"), {"regularizer": {"reference": 0.0, "decay": 0.0, "ramp": 0.0}})
OPTIM = OptimConfig()
RANK = 32
TIMESTEPS = 1000
# Costs nothing, and differs within a group.
REWARD = Pointwise(lambda prompt, image: float(zlib.crc32(image)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Sizes of an iteration, and how often it is measured."""

    model: str = "shapes-flow"  # as `PolicyConfig.model`: a pipeline of Stable Diffusion 3
    prompts: tuple[str, ...] = ("a red circle", "two stars", "a circle above a square", "a blue star")
    group: int = 8  # images of a prompt
    steps: int = 10  # T
    rounds: int = 5
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Medians of one of the two loops.

    Attributes:
        images_per_second: of rollouts.
        update_seconds: of an iteration without its rollout.
        iteration_seconds: of both together.
    """

    images_per_second: float
    update_seconds: float
    iteration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowReport:
    """Both loops.

    Attributes:
        device: for people.
        clock: "CPU" or "wall-clock".
        settings: of the benchmark.
        versions: of what ran.
    """

    device: str
    clock: str
    settings: Settings
    versions: dict[str, str]
    prefrm: Loop
    plain: Loop

    @property
    def overhead(self) -> float:
        """Share by which an iteration takes longer than the plain loop's; negative if it takes less."""
        return self.prefrm.iteration_seconds / self.plain.iteration_seconds - 1

    def to_json(self) -> str:
        """Of plain data."""
        return json.dumps(asdict(self) | {"overhead": self.overhead}, indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """A sentence and a table."""
        settings, body = self.settings, []
        for name, loop in (("prefrm", self.prefrm), ("diffusers", self.plain)):
            seconds = (f"{one:.3f}" for one in (loop.update_seconds, loop.iteration_seconds))
            body.append([name, f"{loop.images_per_second:.1f}", *seconds])
        header = ["loop", "images a second of rollout", "seconds an update", "seconds an iteration"]
        return (
            f"{self.device}: {settings.model}, {len(settings.prompts) * settings.group} images in "
            f"{settings.steps} steps; {self.clock} time, medians of {settings.rounds} alternating rounds. An "
            f"iteration takes {self.overhead:+.1%}.\n\n{markdown_table(header, body)}\n"
        )


class PrefrmLoop:
    """`prefrm.flow.trainer.Trainer`."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._prompts = settings.prompts
        policy = Policy(
            _pipeline(settings, device),
            PolicyConfig(model=settings.model, steps=settings.steps, rank=RANK, alpha=RANK),
        )
        policy.probe(settings.prompts[0])
        count = len(settings.prompts) * settings.group
        self._trainer = Trainer(
            losses=Losses(policy=policy, method=METHOD, batch=count, seed=0),
            accelerator=Accelerator(cpu=device.type == "cpu"),
            sampler=Sampler(
                policy, METHOD.rollout, settings.group, count, 0, settings.steps, keep_path=False
            ),
            rewards={"reward": REWARD},
            weights={"reward": 1.0},
            settings=OPTIM,
        )

    def rollout(self, n: int) -> None:
        """Draw all images of an iteration."""
        sampler = self._trainer.sampler
        for starts in sampler.jobs([*enumerate(self._prompts)]):
            sampler.draw(starts, (), n)

    def iteration(self, n: int) -> None:
        """Draw, score and train."""
        self._trainer.iteration(n, self._prompts)


class PlainLoop:
    """What one would write first: the pipeline draws, and its transformer is trained at noised images."""

    def __init__(self, settings: Settings, device: torch.device) -> None:
        self._settings, self._device, self._pipe = settings, device, _pipeline(settings, device)
        self._transformer = self._pipe.transformer.requires_grad_(False)
        self._transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[*LORA_TARGETS]))
        self._weights = [weight for weight in self._transformer.parameters() if weight.requires_grad]
        for weight in self._weights:
            weight.data = weight.data.float()
        self._optimizer = torch.optim.AdamW(self._weights, lr=OPTIM.lr, weight_decay=OPTIM.weight_decay)

    def rollout(self, n: int) -> tuple[Tensor, Tensor]:
        """Images and latents, [N, ...] each."""
        latents: list[Tensor] = []

        def keep(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            latents[:] = [values["latents"]]
            return {}

        images = self._pipe(
            [*self._settings.prompts],
            num_images_per_prompt=self._settings.group,
            num_inference_steps=self._settings.steps,
            guidance_scale=0.0,
            generator=torch.Generator().manual_seed(n),
            output_type="pt",
            callback_on_step_end=keep,
        ).images
        return images, latents[0]

    def iteration(self, n: int) -> None:
        """Draw, score and train."""
        images, x0 = self.rollout(n)
        prompts = [prompt for prompt in self._settings.prompts for _ in range(self._settings.group)]
        rewards = REWARD.rewards(prompts, encode_images(images), prompts)
        groups = torch.from_numpy(rewards).float().reshape(-1, self._settings.group)
        a = (groups - groups.mean(1, keepdim=True)).flatten() / (groups.std(correction=0) + 1e-4)
        self._update(x0, a.clamp(-5, 5).to(self._device) / 5)

    def _update(self, x0: Tensor, a: Tensor) -> None:
        settings, levels = self._settings, self._pipe.scheduler.sigmas[: self._settings.steps - 1]
        with torch.no_grad():
            embeds, _, pooled, _ = self._pipe.encode_prompt(
                [*settings.prompts],
                None,
                None,
                do_classifier_free_guidance=False,
                num_images_per_prompt=settings.group,
            )
        for s in levels.to(self._device):
            noise = torch.randn_like(x0)
            v = self._transformer(
                hidden_states=(1 - s) * x0 + s * noise,
                timestep=(TIMESTEPS * s).expand(len(x0)),
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
            (plain_loss(v, noise - x0, s, a).mean() / len(levels)).backward()
        torch.nn.utils.clip_grad_norm_(self._weights, OPTIM.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()


def plain_loss(v: Tensor, target: Tensor, s: Tensor, a: Tensor) -> Tensor:
    """DiffusionNFT's loss of each image, [N], on-policy; the squares are in x0 and scaled by their size."""
    sides = []
    for toward in (v, 2 * v.detach() - v):
        error = (s * (toward - target)).flatten(1)
        sides.append((error**2).mean(1) / error.detach().abs().mean(1).clamp(min=1e-5))
    return METHOD.objective.scale * ((1 + a) / 2 * sides[0] + (1 - a) / 2 * sides[1])


def bench_flow(settings: Settings) -> FlowReport:
    """Measure both loops, after an iteration of each that is not counted.

    Raises:
        ConfigError: the device or the model is not there, or the model is not a Stable Diffusion 3.
    """
    device = resolve_device(settings.device)
    with one_thread_on_cpu(settings.device):
        ours, plain = PrefrmLoop(settings, device), PlainLoop(settings, device)
        seconds: dict[str, list[tuple[float, float]]] = {"prefrm": [], "plain": []}
        with track("iterations", settings.rounds + 1) as advance:
            for n in range(settings.rounds + 1):
                for name, loop in (("prefrm", ours), ("plain", plain)):
                    drawing = _seconds(partial(loop.rollout, n), device)
                    whole = _seconds(partial(loop.iteration, n), device)
                    seconds[name] += [(drawing, whole)] if n else []
                advance(n + 1)
        described = describe_device(device)
    count = len(settings.prompts) * settings.group
    return FlowReport(
        device=described,
        clock="CPU" if device.type == "cpu" else "wall-clock",
        settings=settings,
        versions=versions("prefrm", "torch", "diffusers", "peft"),
        **{name: _loop(rounds, count) for name, rounds in seconds.items()},
    )


def _loop(rounds: Sequence[tuple[float, float]], count: int) -> Loop:
    rollout, iteration = (statistics.median(column) for column in zip(*rounds, strict=True))
    update = statistics.median(whole - drawing for drawing, whole in rounds)
    return Loop(images_per_second=count / rollout, update_seconds=update, iteration_seconds=iteration)


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait_for(device)
    started = clock()
    call()
    wait_for(device)
    return clock() - started


def _pipeline(settings: Settings, device: torch.device) -> Any:
    pipe = load_pipeline(settings.model, torch.float32 if device.type == "cpu" else torch.bfloat16)
    if type(getattr(pipe, "transformer", None)).__name__ != "SD3Transformer2DModel":
        raise ConfigError(
            f"the plain loop is written for Stable Diffusion 3's transformer; received {settings.model!r}"
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)
