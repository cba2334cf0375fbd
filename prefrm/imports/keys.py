"""Rules from published names of weights to the names that a model of `transformers` has."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from prefrm.errors import ConfigError
from prefrm.imports.reading import Checkpoint

__all__ = ["Rule", "drop", "move", "renamed", "split", "transpose"]

NAMED = 3
"""Keys that an error names; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Rule:
    r"""What becomes of the keys that a regular expression matches whole.

    Attributes:
        pattern: of a key.
        targets: new names, with groups of the pattern as `\1`; none drops the key.
        change: the tensors for them, in that order.
    """

    pattern: str
    targets: tuple[str, ...]
    change: Callable[[torch.Tensor], Sequence[torch.Tensor]]


def move(pattern: str, target: str) -> Rule:
    """The tensor as it is, under another name."""
    return Rule(pattern, (target,), lambda tensor: (tensor,))


def transpose(pattern: str, target: str) -> Rule:
    """A matrix the other way round, as `nn.Linear` has it."""
    return Rule(pattern, (target,), lambda tensor: (tensor.T.contiguous(),))


def split(pattern: str, *targets: str) -> Rule:
    """Equal parts along the first axis, one for each target."""
    return Rule(pattern, targets, lambda tensor: [part.contiguous() for part in tensor.chunk(len(targets))])


def drop(pattern: str) -> Rule:
    """Left out: not needed for a score."""
    return Rule(pattern, (), lambda tensor: ())


def renamed(checkpoint: Checkpoint, rules: Sequence[Rule]) -> dict[str, torch.Tensor]:
    """The weights under their new names; the first rule that matches a key counts.

    Raises:
        ConfigError: no rule matches a key, a tensor cannot be split or transposed, or two have one new name;
            the keys are named.
    """
    found: dict[str, torch.Tensor] = {}
    unknown = []
    for key, tensor in checkpoint.tensors.items():
        match = next(((rule, m) for rule in rules if (m := re.fullmatch(rule.pattern, key))), None)
        if match is None:
            unknown.append(key)
            continue
        for name, part in _parts(checkpoint, key, tensor, *match).items():
            if name in found:
                raise ConfigError(f"{checkpoint.name}: {key} and another key both are {name}")
            found[name] = part
    if unknown:
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        raise ConfigError(
            f"{checkpoint.name} has {len(unknown)} unknown weights ({', '.join(unknown[:NAMED])}{more}); "
            "is it the checkpoint of this judge?"
        )
    return found


def _parts(
    checkpoint: Checkpoint, key: str, tensor: torch.Tensor, rule: Rule, match: re.Match[str]
) -> Mapping[str, torch.Tensor]:
    parts = rule.change(tensor)
    if len(parts) != len(rule.targets) or len({part.shape for part in parts}) > 1:
        raise ConfigError(
            f"{checkpoint.name}: {key} is {list(tensor.shape)}, which has not {len(rule.targets)} equal parts"
        )
    return {match.expand(target): part for target, part in zip(rule.targets, parts, strict=True)}
