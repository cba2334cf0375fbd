"""Bundles of a judge on a quantized base: an adapter needs it so again, a merged model is plain."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from prefrm.bundle import Manifest, load_bundle, read_manifest, standalone, write_bundle
from prefrm.errors import MissingExtraError
from prefrm.judge import Judge, JudgeSpec
from tests.prefrm.judge.comparing import noise_verdicts


def write(folder: Path, judge: Judge) -> Manifest:
    return write_bundle(
        folder, judge, calibration=None, data_fingerprint="f" * 64, metrics={}, card="# A judge\n"
    )


def quantized_layers(judge: Judge) -> int:
    return sum(isinstance(module, Linear4bit) for module in judge.model.modules())


def build(checkpoint: Path, dtype: str) -> Judge:
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoint), quantize="nf4"), "cpu", dtype)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=judge.family.lora_targets, init_lora_weights=False)
    judge.backbone = get_peft_model(judge.backbone, config).eval()
    return judge


@pytest.fixture
def adapted(wide_checkpoint: Path) -> Judge:
    return build(wide_checkpoint, "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_adapter_comes_back_on_the_same_base_to_the_last_bit(
    wide_checkpoint: Path, tmp_path: Path, png, dtype: str
) -> None:
    judge = build(wide_checkpoint, dtype)
    manifest = write(tmp_path / "b", judge)
    loaded = load_bundle(tmp_path / "b", "cpu", dtype).judge
    assert manifest.spec.quantize == read_manifest(tmp_path / "b").spec.quantize == "nf4"
    assert quantized_layers(loaded) == quantized_layers(judge) == 14
    assert "bitsandbytes" in manifest.versions
    assert torch.equal(noise_verdicts(loaded, png), noise_verdicts(judge, png))


def test_an_adapter_of_a_quantized_base_is_another_judge_on_the_plain_one(
    adapted: Judge, tmp_path: Path, png
) -> None:
    before = noise_verdicts(adapted, png)
    adapted.spec = replace(adapted.spec, quantize=None)
    write(tmp_path / "b", adapted)
    assert (noise_verdicts(load_bundle(tmp_path / "b", "cpu").judge, png) - before).abs().max() > 1e-3


def test_a_merged_bundle_is_plain_and_differs_by_rounding(adapted: Judge, tmp_path: Path, png) -> None:
    before = noise_verdicts(adapted, png)
    manifest = write(tmp_path / "b", standalone(adapted))
    assert torch.equal(noise_verdicts(adapted, png), before)
    assert quantized_layers(adapted) == 14
    assert manifest.weights == "model" and manifest.spec.quantize is None
    assert "bitsandbytes" not in manifest.versions
    assert "quantization_config" not in json.loads((tmp_path / "b" / "model" / "config.json").read_text())
    loaded = load_bundle(tmp_path / "b", "cpu").judge
    assert quantized_layers(loaded) == 0
    torch.testing.assert_close(noise_verdicts(loaded, png), before, atol=1e-5, rtol=0)


def test_a_merged_bundle_has_the_dtype_of_the_judge(wide_checkpoint: Path, tmp_path: Path) -> None:
    write(tmp_path / "b", standalone(build(wide_checkpoint, "bfloat16")))
    weights = load_file(tmp_path / "b" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_a_quantized_judge_without_an_adapter_is_written_plain(
    wide_checkpoint: Path, tmp_path: Path, png
) -> None:
    judge = Judge.from_base(JudgeSpec(base_model=str(wide_checkpoint), quantize="nf4"), "cpu")
    assert write(tmp_path / "b", judge).spec.quantize is None
    loaded = load_bundle(tmp_path / "b", "cpu").judge
    torch.testing.assert_close(noise_verdicts(loaded, png), noise_verdicts(judge, png), atol=1e-5, rtol=0)


def test_only_the_adapter_needs_the_library_again(
    adapted: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "merged", standalone(adapted))
    write(tmp_path / "adapter", adapted)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    load_bundle(tmp_path / "merged", "cpu")
    with pytest.raises(MissingExtraError, match=r"prefrm\[train\]"):
        load_bundle(tmp_path / "adapter", "cpu")
