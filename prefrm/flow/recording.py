"""A scheduler that takes stochastic steps and records them with the transformer's calls: a rollout as data.

The pipeline itself draws. Its `RecordingScheduler` follows a `Plan` and watches the transformer; the result
is a `Recording`. Shapes: B samples; [B, ...] latents of any layout.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from prefrm.errors import ConfigError
from prefrm.flow.kernels import transition
from prefrm.flow.settings import Kernel

__all__ = ["Plan", "Recording", "RecordingScheduler", "Step"]

# The prompt's embedding by the transformer's name for it: of most families, and of Z-Image.
CONDITIONS = ("encoder_hidden_states", "cap_feats")

Arguments = Mapping[str, Any]
Check = Callable[[list[Any], Tensor], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Instructions for one call of the pipeline."""

    kernel: Kernel = "ode"  # of the stochastic steps
    noise: Mapping[int, float] = field(default_factory=dict)  # level by stochastic step; others: Euler
    # `draw(i, x)` gives the standard normal noise of step i in the shape of x.
    draw: Callable[[int, Tensor], Tensor] = lambda i, x: torch.randn_like(x)
    start: int = 0  # step at which the call begins, with latents that stand there
    stop: int | None = None  # step before which it ends; None runs to the end
    even_grid: bool = False  # as in `prefrm.flow.settings.Rollout`
    # `perturb(s, embedding)` gives the prompt's embedding that the transformer sees, not the recorded one.
    perturb: Callable[[float, Any], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: the state before it and, rounded to the pipeline's dtype, after it, [B, ...] each."""

    x: Tensor
    x_next: Tensor
    v: Tensor  # velocity dx/ds that the pipeline made of the transformer's outputs
    noise: float  # level of the kernel; 0 is an Euler step
    calls: tuple[Arguments, ...]  # arguments by name of each call of the transformer


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One call of the pipeline."""

    sigmas: tuple[float, ...]  # the whole grid s_0 .. s_T, whichever part of it the call went through
    steps: Mapping[int, Step]  # by index
    x: Tensor  # state at the end, [B, ...]; x0 where the call ran to the end
    images: Tensor | None  # [B, 3, H, W] in [0, 1], on the CPU; None where nothing was decoded


class RecordingScheduler(FlowMatchEulerDiscreteScheduler):  # type: ignore[misc]
    """Flow-matching Euler steps, some of them stochastic, through a part of the grid; as `plan` says."""

    plan: Plan | None  # None: calls of the transformer are not recorded
    steps: dict[int, Step]
    levels: tuple[float, ...]
    timesteps: Tensor

    @classmethod
    def watching(cls, transformer: nn.Module, scheduler: Any, check: Check) -> "RecordingScheduler":
        """With the settings of a pipeline's own scheduler; of one that takes no Euler steps, with its shift.

        `check` is called with a step's outputs of the transformer and the velocity that was made of them.
        Raises `ConfigError` if the scheduler is for another kind of model, or inverts its noise levels.
        """
        config = dict(scheduler.config)
        flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler) or config.get("use_flow_sigmas")
        if not flow or config.get("invert_sigmas"):
            raise ConfigError(
                f"{type(scheduler).__name__} is not a flow-matching scheduler with s = 1 for noise; train a "
                "pipeline such as Stable Diffusion 3, FLUX, Sana, Lumina 2, Z-Image or Qwen-Image"
            )
        made: RecordingScheduler = cls.from_config(
            {"shift": config["flow_shift"]} if "flow_shift" in config else config
        )
        made.plan, made._check, made._signature = None, check, inspect.signature(transformer.forward)
        transformer.register_forward_pre_hook(made._before, with_kwargs=True)
        transformer.register_forward_hook(made._after)
        return made

    # Pipelines inspect which arguments it has.
    @functools.wraps(FlowMatchEulerDiscreteScheduler.set_timesteps)
    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        """The whole grid in `sigmas`; in `timesteps`, the part that the plan goes through."""
        assert self.plan is not None
        # Some pipelines give the number of steps alone, others even levels.
        if self.plan.even_grid and args:
            kwargs["sigmas"] = np.linspace(1, 1 / args[0], args[0])
        super().set_timesteps(*args, **kwargs)
        self.timesteps = self.timesteps[self.plan.start : self.plan.stop]
        self.levels = tuple(self.sigmas.tolist())
        self._step_index, self.steps = self.plan.start, {}
        self._calls, self._outputs = list[Arguments](), list[Any]()

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Without effect: the plan says where a call begins."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **unused: Any) -> tuple[Tensor]:
        """The next state, which is recorded."""
        i, plan, calls, outputs = self._step_index, self.plan, tuple(self._calls), self._outputs
        assert plan is not None
        self._calls, self._outputs = [], []
        # The first and the last step differ where guidance is truncated.
        if i in (plan.start, len(self.levels) - 2):
            self._check(outputs, model_output)
        if i in plan.noise:
            s, s_next, s_1 = (self.levels[n] for n in (i, i + 1, 1))
            drawn = transition(plan.kernel, plan.noise[i], sample, model_output, s, s_next, s_1)
            x_next = drawn.sample(plan.draw(i, sample)).to(model_output.dtype)
            self._step_index += 1
        else:
            x_next = super().step(model_output, timestep, sample, return_dict=False)[0]
        noise = plan.noise.get(i, 0.0)
        self.steps[i] = Step(x=sample, x_next=x_next, v=model_output, noise=noise, calls=calls)
        return (x_next,)

    def _before(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """Record a call; returns other arguments where the plan perturbs the condition."""
        if self.plan is None:
            return None
        arguments = dict(self._signature.bind(*args, **kwargs).arguments)
        arguments |= arguments.pop("kwargs", {})
        self._calls.append(arguments)
        if self.plan.perturb is None:
            return None
        name = next(name for name in CONDITIONS if name in arguments)
        s = self.levels[self._step_index]
        return (), arguments | {name: self.plan.perturb(s, arguments[name])}

    def _after(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.plan is not None:
            self._outputs.append(output[0] if isinstance(output, tuple) else output.sample)
