"""Run by two processes: FSDP2 spreads a judge, whose state is gathered, put back, and trained on."""

from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from prefrm.judge import Judge, JudgeSpec
from prefrm.train.collate import blank_batch
from prefrm.train.state import (
    average_gradients,
    gather_optimizer,
    gather_weights,
    is_sharded,
    load_optimizer,
    load_weights,
)


def make(checkpoint: Path) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(checkpoint)), "cpu")


def shard(judge: Judge) -> tuple[Judge, torch.optim.Optimizer]:
    mesh = init_device_mesh("cpu", (2,))
    apart = set(judge.head.parameters())
    for layer in judge.model.model.language_model.layers:
        fully_shard(layer, mesh=mesh, ignored_params=apart)
    fully_shard(judge, mesh=mesh, ignored_params=apart)
    spread = [parameter for parameter in judge.parameters() if parameter not in apart]
    return judge, torch.optim.AdamW([{"params": spread}, {"params": list(apart)}], lr=1e-3)


def step(judge: Judge, optimizer: torch.optim.Optimizer) -> None:
    """Each process has a loss of its own."""
    optimizer.zero_grad()
    (judge(blank_batch(judge.processor)).sum() * (1 + distributed.get_rank())).backward()
    average_gradients(judge)
    optimizer.step()


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    judge, optimizer = shard(make(folder))
    assert is_sharded(judge)
    step(judge, optimizer)
    weights, (tensors, groups) = gather_weights(judge), gather_optimizer(judge, optimizer)
    # Where one process keeps what all gather, the others copy nothing.
    first = distributed.get_rank() == 0
    kept = gather_weights(judge, keep=first)
    remembered, _ = gather_optimizer(judge, optimizer, keep=first)
    for some, every in ((kept, weights), (remembered, tensors)):
        assert some.keys() == (every.keys() if first else set())
        assert all(every[name].equal(tensor) for name, tensor in some.items())

    whole = make(folder)
    assert not is_sharded(whole)
    load_weights(whole, weights)
    batch = blank_batch(whole.processor)
    assert whole(batch).allclose(judge(batch), atol=1e-5)

    other, again = shard(make(folder))
    load_weights(other, weights)
    load_optimizer(other, again, tensors, groups)
    for one in ((judge, optimizer), (other, again)):
        step(*one)
    expected, found = gather_weights(judge), gather_weights(other)
    assert all(found[name].equal(tensor) for name, tensor in expected.items())
    assert not all(weights[name].equal(tensor) for name, tensor in expected.items())
    # What is not sharded is the same everywhere.
    scale = expected["head.log_scale"].clone()
    distributed.broadcast(scale, src=0)
    assert scale.equal(expected["head.log_scale"])
    distributed.destroy_process_group()
