"""Bundles of untrained judges on a tiny checkpoint, of each kind, whole and as an adapter, and images."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prefrm.bundle import CalibrationRecord, write_bundle
from prefrm.judge import Judge, JudgeSpec
from prefrm.winmatrix import Kind, TrainingInputs
from tests.prefrm.judge.families import save_checkpoint

# Judges by the name of their model, each with the kind of its candidates; all read a context and a criterion.
KINDS: dict[str, Kind] = {"edit": "image", "video": "video", "text": "text"}
CALIBRATION = CalibrationRecord(
    name="power", parameters={"temperature": 1.7, "power": 1.3}, split="validation", pairs=200
)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole(tmp_path_factory.mktemp("bundles") / "whole", JudgeSpec(base_model=str(checkpoint)))


@pytest.fixture(scope="session")
def kinds_of_bundles(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundles of `KINDS`."""
    folder = tmp_path_factory.mktemp("kinds")
    specs = {
        name: JudgeSpec(base_model=str(checkpoint), kind=kind, template="fit-late-v1")
        for name, kind in KINDS.items()
    }
    return {name: write_whole(folder / name, spec) for name, spec in specs.items()}


def write_whole(folder: Path, spec: JudgeSpec) -> Path:
    judge = Judge.from_base(spec, "cpu")
    write_bundle(
        folder, judge, calibration=CALIBRATION, data_fingerprint="f" * 64, metrics={}, card="# A judge\n"
    )
    return folder


@pytest.fixture(scope="session")
def dual_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An imported dual encoder."""
    from tests.prefrm.judge.dual import import_tiny

    return import_tiny("pickscore", tmp_path_factory.mktemp("dual"))


@pytest.fixture(scope="session")
def adapter_bundle(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory, png: Callable[[int], bytes]
) -> Path:
    """Its adapter's weights are random, so that it changes every verdict."""
    import torch
    from peft import LoraConfig, get_peft_model

    folder = tmp_path_factory.mktemp("bundles") / "adapter"
    judge = Judge.from_base(JudgeSpec(base_model=str(checkpoint)), "cpu")
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=judge.family.lora_targets, init_lora_weights=False)
    judge.backbone = get_peft_model(judge.backbone, config).eval()
    write_bundle(
        folder,
        judge,
        calibration=CALIBRATION,
        data_fingerprint="f" * 64,
        metrics={"pair_accuracy": 0.75},
        card="# An adapter\n",
        plots={"plot.png": png(0), "more/plot.png": png(1)},
        training_inputs=TrainingInputs.of(0, ""),
    )
    return folder


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """An encoded image of random pixels."""
    return noise


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
