"""A quantized judge: which layers are in four bits, what they stand for, and what is left alone."""

import re
import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from torch import nn

from prefrm.errors import ConfigError, MissingExtraError
from prefrm.judge import Judge, JudgeBatch, JudgeSpec
from prefrm.judge.quantization import dequantize
from tests.prefrm.judge.comparing import batch_of, prepared

# QLoRA, appendix E.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


@pytest.fixture
def quantized(wide_checkpoint: Path) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(wide_checkpoint), quantize="nf4"), "cpu")


@pytest.fixture
def plain(wide_checkpoint: Path) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(wide_checkpoint)), "cpu")


def layers(judge: Judge) -> dict[str, Linear4bit]:
    return {name: m for name, m in judge.model.named_modules() if isinstance(m, Linear4bit)}


def batch(judge: Judge, png) -> JudgeBatch:
    return batch_of(judge, "a cat", prepared(judge, [png(seed) for seed in range(3)]))


def test_the_linear_layers_of_the_language_model_are_quantized_and_nothing_else(
    quantized: Judge, plain: Judge
) -> None:
    linear = [name for name, m in plain.model.named_modules() if isinstance(m, nn.Linear)]
    expected = {name for name in linear if ".language_model." in name}
    assert set(layers(quantized)) == expected and len(expected) == 2 * 7
    for layer in layers(quantized).values():
        assert layer.weight.dtype == torch.uint8
        assert layer.weight.quant_state.quant_type == "nf4" and layer.weight.quant_state.nested
        assert layer.compute_dtype == torch.float32
    before = plain.model.state_dict()
    weights = {f"{name}.weight" for name in expected}
    assert all(
        torch.equal(parameter, before[name])
        for name, parameter in quantized.model.named_parameters()
        if name not in weights
    )


def test_a_quantized_layer_takes_a_quarter_of_the_bytes_of_float16(quantized: Judge, plain: Judge) -> None:
    """Half a byte a weight, one byte a block of 64 and four a block of blocks; tables of constants apart."""
    stored = 0
    for layer in layers(quantized).values():
        state = layer.weight.quant_state
        stored += layer.weight.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes
    halves = sum(2 * plain.model.get_submodule(name).weight.numel() for name in layers(quantized))
    assert 0.25 < stored / halves < 0.27


def test_a_weight_stands_for_the_nearest_of_sixteen_levels(quantized: Judge, plain: Judge) -> None:
    """Each block of 64 weights is scaled by its largest; the scales are rounded to eight bits in turn."""
    levels = torch.tensor(NF4)
    names = list(layers(quantized))
    found = dequantize(quantized.model, torch.float32)
    for name in names:
        blocks = plain.model.get_submodule(name).weight.detach().reshape(-1, 64)
        scale = blocks.abs().amax(dim=1, keepdim=True)
        nearest = levels[(blocks[..., None] / scale[..., None] - levels).abs().argmin(dim=-1)]
        error = (found.get_submodule(name).weight.reshape(-1, 64) - nearest * scale).abs() / scale
        assert error.max() < 0.05


def test_it_computes_in_the_dtype_of_the_judge(wide_checkpoint: Path, png) -> None:
    spec = JudgeSpec(base_model=str(wide_checkpoint), quantize="nf4")
    judge = Judge.from_base(spec, "cpu", "bfloat16")
    assert judge.model.dtype == torch.bfloat16
    assert {layer.compute_dtype for layer in layers(judge).values()} == {torch.bfloat16}
    assert judge(batch(judge, png)).isfinite().all()


def test_a_quantized_judge_is_near_the_plain_one_and_is_not_it(quantized: Judge, plain: Judge, png) -> None:
    """The verdicts are those of a plain judge with the weights that the quantized layers stand for."""
    with torch.inference_mode():
        verdicts = quantized(batch(quantized, png))
        assert not torch.equal(verdicts, plain(batch(plain, png)))
    quantized.backbone = dequantize(quantized.model, torch.float32)
    assert not layers(quantized)
    torch.testing.assert_close(quantized(batch(quantized, png)).detach(), verdicts, atol=1e-5, rtol=0)


def test_an_evaluation_changes_no_weight_and_costs_no_gradient(quantized: Judge, png) -> None:
    """On some processors bitsandbytes would pack the weights for a kernel without a gradient."""
    before = {name: layer.weight.data.clone() for name, layer in layers(quantized).items()}
    with torch.inference_mode():
        verdicts = quantized(batch(quantized, png))
    assert all(torch.equal(layer.weight.data, before[name]) for name, layer in layers(quantized).items())
    quantized.train()
    embedding = quantized.model.get_input_embeddings().weight
    embedding.requires_grad_(True)
    again = quantized(batch(quantized, png))
    assert torch.equal(again.detach(), verdicts)
    again.sum().backward()
    assert embedding.grad.abs().sum() > 0


def test_a_layer_that_does_not_fit_is_named(tiny_checkpoint: Path) -> None:
    name = re.escape("model.language_model.layers.0.self_attn.q_proj has 32")
    with pytest.raises(ConfigError, match=f"multiple of 64 inputs, and {name}"):
        Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), quantize="nf4"), "cpu")


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_without_the_library_the_extra_is_named(
    wide_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*prefrm\[train\]"):
        Judge.from_base(JudgeSpec(base_model=str(wide_checkpoint), quantize="nf4"), "cpu")
