"""A pipeline of diffusers as a policy: it draws samples, and evaluates its transformer again at recorded steps.

No family of models has a forward pass of its own here. What a pipeline passes to its transformer is recorded.
Where the latents stand in it, which arguments have a row for each sample, and how the outputs become the
velocity (sign, classifier-free guidance) is read off two short calls.
Shapes: B samples; R rows of them; [B, ...] latents.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from prefrm.flow.recording import Plan, Recorder, Recording, RecordingScheduler

__all__ = ["LORA_TARGETS", "Policy", "load_pipeline"]

LORA_TARGETS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)
"""Projections of the attention layers, as all transformers of diffusers name them (those of Flow-GRPO)."""

POLICIES = "prefrm.policies"
ODE = Plan()
# Prompts whose embeddings stay in memory: a trunk's and its branches', of two batches.
MEMORIZED = 4


def load_pipeline(model: str, dtype: torch.dtype, options: Mapping[str, Any] | None = None) -> Any:
    """The pipeline that `model` names: an entry point of "prefrm.policies", a folder, or `org/name`.

    Args:
        model: `hf://` before and `@revision` after the name of a repository are allowed.
        dtype: of the weights.
        options: further keywords of `from_pretrained`, such as {"text_encoder_3": None}.

    Raises:
        ConfigError: there is none, or it cannot be loaded.
    """
    options = {"torch_dtype": dtype} | dict(options or {})
    shipped = {point.name: point for point in entry_points(group=POLICIES)}
    if model in shipped:
        return shipped[model].load()(**options)
    name, _, revision = model.removeprefix("hf://").partition("@")
    try:
        return DiffusionPipeline.from_pretrained(name, revision=revision or None, **options)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise ConfigError(
            f"policy.model {model!r} cannot be loaded as a pipeline of diffusers: {reason}; give a folder, a "
            f"repository of the Hub or one of {', '.join(shipped) or 'no shipped policies'}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outputs:
    """How outputs of the transformer become the velocity: sign * formula(first, second)."""

    sign: int
    formula: Callable[[Tensor, Tensor, float], Tensor]
    swapped: bool

    def velocity(self, outputs: Sequence[Any], like: Tensor, guidance: float) -> Tensor:
        parts = _parts(outputs, like)
        first, second = parts[:: -1 if self.swapped else 1] if len(parts) > 1 else parts * 2
        return self.sign * self.formula(first, second, guidance)


def _plain(a: Tensor, b: Tensor, w: float) -> Tensor:
    return a


def _guided(without: Tensor, given: Tensor, w: float) -> Tensor:
    return without + w * (given - without)


def _guided_beyond(without: Tensor, given: Tensor, w: float) -> Tensor:
    # Z-Image's: its scale 0 is no guidance.
    return given + w * (given - without)


def _guided_normalized(without: Tensor, given: Tensor, w: float) -> Tensor:
    # Lumina 2's and Qwen-Image's.
    guided = without + w * (given - without)
    return guided * (torch.norm(given, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True))


GUIDANCE = (_guided, _guided_beyond, _guided_normalized)


class Policy:
    """A pipeline whose transformer has LoRA adapters, as a policy.

    Args:
        pipe: a text-to-image pipeline of diffusers with a flow-matching transformer; it is changed.
        steps: T, of a rollout.
        guidance: scale of classifier-free guidance; None turns it off, or leaves what a pipeline without such
            guidance has (FLUX.1-dev's embedded guidance).
        arguments: further ones of each call of the pipeline, such as {"height": 512, "width": 512}.
        rank, alpha, targets: of the adapters (LoRA, arXiv 2106.09685).
        adapters: further ones beside "default", such as "old", with the same weights.

    Raises:
        ConfigError: the pipeline is not a flow policy, or its velocity cannot be reproduced.
    """

    def __init__(
        self,
        pipe: Any,
        *,
        steps: int,
        guidance: float | None = None,
        arguments: Mapping[str, Any] | None = None,
        rank: int = 32,
        alpha: int = 64,
        targets: Sequence[str] = LORA_TARGETS,
        adapters: Sequence[str] = (),
    ) -> None:
        self.pipe, self.steps = pipe, steps
        self.transformer = _transformer(pipe)
        self.arguments = _arguments(pipe, guidance, arguments or {})
        self.guidance = float(
            self.arguments.get("true_cfg_scale") or self.arguments.get("guidance_scale") or 0
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.encode_prompt = _memorized(pipe.encode_prompt)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        self._layers: list[BaseTunerLayer] = []
        for name in ("default", *adapters):
            self._add_adapter(name, rank, alpha, targets)
        self.copy_adapter("default", *adapters)
        self.use("default")
        self._recorder = Recorder(self.transformer)
        pipe.scheduler = RecordingScheduler.of(pipe.scheduler, self._recorder, self._check)
        self._outputs: dict[int, _Outputs] = {}
        self._latents, self._batched = "", frozenset[str]()

    def _add_adapter(self, name: str, rank: int, alpha: int, targets: Sequence[str]) -> None:
        config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=[*targets])
        try:
            self.transformer.add_adapter(config, name)
        except ValueError as error:
            raise ConfigError(f"adapter.targets {list(targets)} name no layer of the transformer") from error
        self._layers = [m for m in self.transformer.modules() if isinstance(m, BaseTunerLayer)]
        for parameter in self.parameters(name):
            parameter.data = parameter.data.float()

    def parameters(self, adapter: str = "default") -> list[torch.nn.Parameter]:
        """Weights of an adapter, in a fixed order."""
        named = self.transformer.named_parameters()
        return [weight for name, weight in named if f".{adapter}." in name]

    @torch.no_grad()
    def copy_adapter(self, source: str, *targets: str, decay: float = 0.0) -> None:
        """Move each target's weights towards the source's: target = decay * target + (1 - decay) * source."""
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
        """Switch to an adapter without gradients in the block, and then back to "default"."""
        self.use(adapter)
        try:
            with torch.no_grad():
                yield
        finally:
            self.use("default")

    def lora_weights(self) -> dict[str, Tensor]:
        """Of the adapter "default", as diffusers names them."""
        weights: dict[str, Tensor] = get_peft_model_state_dict(self.transformer, adapter_name="default")
        return weights

    def save_lora(self, folder: Any) -> None:
        """Write the adapter "default" for `pipe.load_lora_weights(folder)`."""
        self.pipe.save_lora_weights(
            folder,
            transformer_lora_layers=self.lora_weights(),
            transformer_lora_adapter_metadata=self.transformer.peft_config["default"].to_dict(),
        )

    def probe(self, prompt: str) -> None:
        """Read off two short calls how the pipeline calls its transformer. Raises `ConfigError` if unclear."""
        one, two = (self.draw([prompt] * n, seeds=range(n), steps=1, decode=False).steps[0] for n in (1, 2))
        sizes = [{name: _length(value) for name, value in step.calls[0].items()} for step in (one, two)]
        self._batched = frozenset(name for name, size in sizes[0].items() if size != sizes[1].get(name))
        fitting = [
            name
            for name in self._batched
            if torch.equal(_joined(_fitted(two.x, two.calls[0][name])), _joined(two.calls[0][name]))
        ]
        if len(fitting) != 1:
            raise ConfigError(
                f"{type(self.pipe).__name__} does not pass its latents to the transformer as they are, so its "
                "velocity cannot be evaluated again; train another pipeline"
            )
        self._latents = fitting[0]

    def draw(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        plan: Plan = ODE,
        latents: Tensor | None = None,
        steps: int | None = None,
        decode: bool = True,
    ) -> Recording:
        """Samples, by one call of the pipeline.

        Args:
            prompts: of each sample, [B]; neighbours that are equal are encoded once.
            seeds: of each sample's initial noise, [B].
            plan: which part of the grid, and the stochastic steps in it.
            latents: [B, ...], where the plan begins in the middle.
            steps: T; None is the policy's.
            decode: whether images are wanted.
        """
        runs = [(prompt, len([*same])) for prompt, same in groupby(prompts)]
        even = len({count for _, count in runs}) == 1
        scheduler: RecordingScheduler = self.pipe.scheduler
        scheduler.plan = self._recorder.plan = plan
        try:
            (drawn, *_) = self.pipe(
                prompt=[prompt for prompt, _ in runs] if even else [*prompts],
                num_images_per_prompt=runs[0][1] if even else 1,
                num_inference_steps=steps or self.steps,
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                latents=latents,
                output_type="pt" if decode else "latent",
                return_dict=False,
                **self.arguments,
            )
        finally:
            self._recorder.plan = None
            self._recorder.taken()
        recorded = scheduler.steps
        end = recorded[max(recorded)].x_next if recorded else latents
        assert end is not None
        return Recording(
            sigmas=scheduler.levels, steps=recorded, x=end, images=drawn.float() if decode else None
        )

    def decode(self, prompts: Sequence[str], x0: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] of finished latents; a gradient goes through."""
        scheduler: RecordingScheduler = self.pipe.scheduler
        scheduler.plan = Plan(start=self.steps)
        # A call that goes through no step; `__call__` itself turns gradients off.
        images: Tensor = type(self.pipe).__call__.__wrapped__(
            self.pipe,
            prompt=[*prompts],
            num_inference_steps=self.steps,
            generator=[torch.Generator() for _ in prompts],
            latents=x0,
            output_type="pt",
            return_dict=False,
            **self.arguments,
        )[0]
        return images.float()

    def velocity(
        self, recording: Recording, at: int | Sequence[int], x: Tensor | None = None, rows: Any = None
    ) -> Tensor:
        """The velocity at the conditions and the noise level of recorded steps, [R, ...].

        Args:
            recording: of the samples.
            at: i of the step, or one for each row.
            x: [R, ...], in place of the recorded latents.
            rows: of the recording's samples; all by default.
        """
        first = recording.steps[at if isinstance(at, int) else at[0]]
        batch = len(first.x)
        rows = list(range(batch)) if rows is None else [int(row) for row in rows]
        x = first.x[rows] if x is None else x
        chosen = [first] * len(rows) if isinstance(at, int) else [recording.steps[i] for i in at]
        outputs = []
        for n, call in enumerate(first.calls):
            arguments = dict(call)
            for name in self._batched - {self._latents}:
                arguments[name] = _gathered([step.calls[n][name] for step in chosen], rows, batch)
            repeats = _length(call[self._latents]) // batch
            arguments[self._latents] = _fitted(x, call[self._latents], repeats)
            outputs.append(self.transformer(**arguments)[0])
        halves = len(_parts(outputs, x))
        return self._outputs[halves].velocity(
            outputs, first.v[:1].expand(len(rows), *first.v.shape[1:]), self.guidance
        )

    def _check(self, outputs: list[Any], v: Tensor) -> None:
        """Find out, once, how the outputs become `v`; and that it is still so."""
        count = len(_parts(outputs, v))
        if count not in self._outputs:
            formulas = (_plain,) if count == 1 else GUIDANCE
            for sign in (1, -1):
                for formula in formulas:
                    for swapped in (False, True)[:count]:
                        found = _Outputs(sign=sign, formula=formula, swapped=swapped)
                        if count <= 2 and torch.equal(found.velocity(outputs, v, self.guidance), v):
                            self._outputs[count] = found
                            return
        elif torch.equal(self._outputs[count].velocity(outputs, v, self.guidance), v):
            return
        raise ConfigError(
            f"{type(self.pipe).__name__} combines the outputs of its transformer in a way that cannot be "
            f"reproduced (guidance {self.guidance:g}, {count} outputs a step); set policy.guidance to null"
        )


def _transformer(pipe: Any) -> Any:
    transformer = getattr(pipe, "transformer", None)
    if transformer is None or not hasattr(transformer, "add_adapter"):
        raise ConfigError(
            f"{type(pipe).__name__} has no transformer that takes LoRA adapters; train a flow-matching pipeline "
            "such as Stable Diffusion 3, FLUX, Sana, Lumina 2, Z-Image or Qwen-Image"
        )
    return transformer


def _arguments(pipe: Any, guidance: float | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = signature(pipe.__call__).parameters
    if unknown := [name for name in arguments if name not in known]:
        raise ConfigError(f"policy.arguments: {type(pipe).__name__} does not take {', '.join(unknown)}")
    # Of this property the scale 0 means that there is no guidance, in every family.
    if guidance is None and hasattr(type(pipe), "do_classifier_free_guidance"):
        guidance = 0.0
    return ({} if guidance is None else {"guidance_scale": guidance}) | dict(arguments)


def _memorized(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Remembers the last embeddings, so that a trunk and its branches encode a prompt once."""
    known: OrderedDict[str, Any] = OrderedDict()

    def remembered(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return encode(*args, **kwargs)
        key = repr((args, kwargs))
        if key not in known:
            known[key] = encode(*args, **kwargs)
            while len(known) > MEMORIZED:
                known.popitem(last=False)
        return known[key]

    return remembered


def _parts(outputs: Sequence[Any], like: Tensor) -> list[Tensor]:
    """The outputs in the type and shape of the velocity: one, or one for each side of the guidance."""
    parts: list[Tensor] = []
    for output in outputs:
        whole = torch.stack(output) if isinstance(output, list) else output
        if whole.shape[1] == 2 * like.shape[1]:
            # Learned variances, which no sampler uses.
            whole = whole.chunk(2, dim=1)[0]
        parts += whole.to(like.dtype).reshape(-1, *like.shape).unbind()
    return parts


def _length(value: Any) -> int:
    """Rows of an argument; 0 if it has none."""
    if isinstance(value, Tensor):
        return len(value) if value.ndim else 0
    return len(value) if isinstance(value, list) else 0


def _joined(value: Any) -> Tensor:
    return torch.stack(value) if isinstance(value, list) else value


def _fitted(x: Tensor, like: Any, repeats: int | None = None) -> Any:
    """`x` [B, ...] in the form of an argument: its type, its layout, once for each side of the guidance."""
    repeats = max(_length(like) // len(x), 1) if repeats is None else repeats
    if isinstance(like, list) and isinstance(like[0], Tensor):
        return [*x.to(like[0].dtype).reshape(-1, *like[0].shape)] * repeats
    if isinstance(like, Tensor) and like.ndim == x.ndim and like[0].shape == x[0].shape:
        return x.to(like.dtype).repeat(repeats, *[1] * (x.ndim - 1))
    return torch.full((1,), torch.nan)


def _gathered(values: Sequence[Any], rows: Sequence[int], batch: int) -> Any:
    """Rows of an argument, [R], from the value that it has in each row's step."""
    first = values[0]
    repeats = _length(first) // batch
    places = [n * batch + row for n in range(repeats) for row in rows]
    if all(value is first for value in values):
        return [first[place] for place in places] if isinstance(first, list) else first[places]
    picked = [value[place] for value, place in zip([*values] * repeats, places, strict=True)]
    return picked if isinstance(first, list) else torch.stack(picked)
