from pathlib import Path

import torch
from transformers import TrainingArguments

from prefrm.train.trainer import JudgeTrainer


def test_a_judge_is_trained_on_its_own_device_and_on_no_other(judge, tmp_path: Path) -> None:
    """As on a machine with two accelerators, of which transformers would take the first and use both."""
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    arguments._n_gpu = 2
    trainer = JudgeTrainer(model=judge.to("meta"), args=arguments)
    assert trainer.args.n_gpu == 1
    assert trainer.args.device == trainer.accelerator.device == judge.device == torch.device("meta")
