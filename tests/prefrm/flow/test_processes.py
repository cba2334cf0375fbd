"""Several processes equal one, and a run that is killed ends as the whole one does."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from prefrm.config import to_mapping
from prefrm.flow.config import FlowConfig, OptimConfig
from prefrm.flow.run import run
from tests.forked import ranks, start
from tests.prefrm.flow import separate
from tests.prefrm.flow.test_run import config, open_scorer

__all__ = ["config"]


@pytest.mark.slow
def test_two_processes_train_the_same_weights_as_one(tmp_path: Path) -> None:
    separate.train("nft", tmp_path)
    for status, log in ranks(separate.train, "nft", tmp_path, folder=tmp_path):
        assert status == 0, log
    one, two = (load_file(tmp_path / f"nft-{count}.safetensors") for count in (1, 2))
    far = torch.cat([((one[name] - two[name]).abs() > 1e-5).flatten() for name in one])
    # AdamW's first steps have the size of lr where a gradient is nothing but rounding.
    assert far.float().mean() < 0.01
    assert max((one[name] - two[name]).abs().max() for name in one) < 5e-3


@pytest.mark.slow
def test_a_killed_run_ends_where_the_whole_one_does(config: FlowConfig, tmp_path: Path) -> None:
    config = replace(config, optim=OptimConfig(iterations=3, lr=1e-3, ema=0.9))
    run(config, open_scorer)
    broken = replace(config, output=config.output.with_name("broken"))
    path = tmp_path / "flow.yaml"
    path.write_text(yaml.safe_dump(to_mapping(broken)))
    # In the middle of the third iteration, whose groups are eight images.
    process = start(separate.killed, path, 20, log=tmp_path / "log")
    process.join(120)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert [folder.name for folder in (broken.output / "checkpoints").iterdir()] == ["step-00000002"]
    run(broken, open_scorer, resume=True)
    # safetensors writes a file's metadata in any order.
    resumed, whole = (
        load_file(one.output / "lora" / "pytorch_lora_weights.safetensors") for one in (broken, config)
    )
    assert resumed.keys() == whole.keys()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
