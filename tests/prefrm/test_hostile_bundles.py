"""A hostile bundle is refused with one line in a few seconds, whatever it holds."""

import os
import shutil
import time
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from prefrm.bundle import load_bundle, write_bundle
from prefrm.errors import BundleError
from prefrm.judge import Judge, JudgeSpec
from tests.prefrm.hostile_bundles import ADAPTERS, MODELS, Forge

# The longest that any of them may take.
SECONDS = 5.0
CASES = [("model", name) for name in MODELS] + [("adapter", name) for name in ADAPTERS]


@pytest.fixture(scope="module")
def bundles(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A valid bundle of each kind."""
    root = tmp_path_factory.mktemp("valid")
    for kind in ("model", "adapter"):
        judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint)), "cpu")
        if kind == "adapter":
            lora = LoraConfig(r=2, target_modules=judge.family.lora_targets, init_lora_weights=False)
            judge.backbone = get_peft_model(judge.backbone, lora)
        write_bundle(
            root / kind, judge, calibration=None, data_fingerprint="f", metrics={}, card="# A judge\n"
        )
    return {kind: root / kind for kind in ("model", "adapter")}


@pytest.fixture
def forge(bundles: dict[str, Path], tmp_path: Path):
    """Makes a hostile copy of a bundle."""

    def make(kind: str, change: Forge) -> Path:
        folder = shutil.copytree(bundles[kind], tmp_path / "bundle", copy_function=os.link)
        change(folder)
        return folder

    return make


def test_there_are_a_hundred() -> None:
    assert len(CASES) > 150


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[name for _, name in CASES])
def test_a_hostile_bundle_is_refused_with_one_line(
    forge, kind: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = forge(kind, (MODELS if kind == "model" else ADAPTERS)[name])
    started = time.monotonic()
    with pytest.raises(BundleError) as caught:
        load_bundle(folder, "cpu")
    assert time.monotonic() - started < SECONDS
    message = str(caught.value)
    assert message.isprintable() and str(folder) in message and len(message) <= 500
    assert capfd.readouterr() == ("", "")
