"""Bundles of which a weight is missing, reshaped or unexpected, although every file is as it was listed."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from prefrm.bundle import MANIFEST, load_bundle, read_manifest, write_bundle
from prefrm.errors import BundleError
from prefrm.judge import Judge
from prefrm.judge.backbones import find_base
from prefrm.manifest import hash_files


def write(folder: Path, judge: Judge) -> None:
    write_bundle(folder, judge, calibration=None, data_fingerprint="", metrics={}, card="# A judge\n")


@pytest.fixture
def bundle(judge: Judge, tmp_path: Path) -> Path:
    write(tmp_path / "bundle", judge)
    return tmp_path / "bundle"


def alter_weights(bundle: Path, file: str, **changes: torch.Tensor | None) -> None:
    """Change tensors of a bundle's file, or drop them, and list it as if it had been written so."""
    path = bundle / file
    weights = load_file(path) | changes
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, path)
    manifest = read_manifest(bundle)
    (bundle / MANIFEST).write_text(replace(manifest, files=hash_files(bundle)).to_json())


@pytest.mark.parametrize("value", [None, torch.ones(2)], ids=["missing", "reshaped"])
def test_a_bundle_whose_head_is_not_whole_is_refused(bundle: Path, value: torch.Tensor | None):
    alter_weights(bundle, "head.safetensors", log_scale=value)
    with pytest.raises(BundleError, match=r"head\.safetensors holds other weights .*\(log_scale"):
        load_bundle(bundle, "cpu")


def test_a_bundle_whose_model_is_not_whole_is_refused(bundle: Path):
    name = "model.layers.1.mlp.down_proj.weight"
    alter_weights(bundle, "model/model.safetensors", **{name: None})
    with pytest.raises(BundleError, match=rf"model holds other weights .*1 missing \({name}\)"):
        load_bundle(bundle, "cpu")


def test_an_adapter_that_is_not_whole_is_refused(adapted: Judge, tmp_path: Path):
    write(tmp_path / "b", adapted)
    file = "adapter/adapter_model.safetensors"
    lost, reshaped = sorted(load_file(tmp_path / "b" / file))[:2]
    alter_weights(
        tmp_path / "b", file, **{lost: None, reshaped: torch.ones(1), "other.lora_A.weight": torch.ones(1)}
    )
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path / "b", "cpu")
    for part in (
        f"1 missing ({lost})",
        f"1 of another shape ({reshaped} is [1]",
        "1 unexpected (other.lora_A",
    ):
        assert part in str(caught.value)


def test_an_adapter_refuses_a_base_model_that_is_not_whole(adapted: Judge, tmp_path: Path):
    """The same incomplete base as the adapter was trained on: its hash alone would not tell."""
    base = shutil.copytree(adapted.spec.base_model, tmp_path / "base")
    path, name = base / "model.safetensors", "model.layers.0.mlp.up_proj.weight"
    save_file({k: v for k, v in load_file(path).items() if k != name}, path, metadata={"format": "pt"})
    adapted.spec = replace(adapted.spec, base_model=str(base))
    adapted.base = find_base(adapted.spec)
    write(tmp_path / "b", adapted)
    with pytest.raises(BundleError, match=rf"1 missing \({name}\)"):
        load_bundle(tmp_path / "b", "cpu")
