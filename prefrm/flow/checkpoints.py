"""Checkpoints of a run, as tensors and JSON: adapters and the optimizer's state.

weights.safetensors   ADAPTER.N, the weights of each adapter in order, and optimizer.N.NAME
state.json            the iteration, the number of updates, the scaler's state, and the settings of the run

Random numbers derive from seeds, so nothing else is needed to continue bit by bit.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from prefrm.config import flatten
from prefrm.errors import ConfigError
from prefrm.flow.trainer import Trainer

__all__ = ["load_checkpoint", "save_checkpoint"]

WEIGHTS, STATE = "weights.safetensors", "state.json"
# Settings that may change when a run is resumed.
FREE = ("output", "device", "optim.iterations", "checkpoint_every", "report_to", "evaluation", "held_out")


def save_checkpoint(folder: Path, trainer: Trainer, iteration: int, settings: Mapping[str, Any]) -> None:
    """Fill an empty folder, after an iteration."""
    states = trainer.optimizer.state_dict()["state"].items()
    optimizer = {f"optimizer.{n}.{name}": tensor for n, state in states for name, tensor in state.items()}
    tensors = {name: tensor.detach().cpu() for name, tensor in (_adapters(trainer) | optimizer).items()}
    save_file(tensors, folder / WEIGHTS)
    scaler = trainer.accelerator.scaler
    state = {
        "iteration": iteration,
        "updates": trainer.updates,
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
        for name, weight in _adapters(trainer).items():
            weight.copy_(tensors.pop(name))
    optimizer = trainer.optimizer.state_dict()
    for key, tensor in tensors.items():
        _, n, name = key.split(".")
        optimizer["state"].setdefault(int(n), {})[name] = tensor
    trainer.optimizer.load_state_dict(optimizer)
    trainer.updates = state["updates"]
    if trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["iteration"])


def _adapters(trainer: Trainer) -> dict[str, torch.Tensor]:
    policy = trainer.policy
    return {f"{name}.{n}": w for name in policy.adapters for n, w in enumerate(policy.parameters(name))}
