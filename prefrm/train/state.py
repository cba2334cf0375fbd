"""The state of a training as tensors and JSON: trainable weights, optimizer, random number generators.

weights.safetensors     every trainable parameter, by its name
optimizer.safetensors   the optimizer's state of each: `name/exp_avg` and so on

Sharded parameters are gathered, so a checkpoint does not depend on how they were sharded.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import DTensor, distribute_tensor

from prefrm.judge.weights import check_weights

__all__ = [
    "average_gradients",
    "gather_optimizer",
    "gather_weights",
    "is_sharded",
    "load_optimizer",
    "load_weights",
    "random_state",
    "set_random_state",
]

Tensors = dict[str, torch.Tensor]


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether some parameters are sharded over processes."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def average_gradients(model: torch.nn.Module) -> None:
    """Over all processes, of the trainable parameters that are not sharded."""
    for _, parameter in _trainable(model):
        if not isinstance(parameter, DTensor) and parameter.grad is not None:
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def gather_weights(model: torch.nn.Module, *, keep: bool = True) -> Tensors:
    """A copy on the CPU of every trainable parameter, whole. All processes must call it.

    Without `keep` a process only takes part: it holds no more than one whole parameter at once.
    """
    return _gathered(_trainable(model), keep)


def load_weights(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Restore the result of `gather_weights`. Raises `ConfigError` if it is of other parameters."""
    learning = dict(_trainable(model))
    check_weights("the checkpoint", weights, learning)
    with torch.no_grad():
        for name, parameter in learning.items():
            parameter.copy_(_spread(weights[name].to(parameter.device), parameter))


def gather_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, keep: bool = True
) -> tuple[Tensors, list[Any]]:
    """The optimizer's state of each parameter, as `name/key`, and the settings of its groups as JSON.

    `keep` is as in `gather_weights`.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optimizer.param_groups
    remembered = (
        (f"{names[id(parameter)]}/{what}", value)
        for group in groups
        for parameter in group["params"]
        for what, value in optimizer.state.get(parameter, {}).items()
    )
    return _gathered(remembered, keep), [
        {key: value for key, value in group.items() if key != "params"} for group in groups
    ]


def load_optimizer(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, torch.Tensor],
    groups: list[dict[str, Any]],
) -> None:
    """Restore the result of `gather_optimizer`."""
    parameters = dict(model.named_parameters())
    listed = (parameter for group in optimizer.param_groups for parameter in group["params"])
    places = {id(parameter): place for place, parameter in enumerate(listed)}
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        name, what = key.rsplit("/", 1)
        parameter = parameters[name]
        state.setdefault(places[id(parameter)], {})[what] = _spread(value, parameter)
    plain = optimizer.state_dict()["param_groups"]
    merged = [old | saved for old, saved in zip(plain, groups, strict=True)]
    optimizer.load_state_dict({"state": state, "param_groups": merged})


def random_state() -> dict[str, str]:
    """The states of torch's random number generators, of the CPU and the accelerator, in hex.

    A training draws from no other global generator: the order of groups has its own.
    """
    state = {"torch": _hex(torch.get_rng_state())}
    if torch.cuda.is_available():
        state["cuda"] = _hex(torch.cuda.get_rng_state())
    return state


def set_random_state(state: Mapping[str, str]) -> None:
    """Restore the result of `random_state`."""
    torch.set_rng_state(_from_hex(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_hex(state["cuda"]))


def _trainable(model: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def _gathered(tensors: Iterable[tuple[str, torch.Tensor]], keep: bool) -> Tensors:
    """Whole copies on the CPU, by name; none of them without `keep`."""
    copies = {}
    for name, tensor in tensors:
        whole = tensor.detach()
        if isinstance(whole, DTensor):
            whole = whole.full_tensor()
        if keep:
            copies[name] = whole.to("cpu", copy=True).contiguous()
    return copies


def _spread(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """`tensor` sharded as `like`, if it has the same shape."""
    if isinstance(like, DTensor) and tensor.shape == like.shape:
        return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)
    return tensor


def _hex(state: torch.Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
