"""What a group is estimated to cost, against the tokens that the engine reads for it."""

import pytest
import torch

from prefrm.engine import Engine
from prefrm.engine.passes import Passes
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import decode
from prefrm.winmatrix import Group

KINDS = {
    "joint": {},
    "isolated": {"attention": "isolated"},
    "scalar": {"head": "scalar"},
}


@pytest.fixture(params=KINDS)
def judge(tiny_checkpoint, request) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), **KINDS[request.param]), "cpu")


@pytest.mark.parametrize("count", [2, 7])
def test_the_estimate_is_near_what_is_read(judge, count, png, monkeypatch):
    read = []
    for name in ("keep", "read"):
        real = getattr(Passes, name)

        def counting(passes, rows, *rest, real=real):
            read.extend(len(row) for row in (rows.values() if isinstance(rows, dict) else rows))
            return real(passes, rows, *rest)

        monkeypatch.setattr(Passes, name, counting)
    group = Group(prompt="", images=tuple(png(seed, 64, 64) for seed in range(count)))
    engine = Engine(judge)
    engine.score([group])
    in_the_tower = count * engine.judge.processor.prepare_image(decode(group.images[0])).tokens
    assert engine.cost(group) == pytest.approx(sum(read) + in_the_tower, rel=0.35)


def test_what_cannot_be_read_and_what_is_not_judged_costs_nothing(judge, png):
    images = tuple(png(seed, 64, 64) for seed in range(6))
    whole = Engine(judge).cost(Group(prompt="", images=images))
    assert Engine(judge).cost(Group(prompt="", images=(*images, None, b"no image"))) == whole
    assert Engine(judge).cost(Group(prompt="", images=(None, None))) == 1
    budget = Engine(judge, pairs=5).cost(Group(prompt="", images=images))
    assert (budget < whole) == judge.spec.is_pairwise


def test_larger_images_cost_more(judge, png):
    small, large = (Group(prompt="", images=(png(0, side, side),) * 2) for side in (32, 128))
    assert Engine(judge).cost(small) < Engine(judge).cost(large)
