"""QLoRA: an adapter learns on a base in four bits, which stays as it is."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
import torch
from bitsandbytes.nn import Linear4bit

from prefrm.bundle import read_manifest
from prefrm.config import load_config
from prefrm.errors import ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.media import decode
from prefrm.train import AdapterConfig, DataConfig, OptimConfig, TrainConfig, fit, run
from prefrm.train.adapters import add_lora, trainable_parameters
from prefrm.train.card import model_card
from tests.prefrm.train.conftest import mixture_of

ROOT = Path(__file__).parents[3]
CAPTIONER = ROOT / "data_recipes" / "shapes" / "captioner" / "checkpoint"


@pytest.fixture
def config(wide_checkpoint: Path, tmp_path: Path, brightness: Callable[..., Path]) -> TrainConfig:
    return TrainConfig(
        output=tmp_path / "run",
        judge=JudgeSpec(base_model=str(wide_checkpoint), quantize="nf4"),
        data=DataConfig(path=brightness(train=12, validation=3), test=None),
        adapter=AdapterConfig(rank=4, alpha=8),
        optim=OptimConfig(steps=20, batch_size=3, lr=1e-2),
        device="cpu",
    )


def adapt(spec: JudgeSpec, dtype: str = "float32") -> Judge:
    judge = Judge.from_base(spec, "cpu", dtype)
    torch.manual_seed(0)
    add_lora(judge, rank=4, alpha=8, dropout=0.0)
    return judge


def stored(judge: Judge) -> dict[str, torch.Tensor]:
    modules = judge.model.named_modules()
    return {name: m.weight.data.clone() for name, m in modules if isinstance(m, Linear4bit)}


def losses(output: Path) -> list[float]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


@pytest.mark.parametrize("base", ["wide", "captioner"])
def test_the_loss_falls_and_the_base_stays(config: TrainConfig, base: str) -> None:
    name = config.judge.base_model
    fields = {"base_model": name, "head": "scalar"} if base == "wide" else {"base_model": str(CAPTIONER)}
    judge = adapt(JudgeSpec(**fields, quantize="nf4"))
    optim = replace(config.optim, steps=10)
    before = stored(judge)
    config.output.mkdir()
    mixture = mixture_of(config.data.path, config.output / "cache")
    fit(judge, mixture, optim, output=config.output, seed=0)
    history = losses(config.output)
    assert len(history) == 10
    assert fmean(history[-5:]) < 0.5 * fmean(history[:5]), history
    after = stored(judge)
    assert before.keys() == after.keys() and len(before) >= 14
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(tensor.dtype == torch.uint8 for tensor in after.values())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_the_adapter_and_the_head_learn(config: TrainConfig, png, dtype: str) -> None:
    judge = adapt(config.judge, dtype)
    judge.train()
    tree = judge.processor.tree("p", {n: judge.processor.prepare_image(decode(png(n))) for n in (0, 1)})
    judge(judge.processor.collate([(tree, [(0, 1)])])).sum().backward()
    moved = {name: p for name, p in judge.named_parameters() if p.grad is not None}
    assert all("lora_" in name or name.startswith("head.") for name in moved)
    assert sum(p.numel() for p in moved.values()) == trainable_parameters(judge)
    assert {p.dtype for p in moved.values()} == {torch.float32}
    # The first step reaches B alone, since B is zero and hides A.
    assert all(p.grad.abs().sum() > 0 for name, p in moved.items() if "lora_A" not in name)


def test_activation_checkpointing_gives_the_same_gradients(config: TrainConfig, png) -> None:
    judge = adapt(config.judge)
    judge.train()
    tree = judge.processor.tree("p", {n: judge.processor.prepare_image(decode(png(n))) for n in (0, 1)})
    batch = judge.processor.collate([(tree, [(0, 1)])])
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            judge.model.activation_checkpointing_enable({"use_reentrant": False})
        judge.zero_grad()
        judge(batch).sum().backward()
        gradients.append({name: p.grad.clone() for name, p in judge.named_parameters() if p.requires_grad})
    plain, again = gradients
    assert judge.model.is_activation_checkpointing
    assert all(torch.equal(again[name], plain[name]) for name in plain)


@pytest.mark.parametrize("export", ["merged", "adapter"])
def test_a_run_exports_the_judge_that_it_trained(config: TrainConfig, export: str) -> None:
    result = run(replace(config, export=export, optim=replace(config.optim, steps=5)))
    spec = read_manifest(result.bundle).spec
    if export == "adapter":
        assert spec.quantize == "nf4" and result.export_difference == 0.0
    else:
        assert spec.quantize is None and result.export_difference == 0.0


def test_the_card_says_on_what_the_adapter_learned(config: TrainConfig) -> None:
    assert "- trained: LoRA, rank 4, on a base in nf4, 20 steps" in model_card(config, None, None, steps=20)


def test_weights_in_four_bits_do_not_learn_without_an_adapter() -> None:
    settings = ["judge.quantize=nf4", "adapter=null"]
    with pytest.raises(ConfigError, match=r"judge\.quantize=nf4 needs an adapter"):
        load_config(TrainConfig, ROOT / "configs" / "train" / "shapes.yaml", settings)
