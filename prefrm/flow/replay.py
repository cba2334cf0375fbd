"""Evaluates a transformer again at recorded calls, for any family of pipelines.

Two short calls show where the latents stand among the arguments, which arguments have a row for each sample,
and how outputs become the velocity (sign, classifier-free guidance).
Shapes: B samples; R rows of them; [B, ...] latents.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import torch
from torch import Tensor

from prefrm.errors import ConfigError
from prefrm.flow.recording import Recording, Step

__all__ = ["Replay"]


def _guided(without: Tensor, given: Tensor, w: float) -> Tensor:
    return without + w * (given - without)


def _guided_beyond(without: Tensor, given: Tensor, w: float) -> Tensor:
    # As in Z-Image, where scale 0 turns guidance off.
    return given + w * (given - without)


def _guided_normalized(without: Tensor, given: Tensor, w: float) -> Tensor:
    # Lumina 2's and Qwen-Image's.
    guided = _guided(without, given, w)
    scale: Tensor = torch.norm(given, dim=-1, keepdim=True) / torch.norm(guided, dim=-1, keepdim=True)
    return guided * scale


Combination = tuple[Callable[[Tensor, Tensor, float], Tensor], bool, int]
COMBINATIONS: Sequence[Combination] = [
    *product((_guided, _guided_beyond, _guided_normalized), (False, True), (1, -1))
]
"""Candidates for the velocity of one or two outputs: a formula, whether they are swapped, and the sign."""


class Replay:
    """Evaluates the velocity of a policy where it drew.

    Args:
        pipeline: its name, for errors.
        transformer: of the pipeline.
        guidance: scale of classifier-free guidance.
    """

    def __init__(self, pipeline: str, transformer: Any, guidance: float) -> None:
        self._pipeline, self._transformer, self._guidance = pipeline, transformer, guidance
        self._combinations: dict[int, Combination] = {}
        self._latents, self._batched = "", frozenset[str]()

    def learn(self, one: Step, two: Step) -> None:
        """Infer the roles of the arguments from the same step with one sample and with two.

        Raises:
            ConfigError: no argument, or more than one, is the latents.
        """
        first, second = one.calls[0], two.calls[0]
        # An argument that is None here may have rows later, such as Qwen-Image's mask of unequal prompts.
        self._batched = frozenset(
            name
            for name, value in first.items()
            if value is None or _length(value) != _length(second.get(name))
        )
        fitting = [name for name in self._batched if _is_latents(two.x, second.get(name))]
        if len(fitting) != 1:
            raise ConfigError(
                f"{self._pipeline} does not pass its latents to the transformer as they are, so its velocity "
                "cannot be evaluated again; train another pipeline"
            )
        (self._latents,) = fitting

    def check(self, outputs: list[Any], v: Tensor) -> None:
        """Infer, at the first call, how the outputs become `v`; later, check that it is still so.

        Raises:
            ConfigError: no known combination of the outputs gives `v` exactly.
        """
        parts = _parts(outputs, v)
        known = self._combinations.get(len(parts))
        for found in COMBINATIONS if known is None else [known]:
            if len(parts) <= 2 and torch.equal(self._combined(found, parts), v):
                self._combinations[len(parts)] = found
                return
        raise ConfigError(
            f"{self._pipeline} combines the outputs of its transformer in a way that cannot be reproduced "
            f"(scale {self._guidance:g}, {len(parts)} outputs); set policy.guidance to null"
        )

    def conditions(self, step: Step) -> Step:
        """A step without the memory of its latents: only their shapes and types are left."""
        calls = tuple({**call, self._latents: _hollow(call[self._latents])} for call in step.calls)
        return replace(step, x=_hollow(step.x), x_next=_hollow(step.x_next), v=_hollow(step.v), calls=calls)

    def velocity(
        self,
        recording: Recording,
        at: int | Sequence[int],
        x: Tensor | None = None,
        rows: Sequence[int] | None = None,
        *,
        guided: bool = True,
    ) -> Tensor:
        """The velocity at the conditions and noise levels of recorded steps, [R, ...].

        Args:
            recording: of the samples.
            at: i of the step, or one for each row.
            x: [R, ...], instead of the recorded latents.
            rows: of the recording's samples; None is all.
            guided: False gives the velocity of the prompt alone, without classifier-free guidance.
        """
        rows = range(len(recording.x)) if rows is None else rows
        steps = [recording.steps[i] for i in ([at] * len(rows) if isinstance(at, int) else at)]
        first, batch = steps[0], len(recording.x)
        x = first.x[[*rows]] if x is None else x
        outputs = []
        for n, call in enumerate(first.calls):
            picked = {
                name: _picked([step.calls[n][name] for step in steps], rows, batch)
                for name in self._batched - {self._latents}
                if _length(call.get(name))
            }
            like = call[self._latents]
            picked[self._latents] = _fitted(x, like, _length(like) // batch)
            outputs.append(self._transformer(**{**call, **picked})[0])
        parts = _parts(outputs, first.v[:1].expand(len(rows), *first.v.shape[1:]))
        return self._combined(self._combinations[len(parts)], parts, guided)

    def _combined(self, combination: Combination, parts: Sequence[Tensor], guided: bool = True) -> Tensor:
        formula, swapped, sign = combination
        without, given = parts[0], parts[-1]
        if swapped:
            without, given = given, without
        plain = len(parts) == 1 or not guided
        return sign * (given if plain else formula(without, given, self._guidance))


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


def _hollow(value: Any) -> Any:
    """NaN in the shape of an argument, without the memory for it."""
    if isinstance(value, list):
        return [_hollow(one) for one in value]
    return value.new_full((), torch.nan).expand(value.shape)


def _fitted(x: Tensor, like: Any, repeats: int) -> Any:
    """`x` [R, ...] as an argument: in its type and layout, once for each side of the guidance."""
    if isinstance(like, list):
        return [*x.to(like[0].dtype).reshape(-1, *like[0].shape)] * repeats
    return x.to(like.dtype).repeat(repeats, *[1] * (x.ndim - 1))


def _is_latents(x: Tensor, value: Any) -> bool:
    """Whether an argument is `x` [B, ...], in any of the forms that `_fitted` knows."""
    if not _length(value) or not isinstance(value[0], Tensor) or value[0].numel() != x[0].numel():
        return False
    fitted = _fitted(x, value, len(value) // len(x))
    return all(torch.equal(one, other) for one, other in zip(fitted, value, strict=True))


def _picked(values: Sequence[Any], rows: Sequence[int], batch: int) -> Any:
    """Rows of an argument, [R], from the value that it has in each row's step."""
    first = values[0]
    places = [side + row for side in range(0, _length(first), batch) for row in rows]
    if all(value is first for value in values):
        return [first[place] for place in places] if isinstance(first, list) else first[places]
    picked = [values[n % len(rows)][place] for n, place in enumerate(places)]
    return picked if isinstance(first, list) else torch.stack(picked)
