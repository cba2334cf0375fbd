"""Recorded passes: they compute with what their tensors hold by then, and give the bits of the pass."""

import logging
from dataclasses import dataclass

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from prefrm.engine import Engine
from prefrm.engine.compilation import PassGraphs
from prefrm.engine.passes import Passes
from prefrm.judge import Judge, JudgeSpec
from prefrm.winmatrix import Group
from tests.prefrm.judge.families import save_checkpoint

KINDS = {
    "joint": {"attention": "joint"},
    "late": {"attention": "late"},
    "scalar": {"head": "scalar"},
}


def record_operations(compute, reads):
    """What a CUDA graph does, on a CPU: the operations are traced once, and repeated without any Python.

    A number that Python reads off a tensor is an error for both.
    """
    traced = make_fx(compute)(reads)
    return lambda: traced(reads)


@dataclass(frozen=True, slots=True)
class Inputs:
    x: torch.Tensor
    rest: tuple[torch.Tensor, ...] = ()
    factor: float = 2.0


def total(inputs: Inputs) -> list[torch.Tensor]:
    return [inputs.factor * inputs.x + sum(y.sum() for y in inputs.rest)]


def test_a_recording_repeats_a_computation_with_other_numbers():
    graphs = PassGraphs(record_operations)
    for n in range(3):
        inputs = Inputs(torch.full((4,), float(n)), (torch.ones(2), torch.ones(n % 2 + 1)))
        (found,) = graphs.run("total", inputs, total)
        assert torch.equal(found, total(inputs)[0])
    # One for each shape.
    assert len(graphs) == 2


def test_kinds_have_recordings_of_their_own():
    graphs, inputs = PassGraphs(record_operations), Inputs(torch.ones(3))
    assert graphs.run("total", inputs, total)[0].tolist() == [2.0] * 3
    assert graphs.run("half", inputs, lambda some: [some.x / 2])[0].tolist() == [0.5] * 3
    assert len(graphs) == 2


def test_beyond_the_bound_nothing_is_recorded():
    graphs = PassGraphs(record_operations, most=2)
    for size in (1, 2, 3, 4, 1):
        inputs = Inputs(torch.arange(float(size)))
        assert torch.equal(graphs.run("total", inputs, total)[0], total(inputs)[0])
    assert len(graphs) == 2


def test_what_cannot_be_recorded_is_computed_and_said_once(caplog):
    def read(inputs: Inputs) -> list[torch.Tensor]:
        return [inputs.x * inputs.x.sum().item()]

    graphs = PassGraphs(record_operations)
    with caplog.at_level(logging.WARNING):
        for size in (2, 2, 3):
            assert graphs.run("read", Inputs(torch.ones(size)), read)[0].tolist() == [size] * size
    assert len(graphs) == 0 and len(caplog.records) == 1
    assert "not recorded as CUDA graphs" in caplog.text


# In Qwen3-VL features of images enter deeper layers: passes without images alone are recorded.
@pytest.mark.parametrize(
    ("kind", "family"),
    [("joint", "qwen2_5_vl"), ("late", "qwen2_5_vl"), ("scalar", "llava_onevision"), ("late", "qwen3_vl")],
)
def test_recorded_passes_give_the_same_bits(kind: str, family: str, tmp_path, png):
    """Of two groups, the second through what was recorded of the first."""
    folder = save_checkpoint(tmp_path, family)
    judge = Judge.from_base(JudgeSpec(base_model=str(folder), **KINDS[kind]), "cpu")
    groups = [
        Group(prompt=prompt, candidates=tuple(png(seed, 32, 32) for seed in seeds))
        for prompt, seeds in (("a cat", (0, 1)), ("a dog", (2, 1)))
    ]
    plain = Engine(judge, tokens=128, share=True)
    wanted = [plain.score([group])[0] for group in groups]
    engine, graphs = Engine(judge, tokens=128, share=True), PassGraphs(record_operations)
    engine._passes = Passes(judge, 128, share=True, graphs=graphs)
    found = engine.score(groups[:1])
    recorded = len(graphs)
    found += engine.score(groups[1:])
    assert all(mine.equals(theirs) for mine, theirs in zip(found, wanted, strict=True))
    assert not found[0].equals(found[1])
    assert 0 < recorded == len(graphs)
