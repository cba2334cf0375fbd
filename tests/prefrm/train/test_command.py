"""What `prefrm train` says; what it does is tested beside."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefrm.cli import run
from prefrm.train import TrainConfig

TRAIN = importlib.import_module("prefrm.train")


@pytest.fixture
def settings(tmp_path: Path, tiny_checkpoint: Path, brightness: Callable[..., Path]) -> Path:
    path = tmp_path / "train.yaml"
    tree = {
        "output": str(tmp_path / "run"),
        "judge": {"base_model": str(tiny_checkpoint)},
        "data": {"path": str(brightness(train=2, test=2)), "validation": None, "test": None},
        "optim": {"steps": 2, "batch_size": 2},
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(tree))
    return path


def test_an_interrupted_training_says_how_to_go_on(
    settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def interrupt(config: TrainConfig, *, resume: bool) -> Any:
        asked.append(resume)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TRAIN, "run", interrupt)
        assert run(["train", str(settings)]) == 130
        assert run(["train", str(settings), "--resume"]) == 130
    assert asked == [False, True]
    assert "--resume continues from the newest checkpoint" in capsys.readouterr().err


def test_a_training_ends_with_its_accuracy_and_its_bundle(
    settings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = ["--set", "data.test=test"]
    assert run(["train", str(settings), "--set", "optim.steps=1", "--resume", *test]) == 0
    *_, accuracy, bundle = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"pair accuracy .+ to .+; 6 pairs of 2 prompts\), calibration error .+", accuracy)
    assert bundle == f"bundle: {settings.parent / 'run' / 'bundle'}"
    assert run(["train", str(settings), "--resume"]) == 2
    assert "exists already" in capsys.readouterr().err
