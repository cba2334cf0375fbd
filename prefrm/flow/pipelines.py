"""A pipeline of diffusers as a policy: it draws samples, and evaluates its transformer again where it did.

No family of models has a forward pass here: `prefrm.flow.recording` keeps what the pipeline passes to its
transformer, and `prefrm.flow.replay` passes it again. Shapes: B samples; R rows of them; [B, ...] latents.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from inspect import signature
from itertools import groupby
from typing import Any

import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from prefrm.errors import ConfigError
from prefrm.flow.config import PolicyConfig
from prefrm.flow.recording import Plan, Recording, RecordingScheduler
from prefrm.flow.replay import Replay
from prefrm.quiet import quiet

__all__ = ["Policy", "call_arguments", "load_pipeline"]

POLICIES = "prefrm.policies"
ODE = Plan()
# Batches of prompts whose embeddings are kept: those of a trunk and of its branches.
MEMORIZED = 4


def load_pipeline(model: str, dtype: torch.dtype, options: Mapping[str, Any] | None = None) -> Any:
    """The pipeline that `model` names: an entry point of "prefrm.policies", a folder, or a Hub repository.

    Args:
        model: of a repository, `[hf://]org/name[@revision]`.
        dtype: of the weights.
        options: further keywords of `from_pretrained`, such as {"text_encoder_3": None}.

    Raises:
        ConfigError: it does not exist, or cannot be loaded.
    """
    options = {"dtype": dtype} | dict(options or {})
    shipped = {point.name: point for point in entry_points(group=POLICIES)}
    if model in shipped:
        with quiet():
            return shipped[model].load()(**options)
    name, _, revision = model.removeprefix("hf://").partition("@")
    try:
        with quiet():
            return DiffusionPipeline.from_pretrained(name, revision=revision or None, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"policy.model {model!r} cannot be loaded as a pipeline of diffusers: {reason}; give a folder, a "
            f"repository of the Hub or one of {', '.join(shipped) or 'no shipped policies'}"
        ) from error


class Policy:
    """A pipeline whose transformer has LoRA adapters (arXiv 2106.09685), with float32 weights.

    Args:
        pipe: a text-to-image pipeline of diffusers with a flow-matching transformer; it is changed.
        settings: of rollouts and of the adapters; `model`, `dtype` and `options` are of no matter here.
        adapters: further ones beside "default", such as "old" and "average", with the same weights.

    Attributes:
        steps: T, of a rollout.
        velocity: `Replay.velocity`, of the adapter in use.

    Raises:
        ConfigError: the pipeline is not a flow policy, or a setting is wrong.
    """

    def __init__(self, pipe: Any, settings: PolicyConfig, adapters: Sequence[str] = ()) -> None:
        self.pipe, self.steps = pipe, settings.steps
        self.transformer = pipe.components.get("transformer")
        if not hasattr(self.transformer, "add_adapter"):
            raise ConfigError(
                f"{type(pipe).__name__} has no transformer that takes LoRA adapters; train a flow-matching "
                "pipeline such as Stable Diffusion 3, FLUX, Sana, Lumina 2, Z-Image or Qwen-Image"
            )
        self.arguments = call_arguments(pipe, settings)
        pipe.set_progress_bar_config(disable=True)
        pipe.encode_prompt = _memorized(pipe.encode_prompt)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        self.adapters = ("default", *adapters)
        for name in self.adapters:
            self._add_adapter(name, settings)
        self._layers = [layer for layer in self.transformer.modules() if isinstance(layer, BaseTunerLayer)]
        self.copy_adapter("default", *adapters)
        self.use("default")
        scale = self.arguments.get("true_cfg_scale") or self.arguments.get("guidance_scale") or 0
        self._replay = Replay(type(pipe).__name__, self.transformer, float(scale))
        self.velocity = self._replay.velocity
        pipe.scheduler = RecordingScheduler.watching(self.transformer, pipe.scheduler, self._replay.check)

    def _add_adapter(self, name: str, settings: PolicyConfig) -> None:
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            init_lora_weights="gaussian",
            target_modules=[*settings.targets],
        )
        try:
            with warnings.catch_warnings():
                # peft warns of several adapters.
                warnings.simplefilter("ignore", UserWarning)
                self.transformer.add_adapter(lora, name)
        except ValueError as error:
            named = [*settings.targets]
            raise ConfigError(f"policy.targets {named} name no layer of the transformer") from error
        for parameter in self.parameters(name):
            parameter.data = parameter.data.float()

    def parameters(self, adapter: str = "default") -> list[torch.nn.Parameter]:
        """Weights of an adapter, in a fixed order."""
        return [weight for name, weight in self.transformer.named_parameters() if f".{adapter}." in name]

    @torch.no_grad()
    def copy_adapter(self, source: str, *targets: str, decay: float = 0.0) -> None:
        """Set each target's weights to decay * target + (1 - decay) * source."""
        for target in targets:
            for to, of in zip(self.parameters(target), self.parameters(source), strict=True):
                to.copy_(of) if not decay else to.lerp_(of, 1 - decay)

    def use(self, adapter: str | None) -> None:
        """Switch to an adapter; None is the pipeline without one, the reference."""
        for layer in self._layers:
            layer.enable_adapters(adapter is not None)
            if adapter is not None:
                layer.set_adapter([adapter])

    @contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """In the block, another adapter or the reference, without gradients; then "default" again."""
        self.use(adapter)
        try:
            with torch.no_grad():
                yield
        finally:
            self.use("default")

    def save_lora(self, folder: Any, adapter: str = "default") -> None:
        """Write an adapter for `pipe.load_lora_weights(folder)`."""
        settings = self.transformer.peft_config[adapter].to_dict()
        self.pipe.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(self.transformer, adapter_name=adapter),
            # Sets have another order in each process.
            transformer_lora_adapter_metadata={
                key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()
            },
        )

    def probe(self, prompt: str) -> None:
        """Infer from two short calls how the pipeline calls its transformer; must precede `velocity`.

        Raises:
            ConfigError: the velocity cannot be reproduced.
        """
        one, two = (self.draw([prompt] * n, seeds=range(n), steps=1, decode=False).steps[0] for n in (1, 2))
        self._replay.learn(one, two)

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        plan: Plan = ODE,
        latents: Tensor | None = None,
        steps: int | None = None,
        decode: bool = True,
        keep_path: bool = True,
    ) -> Recording:
        """Samples, by one call of the pipeline.

        Args:
            prompts: of each sample, [B]; neighbours that are equal are encoded once.
            seeds: of each sample's initial noise, [B].
            plan: which part of the grid, and the stochastic steps in it.
            latents: [B, ...], where the plan begins in the middle.
            steps: T; None is the policy's.
            decode: whether images are wanted; they are on the CPU.
            keep_path: whether the states of Euler steps are kept, or their conditions alone.
        """
        with torch.no_grad():
            output = "pt" if decode else "latent"
            drawn = self._call(prompts, seeds, plan, latents, steps or self.steps, output)
        recorded = self.pipe.scheduler.steps
        end = recorded[max(recorded)].x_next
        if not keep_path:
            recorded = {i: one if one.noise else self._replay.conditions(one) for i, one in recorded.items()}
        images = drawn.float().cpu() if decode else None
        return Recording(sigmas=self.pipe.scheduler.levels, steps=recorded, x=end, images=images)

    def decode(self, prompts: Sequence[str], x0: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] of finished latents; a gradient flows through."""
        # A call that takes no step.
        plan = Plan(start=self.steps)
        return self._call(prompts, range(len(prompts)), plan, x0, self.steps, "pt").float()

    def _call(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        plan: Plan,
        latents: Tensor | None,
        steps: int,
        output: str,
    ) -> Tensor:
        runs = [(prompt, len([*same])) for prompt, same in groupby(prompts)]
        even = len({count for _, count in runs}) == 1
        distinct = [prompt for prompt, _ in runs] if even else [*prompts]
        arguments = self.arguments
        if isinstance(negative := arguments.get("negative_prompt"), str):
            # FLUX and Qwen-Image do not repeat one for all prompts.
            arguments = arguments | {"negative_prompt": [negative] * len(distinct)}
        self.pipe.scheduler.plan = plan
        try:
            # `__call__` itself turns gradients off.
            images: Tensor = type(self.pipe).__call__.__wrapped__(  # type: ignore[attr-defined]
                self.pipe,
                prompt=distinct,
                num_images_per_prompt=runs[0][1] if even else 1,
                num_inference_steps=steps,
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                latents=latents,
                output_type=output,
                return_dict=False,
                **arguments,
            )[0]
        finally:
            self.pipe.scheduler.plan = None
        return images


def call_arguments(pipe: Any, settings: PolicyConfig) -> dict[str, Any]:
    """Keywords of a call of the pipeline. Raises `ConfigError` for one that it does not take."""
    known, guidance = signature(pipe.__call__).parameters, settings.guidance
    if unknown := [name for name in settings.arguments if name not in known]:
        raise ConfigError(f"policy.arguments: {type(pipe).__name__} does not take {', '.join(unknown)}")
    # Of pipelines with this property the scale 0 turns guidance off, in every family.
    if guidance is None and hasattr(type(pipe), "do_classifier_free_guidance"):
        guidance = 0.0
    return ({} if guidance is None else {"guidance_scale": guidance}) | dict(settings.arguments)


def _memorized(encode: Callable[..., Any]) -> Callable[..., Any]:
    """`encode`, with the results of the last few calls kept."""
    kept: dict[str, Any] = {}

    def remembered(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return encode(*args, **kwargs)
        key = repr((args, kwargs))
        if key not in kept:
            if len(kept) == MEMORIZED:
                del kept[next(iter(kept))]
            with torch.no_grad():
                kept[key] = encode(*args, **kwargs)
        return kept[key]

    return remembered
