"""Shipped checkpoints: one name in settings and bundles, whatever the machine and the working folder."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from data_recipes.shapes.captioner import CHECKPOINT as CAPTIONER
from data_recipes.shapes.painter import CHECKPOINT as PAINTER
from prefrm.bundle import load_bundle, write_bundle
from prefrm.errors import BundleError, ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.judge.backbones import find_base, find_shipped, loading

NAME = "shipped:shapes-captioner"


def install_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine, where the checkpoint lies in `folder`."""
    entry = SimpleNamespace(name="shapes-captioner", load=lambda: folder)
    monkeypatch.setattr(loading, "entry_points", lambda group: [entry])


def test_names_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_shipped(NAME) == find_base(JudgeSpec(base_model=NAME)).folder == CAPTIONER
    assert find_shipped("shipped:shapes-painter") == PAINTER


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="there are: shipped:shapes-captioner, shipped:shapes-painter"):
        find_base(JudgeSpec(base_model="shipped:captioner"))


def test_a_shipped_model_has_no_revision() -> None:
    with pytest.raises(ConfigError, match="is a shipped model, which has no revision 'v2'"):
        find_base(JudgeSpec(base_model=NAME, revision="v2"))


def test_an_adapter_finds_its_base_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge.from_base(JudgeSpec(base_model=NAME), "cpu")
    judge.backbone = get_peft_model(judge.backbone, LoraConfig(r=2, target_modules=judge.family.lora_targets))
    manifest = write_bundle(
        tmp_path / "b", judge, calibration=None, data_fingerprint="", metrics={}, card="# A judge\n"
    )
    assert manifest.spec.base_model == NAME
    assert str(CAPTIONER) not in (tmp_path / "b" / "adapter" / "adapter_config.json").read_text()
    elsewhere = shutil.copytree(CAPTIONER, tmp_path / "elsewhere")
    install_at(elsewhere, monkeypatch)
    assert load_bundle(tmp_path / "b", "cpu").judge.base.folder == elsewhere
    weights = load_file(elsewhere / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 1}, elsewhere / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match=f"the base model {NAME} has weights"):
        load_bundle(tmp_path / "b", "cpu")
    monkeypatch.setattr(loading, "entry_points", lambda group: [])
    with pytest.raises(BundleError, match="an installed package ships; there are: none"):
        load_bundle(tmp_path / "b", "cpu")
