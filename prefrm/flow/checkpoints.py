"""What a run is made of after an iteration, as tensors and JSON: adapters, their average, the optimizer.

weights.safetensors   default.N and old.N, the weights in order; ema.N; and of the optimizer NAME.N
state.json            the iteration, counts of updates, the scaler's state, and the settings of the run

Random numbers derive from seeds, so nothing else is needed to go on bit by bit.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from prefrm.errors import ConfigError
from prefrm.flow.trainer import Trainer

__all__ = ["load_checkpoint", "save_checkpoint"]

WEIGHTS, STATE = "weights.safetensors", "state.json"
# What may change when a run is resumed.
FREE = ("output", "device", "optim.iterations", "checkpoint_every", "report_to", "evaluation", "held_out")


def save_checkpoint(folder: Path, trainer: Trainer, iteration: int, settings: Mapping[str, Any]) -> None:
    """Fill an empty folder, after an iteration."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(trainer).items()}
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / WEIGHTS)
    scaler = trainer.accelerator.scaler
    state = {
        "iteration": iteration,
        "updates": trainer.updates,
        "averaged": 0 if trainer.ema is None else trainer.ema.optimization_step,
        "scaler": None if scaler is None else scaler.state_dict(),
        "settings": settings,
    }
    (folder / STATE).write_text(json.dumps(state), encoding="utf-8")


def load_checkpoint(folder: Path, trainer: Trainer, settings: Mapping[str, Any]) -> int:
    """Put everything back; returns the number of iterations that are done.

    Raises:
        ConfigError: the checkpoint is of a run with other settings.
    """
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    before, now = (_flat(one) for one in (state["settings"], json.loads(json.dumps(settings))))
    changed = [
        key for key in {**before, **now} if before.get(key) != now.get(key) and not key.startswith(FREE)
    ]
    if changed:
        what = ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed)
        raise ConfigError(f"{folder} is of a run with other settings: {what}; set them as they were")
    tensors = load_file(folder / WEIGHTS)
    optimizer: torch.optim.Optimizer = trainer.optimizer.optimizer
    for n, parameter in enumerate(trainer.parameters):
        own = {name[: -len(f".{n}")]: t for name, t in tensors.items() if name.endswith(f".{n}")}
        own = {name: t for name, t in own.items() if name not in ("default", "old", "ema")}
        optimizer.state[parameter] = {
            name: t if name == "step" else t.to(parameter.device) for name, t in own.items()
        }
    with torch.no_grad():
        for name, tensor in _tensors(trainer).items():
            tensor.copy_(tensors[name])
    trainer.updates = state["updates"]
    if trainer.ema is not None:
        trainer.ema.optimization_step = state["averaged"]
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["iteration"])


def _tensors(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Everything by name, as it is."""
    named: dict[str, Sequence[torch.Tensor]] = {"default": trainer.parameters}
    if trainer.method.needs_old:
        named["old"] = trainer.policy.parameters("old")
    if trainer.ema is not None:
        named["ema"] = trainer.ema.shadow_params
    tensors: dict[str, torch.Tensor] = {
        f"{name}.{n}": tensor for name, all_of in named.items() for n, tensor in enumerate(all_of)
    }
    optimizer: torch.optim.Optimizer = trainer.optimizer.optimizer
    for n, parameter in enumerate(trainer.parameters):
        tensors |= {f"{name}.{n}": value for name, value in optimizer.state.get(parameter, {}).items()}
    return tensors


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix.rstrip("."): tree}
    return {
        key: value for name, item in tree.items() for key, value in _flat(item, f"{prefix}{name}.").items()
    }
