"""`prefrm flow` along the gradient of a judge's bundle."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from prefrm.bundle import write_bundle
from prefrm.cli import run
from prefrm.judge import Judge, JudgeSpec


@pytest.fixture
def bundle(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint)), "cpu")
    folder = tmp_path / "bundle"
    write_bundle(folder, judge, calibration=None, data_fingerprint="f" * 64, metrics={}, card="# A judge\n")
    return folder


def written(folder: Path, judge: object) -> Path:
    """A configuration of two iterations of ReFL."""
    settings = {
        "output": str(folder / "run"),
        "device": "cpu",
        "method": "refl",
        "judge": str(judge),
        "policy": {"model": "shapes-flow", "steps": 4, "rank": 4, "alpha": 8},
        "prompts": {"world": "shapes", "count": 4},
        "rollout": {"prompts": 1, "group": 2, "batch": 2},
        "optim": {"iterations": 2, "lr": 1e-3},
        "evaluation": None,
    }
    path = folder / "flow.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_refl_follows_the_gradient_of_a_bundle(bundle: Path, tmp_path: Path) -> None:
    assert run(["flow", str(written(tmp_path, bundle))]) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    assert all(line["grad_norm"] > 0 for line in lines)
    weights = load_file(tmp_path / "run" / "lora" / "pytorch_lora_weights.safetensors")
    # Adapters begin at zero: whatever is not has been trained.
    assert any(tensor.abs().max() > 0 for name, tensor in weights.items() if "lora_B" in name)


def test_a_url_of_another_wire_has_no_gradient(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Refused before the policy is loaded, which does not exist.
    path = written(tmp_path, "grpc://127.0.0.1:9/judge")
    assert run(["flow", str(path), "--set", "policy.model=nobody/nothing-here"]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line == "prefrm: a gradient comes over http:// or https://; received grpc://127.0.0.1:9/judge"
