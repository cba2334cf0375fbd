"""Merging an adapter: exact but for rounding in every dtype, and a wrong merge is refused in every dtype."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear

from prefrm.bundle import load_bundle, standalone, write_bundle
from prefrm.errors import BundleError
from prefrm.judge import Judge, JudgeSpec
from prefrm.judge.quantization import is_quantized
from tests.prefrm.judge.comparing import noise_verdicts

KINDS = ["float32", "bfloat16", "float16", "nf4 float32", "nf4 bfloat16"]


def adapted(checkpoint: Path, kind: str, **fields: Any) -> Judge:
    """A judge with a small adapter, as after a few steps of training."""
    *quantize, dtype = kind.split()
    spec = JudgeSpec(base_model=str(checkpoint), quantize="nf4" if quantize else None, **fields)
    judge = Judge.from_base(spec, "cpu", dtype)
    config = LoraConfig(r=4, target_modules=judge.family.lora_targets)
    judge.backbone = get_peft_model(judge.backbone, config).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in judge.backbone.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    return judge


def log_odds(judge: Judge, png: Callable[..., bytes]) -> torch.Tensor:
    return noise_verdicts(judge, png).double()


def too_strong(factor: float) -> Callable[[pytest.MonkeyPatch], None]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        delta = Linear.get_delta_weight
        monkeypatch.setattr(Linear, "get_delta_weight", lambda *arguments: delta(*arguments) * factor)

    return patch


def one_layer_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    merge, seen = Linear.merge, []

    def lazy(layer: Linear, *arguments: Any, **options: Any) -> None:
        seen.append(layer)
        if len(seen) != 5:
            merge(layer, *arguments, **options)

    monkeypatch.setattr(Linear, "merge", lazy)


WRONG = {
    "3% too strong": too_strong(1.03),
    "twice": too_strong(2.0),
    "one layer left out": one_layer_left_out,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_judge_is_the_same_but_for_rounding(wide_checkpoint: Path, png, kind: str) -> None:
    judge = adapted(wide_checkpoint, kind)
    dtype, before = judge.model.dtype, log_odds(judge, png)
    merged = standalone(judge)
    assert not isinstance(merged.backbone, PeftModel) and not is_quantized(merged.backbone)
    assert {parameter.dtype for parameter in merged.backbone.parameters()} == {dtype}
    assert torch.equal(log_odds(judge, png), before)
    # The computation rounds to `dtype` as well, some hundred times.
    torch.testing.assert_close(log_odds(merged, png), before, atol=32 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_merge_is_refused_in_every_dtype(
    wide_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, kind: str, wrong: Callable[..., None]
) -> None:
    judge = adapted(wide_checkpoint, kind)
    wrong(monkeypatch)
    with pytest.raises(BundleError, match=r"merge of the adapter changed the judge: log-odds differ by"):
        standalone(judge)


@pytest.mark.parametrize(
    "fields", [{"head": "scalar", "ties": True}, {"head": "embedding"}, {"attention": "joint"}]
)
def test_every_kind_of_judge_is_checked(
    wide_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    judge = adapted(wide_checkpoint, "bfloat16", **fields)
    assert standalone(judge).spec == judge.spec
    too_strong(1.03)(monkeypatch)
    with pytest.raises(BundleError, match="log-odds differ by"):
        standalone(judge)


def test_weights_are_rounded_once(wide_checkpoint: Path) -> None:
    judge = adapted(wide_checkpoint, "bfloat16")
    merged = standalone(judge)
    for name, layer in judge.model.named_modules():
        if isinstance(layer, Linear):
            exact = layer.base_layer.weight.float() + layer.get_delta_weight("default").float()
            assert torch.equal(merged.backbone.get_submodule(name).weight, exact.bfloat16())


@pytest.mark.parametrize("kind", ["bfloat16", "nf4 bfloat16"])
def test_a_merged_judge_is_loaded_again_to_the_last_bit(
    wide_checkpoint: Path, tmp_path: Path, png, kind: str
) -> None:
    merged = standalone(adapted(wide_checkpoint, kind))
    write_bundle(tmp_path / "b", merged, calibration=None, data_fingerprint="f" * 64, metrics={}, card="")
    loaded = load_bundle(tmp_path / "b", "cpu", "bfloat16").judge
    assert torch.equal(log_odds(loaded, png), log_odds(merged, png))


def test_a_plain_judge_is_returned_as_it_is(judge: Judge) -> None:
    assert standalone(judge) is judge
