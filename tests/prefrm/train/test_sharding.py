"""Judges that are spread over processes, as far as that can be seen without an accelerator."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl
from transformers.models.qwen3_vl import modeling_qwen3_vl

from prefrm.errors import ConfigError
from prefrm.judge import JudgeSpec
from prefrm.train import DataConfig, EvaluationConfig, TrainConfig, run
from tests.forked import ranks
from tests.prefrm.train import sharded

CONFIG = Path(__file__).parents[3] / "configs" / "accelerate" / "fsdp.yaml"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What `accelerate launch` tells the processes that it starts."""
    arguments = launch_command_parser().parse_args(["--config_file", str(CONFIG), "-m", "prefrm"])
    arguments, *_ = _validate_launch_command(arguments)
    told = {
        key: value for key, value in prepare_multi_gpu_env(arguments).items() if os.environ.get(key) != value
    }
    for key, value in told.items():
        monkeypatch.setenv(key, value)
    return told


def test_accelerate_reads_the_shipped_configuration() -> None:
    config = load_config_from_file(str(CONFIG))
    assert isinstance(config, ClusterConfig)
    assert (config.num_processes, config.distributed_type) == (8, "FSDP")
    assert CONFIG.read_text().splitlines()[0] == (
        "# accelerate launch --config_file configs/accelerate/fsdp.yaml "
        "-m prefrm train configs/train/qwen2_5_vl_7b_fsdp.yaml"
    )


def test_it_shards_the_decoder_layers_of_a_judge(environment: dict[str, str], judge) -> None:
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.ignored_modules == "head"
    assert not plugin.cpu_ram_efficient_loading
    plugin.set_auto_wrap_policy(judge)
    (layer,) = plugin.auto_wrap_policy.keywords["transformer_layer_cls"]
    assert layer is modeling_qwen2_5_vl.Qwen2_5_VLDecoderLayer
    # The other family's, which the file names in words.
    assert "Qwen3VLTextDecoderLayer" in CONFIG.read_text()
    assert hasattr(modeling_qwen3_vl, "Qwen3VLTextDecoderLayer")


def test_validation_of_a_sharded_judge_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    config = TrainConfig(
        output=tmp_path / "run", judge=JudgeSpec(base_model="x"), data=DataConfig(path=tmp_path)
    )
    with pytest.raises(ConfigError, match="set evaluation=null"):
        run(replace(config, evaluation=EvaluationConfig()))


@pytest.mark.slow
def test_the_state_of_a_sharded_judge_is_whole(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for status, log in ranks(sharded.main, tiny_checkpoint, folder=tmp_path):
        assert status == 0, log
