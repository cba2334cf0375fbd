"""Passes that groups share: full ones, and ones with as few rows as they need."""

import numpy as np
import pytest
import torch

from prefrm.engine import Engine
from prefrm.engine.passes import Passes
from prefrm.judge import Judge, JudgeSpec
from prefrm.winmatrix import Group


@pytest.fixture
def judge(tiny_checkpoint) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), attention="late"), "cpu")


def test_passes_that_need_not_be_full_compute_less_and_say_the_same(judge: Judge, png):
    groups = [
        Group(prompt=prompt, candidates=tuple(png(seed, 48, 32) for seed in seeds))
        for prompt, seeds in (("a cat", (0, 1, 2)), ("two dogs", (3, 1)))
    ]
    shapes: list[tuple[int, int]] = []
    judge.model.get_decoder().layers[0].register_forward_pre_hook(
        lambda layer, args: shapes.append(tuple(args[0].shape[:2]))
    )
    wanted = Engine(judge, tokens=1024, share=True).score(groups)
    full = dict.fromkeys(shapes)
    shapes.clear()
    engine = Engine(judge, tokens=1024, share=True)
    engine._passes = Passes(judge, 1024, share=True, full=False)
    found = engine.score(groups)
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine.p, theirs.p, atol=1e-5)
    rows = {length: count for count, length in full}
    assert {length for _, length in shapes} == set(rows)
    assert all(count < rows[length] for count, length in shapes)


@pytest.mark.gpu
def test_what_else_is_in_a_call_on_a_gpu(tiny_checkpoint, png):
    """It changes no bit if passes are full, and log-odds by less than 1e-3 if not."""
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), attention="late"), "cuda")
    group, *others = (
        Group(prompt=prompt, candidates=tuple(png(seed, 48, 32) for seed in seeds))
        for prompt, seeds in (("a cat", (0, 1, 2)), ("two dogs", (3, 1)), ("x" * 50, (4, 5, 6, 7)))
    )
    for deterministic in (True, False):
        engine = Engine(judge, cache_bytes=0, deterministic=deterministic)
        alone, among = engine.score([group])[0], engine.score([*others, group])[-1]
        assert among.equals(alone) or not deterministic
        odds, other = (np.log(one.p) - np.log1p(-one.p) for one in (alone, among))
        np.testing.assert_allclose(other, odds, atol=1e-3)


@pytest.mark.gpu
# The compiler's own imports are full of what it deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_graphs_on_a_gpu(tiny_checkpoint, png):
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), attention="late"), "cuda")
    groups = [
        Group(prompt=prompt, candidates=tuple(png(seed, 48, 32) for seed in seeds))
        for prompt, seeds in (("a cat", (0, 1, 2)), ("a dog", (3, 1, 4)))
    ]
    wanted = [Engine(judge).score([group])[0] for group in groups]
    engine = Engine(judge, compile=True)
    found = [engine.score([group])[0] for group in groups]
    assert engine._passes._graphs is not None and len(engine._passes._graphs) > 0
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine.p, theirs.p, atol=1e-3)
