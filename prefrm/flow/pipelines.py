"""A pipeline of diffusers as a policy: it draws samples, and evaluates its transformer again where it did.

No family of models has a forward pass of its own here. What a pipeline passes to its transformer is recorded.
Where the latents stand in it, which arguments have a row for each sample, and how the outputs become the
velocity (sign, classifier-free guidance) is read off two short calls.
Shapes: B samples; R rows of them; [B, ...] latents.
"""

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from inspect import signature
from itertools import groupby
from typing import Any, NamedTuple

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
    *("to_q", "to_k", "to_v", "to_out.0"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
)
"""Projections of the attention layers, as the transformers of diffusers name them (those of Flow-GRPO)."""

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
        ConfigError: there is none, or it cannot be loaded.
    """
    options = {"dtype": dtype} | dict(options or {})
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


class _Combination(NamedTuple):
    """How outputs of the transformer become the velocity: sign * formula(first, second, guidance)."""

    sign: int
    formula: Callable[[Tensor, Tensor, float], Tensor]
    swapped: bool

    def velocity(self, parts: Sequence[Tensor], guidance: float) -> Tensor:
        first, second = parts[0], parts[-1]
        if self.swapped:
            first, second = second, first
        combined: Tensor = self.sign * self.formula(first, second, guidance)
        return combined


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
    scaled: Tensor = guided * (
        torch.norm(given, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True)
    )
    return scaled


COMBINATIONS = {
    1: [_Combination(sign, _plain, False) for sign in (1, -1)],
    2: [
        _Combination(sign, formula, swapped)
        for formula in (_guided, _guided_beyond, _guided_normalized)
        for swapped in (False, True)
        for sign in (1, -1)
    ],
}
"""By the number of outputs for each sample."""


class Policy:
    """A pipeline whose transformer has LoRA adapters (arXiv 2106.09685).

    Args:
        pipe: a text-to-image pipeline of diffusers with a flow-matching transformer; it is changed.
        steps: T, of a rollout.
        guidance: scale of classifier-free guidance. None turns it off, or leaves the embedded guidance of a
            pipeline such as FLUX.1-dev's as it is.
        arguments: further ones of each call of the pipeline, such as {"height": 512, "width": 512}.
        rank, alpha, targets: of the adapters, whose weights are float32.
        adapters: further ones beside "default", such as "old", with the same weights.

    Raises:
        ConfigError: the pipeline is not a flow policy, or an argument is wrong.
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
        self.transformer = pipe.components.get("transformer")
        if not hasattr(self.transformer, "add_adapter"):
            raise ConfigError(
                f"{type(pipe).__name__} has no transformer that takes LoRA adapters; train a flow-matching "
                "pipeline such as Stable Diffusion 3, FLUX, Sana, Lumina 2, Z-Image or Qwen-Image"
            )
        self.arguments = _arguments(pipe, guidance, arguments or {})
        self.guidance = float(
            self.arguments.get("true_cfg_scale") or self.arguments.get("guidance_scale") or 0
        )
        pipe.set_progress_bar_config(disable=True)
        pipe.encode_prompt = _memorized(pipe.encode_prompt)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.requires_grad_(False).eval()
        for name in ("default", *adapters):
            config = LoraConfig(
                r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=[*targets]
            )
            try:
                with warnings.catch_warnings():
                    # Of peft, that there are several adapters.
                    warnings.simplefilter("ignore", UserWarning)
                    self.transformer.add_adapter(config, name)
            except ValueError as error:
                raise ConfigError(f"adapter.targets {[*targets]} name no layer of the transformer") from error
            for parameter in self.parameters(name):
                parameter.data = parameter.data.float()
        self._layers = [layer for layer in self.transformer.modules() if isinstance(layer, BaseTunerLayer)]
        self.copy_adapter("default", *adapters)
        self.use("default")
        self._recorder = Recorder(self.transformer)
        pipe.scheduler = RecordingScheduler.of(pipe.scheduler, self._recorder, self._check)
        self._combinations: dict[int, _Combination] = {}
        self._latents, self._batched = "", frozenset[str]()

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

    def save_lora(self, folder: Any) -> None:
        """Write the adapter "default" for `pipe.load_lora_weights(folder)`."""
        settings = self.transformer.peft_config["default"].to_dict()
        self.pipe.save_lora_weights(
            folder,
            transformer_lora_layers=get_peft_model_state_dict(self.transformer, adapter_name="default"),
            # Sets have another order in each process.
            transformer_lora_adapter_metadata={
                key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()
            },
        )

    def probe(self, prompt: str) -> None:
        """Read off two short calls how the pipeline calls its transformer; must precede `velocity`.

        Raises:
            ConfigError: that cannot be told, or the velocity cannot be reproduced.
        """
        one, two = (self.draw([prompt] * n, seeds=range(n), steps=1, decode=False).steps[0] for n in (1, 2))
        first, second = one.calls[0], two.calls[0]
        self._batched = frozenset(name for name in first if _length(first[name]) != _length(second.get(name)))
        fitting = [name for name in self._batched if _is_latents(two.x, second[name])]
        if len(fitting) != 1:
            raise ConfigError(
                f"{type(self.pipe).__name__} does not pass its latents to the transformer as they are, so "
                "its velocity cannot be evaluated again; train another pipeline"
            )
        (self._latents,) = fitting

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
        scheduler: RecordingScheduler = self.pipe.scheduler
        scheduler.plan = self._recorder.plan = plan
        try:
            with torch.no_grad():
                drawn = self._call(prompts, seeds, latents, steps or self.steps, "pt" if decode else "latent")
        finally:
            self._recorder.plan = None
            self._recorder.taken()
        recorded = scheduler.steps
        end = recorded[max(recorded)].x_next if recorded else latents
        assert end is not None
        images = drawn.float() if decode else None
        return Recording(sigmas=scheduler.levels, steps=recorded, x=end, images=images)

    def decode(self, prompts: Sequence[str], x0: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] in [0, 1] of finished latents; a gradient flows through."""
        # A call that takes no step.
        self.pipe.scheduler.plan = Plan(start=self.steps)
        return self._call(prompts, range(len(prompts)), x0, self.steps, "pt").float()

    def _call(
        self, prompts: Sequence[str], seeds: Sequence[int], latents: Tensor | None, steps: int, output: str
    ) -> Tensor:
        runs = [(prompt, len([*same])) for prompt, same in groupby(prompts)]
        even = len({count for _, count in runs}) == 1
        asked = [prompt for prompt, _ in runs] if even else [*prompts]
        arguments = self.arguments
        if isinstance(negative := arguments.get("negative_prompt"), str):
            # FLUX and Qwen-Image do not repeat one for all prompts.
            arguments = arguments | {"negative_prompt": [negative] * len(asked)}
        # `__call__` itself turns gradients off.
        images: Tensor = type(self.pipe).__call__.__wrapped__(  # type: ignore[attr-defined]
            self.pipe,
            prompt=asked,
            num_images_per_prompt=runs[0][1] if even else 1,
            num_inference_steps=steps,
            generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
            latents=latents,
            output_type=output,
            return_dict=False,
            **arguments,
        )[0]
        return images

    def velocity(
        self,
        recording: Recording,
        at: int | Sequence[int],
        x: Tensor | None = None,
        rows: Sequence[int] | None = None,
    ) -> Tensor:
        """The velocity at the conditions and noise levels of recorded steps, [R, ...].

        Args:
            recording: of the samples.
            at: i of the step, or one for each row.
            x: [R, ...], instead of the recorded latents.
            rows: of the recording's samples; None is all.
        """
        rows = range(len(recording.x)) if rows is None else rows
        steps = [recording.steps[i] for i in ([at] * len(rows) if isinstance(at, int) else at)]
        first, batch = steps[0], len(recording.x)
        x = first.x[[*rows]] if x is None else x
        outputs = []
        for n, call in enumerate(first.calls):
            picked = {
                name: _gathered([step.calls[n][name] for step in steps], rows, batch)
                for name in self._batched - {self._latents}
            }
            like = call[self._latents]
            picked[self._latents] = _fitted(x, like, _length(like) // batch)
            outputs.append(self.transformer(**{**call, **picked})[0])
        parts = _parts(outputs, first.v[:1].expand(len(rows), *first.v.shape[1:]))
        return self._combinations[len(parts)].velocity(parts, self.guidance)

    def _check(self, outputs: list[Any], v: Tensor) -> None:
        """Find out, once, how the outputs become `v`, and that it is still so."""
        parts = _parts(outputs, v)
        known = self._combinations.get(len(parts))
        for found in COMBINATIONS.get(len(parts), []) if known is None else [known]:
            if torch.equal(found.velocity(parts, self.guidance), v):
                self._combinations[len(parts)] = found
                return
        raise ConfigError(
            f"{type(self.pipe).__name__} combines the outputs of its transformer in a way that cannot be "
            f"reproduced (scale {self.guidance:g}, {len(parts)} outputs); set policy.guidance to null"
        )


def _arguments(pipe: Any, guidance: float | None, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = signature(pipe.__call__).parameters
    if unknown := [name for name in arguments if name not in known]:
        raise ConfigError(f"policy.arguments: {type(pipe).__name__} does not take {', '.join(unknown)}")
    # Of pipelines with this property the scale 0 turns guidance off, in every family.
    if guidance is None and hasattr(type(pipe), "do_classifier_free_guidance"):
        guidance = 0.0
    return ({} if guidance is None else {"guidance_scale": guidance}) | dict(arguments)


def _memorized(encode: Callable[..., Any]) -> Callable[..., Any]:
    """`encode`, with the results of the last few calls kept."""
    kept: OrderedDict[str, Any] = OrderedDict()

    def remembered(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(value, Tensor) for value in (*args, *kwargs.values())):
            return encode(*args, **kwargs)
        key = repr((args, kwargs))
        if key not in kept:
            with torch.no_grad():
                kept[key] = encode(*args, **kwargs)
            while len(kept) > MEMORIZED:
                kept.popitem(last=False)
        return kept[key]

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
    return len(value) if isinstance(value, list) or (isinstance(value, Tensor) and value.ndim) else 0


def _fitted(x: Tensor, like: Any, repeats: int) -> Any:
    """`x` [R, ...] as an argument: in its type and layout, once for each side of the guidance."""
    if isinstance(like, list):
        return [*x.to(like[0].dtype).reshape(-1, *like[0].shape)] * repeats
    return x.to(like.dtype).repeat(repeats, *[1] * (x.ndim - 1))


def _is_latents(x: Tensor, value: Any) -> bool:
    """Whether an argument is `x` [B, ...], in any of the forms that `_fitted` knows."""
    if not isinstance(value[0], Tensor) or value[0].numel() != x[0].numel():
        return False
    fitted = _fitted(x, value, len(value) // len(x))
    return all(torch.equal(one, other) for one, other in zip(fitted, value, strict=True))


def _gathered(values: Sequence[Any], rows: Sequence[int], batch: int) -> Any:
    """Rows of an argument, [R], from the value that it has in each row's step."""
    first = values[0]
    places = [side + row for side in range(0, _length(first), batch) for row in rows]
    if all(value is first for value in values):
        return [first[place] for place in places] if isinstance(first, list) else first[places]
    picked = [values[n % len(rows)][place] for n, place in enumerate(places)]
    return picked if isinstance(first, list) else torch.stack(picked)
