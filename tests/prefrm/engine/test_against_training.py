"""The engine against the forward pass that is trained: every head, attention and family."""

import gc
import random
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from prefrm.engine import Engine
from prefrm.engine.attention import KVBlocks
from prefrm.judge import Judge, JudgeSpec, log_odds
from prefrm.winmatrix import Group, WinMatrix
from tests.prefrm.candidates import group_for
from tests.prefrm.judge.comparing import group_batch
from tests.prefrm.judge.families import TINY, save_checkpoint

KINDS = {
    "late": {},
    "late-ties": {"ties": True},
    "joint": {"attention": "joint"},
    "joint-ties": {"attention": "joint", "ties": True},
    "scalar": {"head": "scalar"},
    "scalar-ties": {"head": "scalar", "ties": True},
    "scalar-mlp": {"head": "scalar", "mlp": (8, 4), "uncertainty": "integrate", "positions": "sequential"},
    "embedding": {"head": "embedding", "normalize": False},
    "embedding-float64": {"head": "embedding", "dtype": torch.float64},
}
CONTENTS = {
    "edit": {"template": "fit-late-v1"},
    "edit-joint": {"attention": "joint", "template": "fit-v1"},
    "edit-scalar": {"head": "scalar", "template": "fit-alone-v1"},
    "video": {"kind": "video", "frames": 2},
    "text": {"kind": "text"},
}
"""Of other candidates, with a context and a criterion."""
PROMPTS = ("two dogs and a red kite", "x", "a cat")
SIZES = ((48, 32), (32, 32), (16, 64), (64, 48))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_checkpoint(tmp_path_factory.mktemp(name), name) for name in TINY}


def build(folder: Path, *, dtype: torch.dtype = torch.float32, **fields) -> Judge:
    torch.manual_seed(0)
    return Judge.from_base(JudgeSpec(base_model=str(folder), **fields), "cpu", dtype)


@pytest.fixture(scope="module", params=KINDS)
def judge(checkpoints, request) -> Judge:
    return build(checkpoints["qwen2_5_vl"], **KINDS[request.param])


@pytest.fixture
def alternately(request) -> bool:
    """Whether groups share passes: in every other case, so that every kind and every size meets both."""
    return sum(request.node.callspec.indices.values()) % 2 == 1


@pytest.fixture
def make_group(png) -> Callable[..., Group]:
    def make(*seeds: int, prompt: str = PROMPTS[0]) -> Group:
        return Group(prompt=prompt, candidates=tuple(png(s, *SIZES[s % len(SIZES)]) for s in seeds))

    return make


@torch.inference_mode()
def trained(judge: Judge, group: Group) -> WinMatrix:
    """By the forward pass of a training step, of all comparisons in one batch."""
    logits, ties = (np.zeros((group.size, group.size)) for _ in range(2))
    z_N, tie_N = log_odds(judge(group_batch(judge, group)))
    places = tuple(np.transpose(list(permutations(range(group.size), 2))))
    logits[places] = z_N
    ties[places] = 0.0 if tie_N is None else tie_N
    ties = (ties + ties.T) / 2
    np.fill_diagonal(ties, 1.0)
    return WinMatrix.from_order_logits(
        logits, tie=ties if judge.spec.ties else None, order_free=not judge.spec.is_pairwise
    )


def assert_equal(judge: Judge, matrix: WinMatrix, wanted: WinMatrix) -> None:
    """To 1e-5 in log-odds; of float32 embeddings, whose log-odds are ten cosines, in cosines."""
    unit = judge.head.scale.item() if judge.model.dtype == torch.float32 else 1.0
    for name in ("order_gap", "tie"):
        np.testing.assert_allclose(getattr(matrix, name), getattr(wanted, name), atol=1e-5, rtol=0)
    found, expected = (np.log(m.p.astype(np.float64)) - np.log(m.p.T) for m in (matrix, wanted))
    np.testing.assert_allclose(found, expected, atol=1e-5 * unit, rtol=0)
    assert matrix.valid.all()


@pytest.mark.parametrize("kind", KINDS | CONTENTS)
@pytest.mark.parametrize("model_type", sorted(TINY))
def test_every_family_and_kind(checkpoints, model_type: str, kind: str, alternately: bool):
    judge = build(checkpoints[model_type], **(KINDS | CONTENTS)[kind])
    groups = [group_for(judge, 0, 1, 2), group_for(judge, 3, 0, prompt="x", criterion="size")]
    matrices = Engine(judge, tokens=300, share=alternately).score(groups)
    for group, matrix in zip(groups, matrices, strict=True):
        assert_equal(judge, matrix, trained(judge, group))
    # And not because random weights say the same of everything.
    assert matrices[0].p[~np.eye(3, dtype=bool)].std() > 1e-4


@pytest.mark.parametrize("tokens", [1, 250, 9999])
def test_groups_and_images_of_all_sizes(judge: Judge, make_group, tokens: int, alternately: bool):
    groups = [make_group(4, 5), make_group(0, 1, 2, 3, 4, 5, prompt=PROMPTS[1]), make_group(6, 7, 8)]
    engine = Engine(judge, tokens=tokens, share=alternately)
    for group, matrix in zip(groups, engine.score(groups), strict=True):
        assert_equal(judge, matrix, trained(judge, group))


def test_a_large_group(judge: Judge, make_group, alternately: bool):
    group = make_group(*range(40))
    matrix = Engine(judge, share=alternately).score([group])[0]
    assert matrix.valid.all()
    some = [3, 17, 39]
    wanted = trained(judge, Group(prompt=group.prompt, candidates=tuple(group.candidates[n] for n in some)))
    assert_equal(judge, matrix.subset(some), wanted)


@pytest.mark.parametrize("seed", range(2))
def test_no_grouping_of_a_call_changes_a_bit(judge: Judge, make_group, seed: int, alternately: bool):
    """Other groups, other prompts, images known from before or not, a cache that is too small for them."""
    chance = random.Random(seed)
    groups = [
        make_group(*chance.sample(range(9), chance.randint(2, 4)), prompt=chance.choice(PROMPTS))
        for _ in range(4)
    ]
    tokens = (200, 2048)[seed]
    alone = [
        Engine(judge, tokens=tokens, cache_bytes=0, share=alternately).score([group])[0] for group in groups
    ]
    order = chance.sample(range(4), 4)
    cut = chance.randint(1, 3)
    for cache_bytes in (0, 3000, 10**6):
        engine = Engine(judge, tokens=tokens, cache_bytes=cache_bytes, share=alternately)
        found = engine.score([groups[n] for n in order[:cut]]) + engine.score(
            [groups[n] for n in order[cut:]]
        )
        assert all(matrix.equals(alone[n]) for n, matrix in zip(order, found, strict=True))


def test_small_groups_share_passes_of_few_shapes(judge: Judge, make_group):
    shapes = []
    handle = judge.model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    passes = {}
    for share in (False, True):
        shapes.clear()
        groups = [make_group(n, n + 9, prompt=f"{n} kites") for n in range(8)]
        Engine(judge, tokens=1500, share=share).score(groups)
        passes[share] = list(shapes)
    handle.remove()
    assert len(passes[True]) < len(passes[False]) / 2
    # One for each length, whatever number of rows there is.
    assert len(set(passes[True])) == len({length for _, length in passes[True]})
    # An answer of one token is not padded.
    lengths = {length for _, length in passes[True]}
    assert all(rows * length <= 1500 and (length == 1 or not length % 8) for rows, length in passes[True])
    assert (1 in lengths) == (judge.spec.attention == "late")


def test_memory_is_returned(judge: Judge, make_group, alternately: bool, monkeypatch: pytest.MonkeyPatch):
    """Nothing that was read of a group outlives it but what the cache holds."""
    kept = []
    init = KVBlocks.__init__

    def watched(self, **fields):
        init(self, **fields)
        kept.append(weakref.ref(self.stacked_FGCLD))

    monkeypatch.setattr(KVBlocks, "__init__", watched)
    engine = Engine(judge, tokens=200, cache_bytes=2000, share=alternately)
    engine.score([make_group(0, 1, 2)])
    gc.collect()
    assert kept and not [reference for reference in kept if reference() is not None]
    assert engine.cache.nbytes <= 2000


@pytest.mark.parametrize("cache_bytes", [0, 3000, 10**6])
def test_an_image_and_a_prompt_are_encoded_once_in_a_call(judge: Judge, make_group, cache_bytes: int):
    """However small the cache is: a group holds what a later one needs."""
    towers, passes = [], []
    tower = judge.model.get_submodule(judge.family.vision_tower)
    handles = [
        tower.register_forward_pre_hook(lambda module, args: towers.append(args)),
        judge.model.get_decoder().register_forward_pre_hook(
            lambda module, args, kwargs: passes.append(kwargs["inputs_embeds"].shape), with_kwargs=True
        ),
    ]
    groups = [make_group(0, 1, 2), make_group(2, 3, prompt="x"), make_group(1, 0, 3)]
    Engine(judge, cache_bytes=cache_bytes).score(groups)
    for handle in handles:
        handle.remove()
    assert len(towers) == 4
    prefixes = {len(judge.processor.tree(prompt, {}).prefix) for prompt in (PROMPTS[0], "x")}
    read = [length for rows, length, _ in passes if rows == 1 and length in prefixes]
    assert sorted(read) == sorted(prefixes)


def test_an_error_inside_a_pass_leaves_the_model_as_it_was(judge: Judge, make_group):
    group, engine = make_group(0, 1, 2), Engine(judge)
    wanted, config = trained(judge, group), judge.model.get_decoder().config
    before = config._attn_implementation

    def fail(module, args):
        raise ValueError("in the middle")

    handle = judge.model.get_decoder().layers[1].register_forward_pre_hook(fail)
    with pytest.raises(ValueError, match="in the middle"):
        engine.score([group])
    handle.remove()
    assert config._attn_implementation == before
    assert_equal(judge, trained(judge, group), wanted)
    assert_equal(judge, engine.score([group])[0], wanted)


def test_two_engines_on_one_judge_in_two_threads(judge: Judge, make_group):
    groups = [make_group(0, 1, 2), make_group(3, 4, 5)]
    wanted = [Engine(judge).score([group])[0] for group in groups]
    engines = [Engine(judge, cache_bytes=0) for _ in range(2)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = [pool.submit(engines[n % 2].score, [groups[n % 2]]) for n in range(12)]
        assert all(one.result()[0].equals(wanted[n % 2]) for n, one in enumerate(found))


def test_groups_may_come_from_whoever_asks_the_engine(judge: Judge, make_group):
    engine = Engine(judge)

    def groups():
        for seeds in ((0, 1), (2, 3)):
            engine.score([make_group(4, 5)])
            assert not torch.is_inference_mode_enabled()
            yield make_group(*seeds)

    assert len(engine.score(groups())) == 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("kind", ["late", "joint", "scalar"])
def test_half_precision_costs_the_engine_no_more_than_training(
    checkpoints, make_group, kind: str, dtype: str
):
    group = make_group(*range(6))
    full = build(checkpoints["qwen2_5_vl"], **KINDS[kind])
    torch.manual_seed(0)
    half = Judge.from_base(full.spec, "cpu", dtype)
    wanted = trained(full, group)
    in_training, in_the_engine = (
        np.std(np.log(m.p / m.p.T) - np.log(wanted.p / wanted.p.T))
        for m in (trained(half, group), Engine(half).score([group])[0])
    )
    assert 0 < in_the_engine < 2 * in_training
    odds = np.log(wanted.p / wanted.p.T)[~np.eye(group.size, dtype=bool)]
    assert in_the_engine < 0.5 * odds.std()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
# The compiler's own imports are full of what it deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_layers_say_the_same(checkpoints, make_group):
    judge = build(checkpoints["qwen2_5_vl"], **KINDS["late"])
    groups = [make_group(0, 1, 2), make_group(3, 4)]
    wanted = [trained(judge, group) for group in groups]
    for matrix, plain in zip(Engine(judge, compile=True).score(groups), wanted, strict=True):
        assert_equal(judge, matrix, plain)
    layers = judge.model.get_decoder().layers
    assert all(layer._compiled_call_impl is not None for layer in layers[:-1])
