"""Default sizes of passes, by device."""

import pytest
import torch

from prefrm.engine import DEFAULT_TOKENS, Engine
from prefrm.engine.pass_sizes import PassSizes, activation_bytes
from prefrm.judge import Judge, JudgeSpec

# Of a model of 3 and one of 7 billion parameters, in bfloat16.
THREE, SEVEN = 2 * (8 * 2048 + 3 * 11008), 2 * (8 * 3584 + 3 * 18944)
GIB = 2**30


@pytest.mark.parametrize(
    ("device", "memory", "token_bytes", "tokens", "patches"),
    [
        ("cpu", 0, SEVEN, 2048, 1),
        ("mps", 0, THREE, 2048, 8192),
        ("cuda", 141 * GIB, SEVEN, 16384, 16384),
        ("cuda", 24 * GIB, THREE, 16384, 16384),
        ("cuda", 16 * GIB, SEVEN, 8192, 8192),
        ("cuda", 8 * GIB, THREE, 8192, 8192),
        ("cuda", 1 * GIB, SEVEN, 2048, 2048),
    ],
)
def test_sizes_by_device(device: str, memory: int, token_bytes: int, tokens: int, patches: int):
    found = PassSizes.default(device, memory, token_bytes)
    assert found == PassSizes(tokens=tokens, patches=patches)


def test_sizes_in_words():
    assert str(PassSizes(tokens=2048, patches=1)) == "2048 tokens and one image"
    assert str(PassSizes(tokens=16384, patches=8192)) == "16384 tokens and 8192 patches"


def test_an_engine_shows_its_sizes(tiny_checkpoint):
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint)), "cpu", torch.float32)
    assert Engine(judge).pass_sizes == PassSizes(tokens=DEFAULT_TOKENS, patches=1)
    assert Engine(judge, tokens=7, patches=9).pass_sizes == PassSizes(tokens=7, patches=9)
    config = judge.model.config.text_config
    assert activation_bytes(judge.model) == 4 * (8 * config.hidden_size + 3 * config.intermediate_size)
