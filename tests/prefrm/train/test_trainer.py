from pathlib import Path

import pytest
import torch
from transformers import TrainingArguments

from prefrm.errors import ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.train.state import gather_weights, load_weights
from prefrm.train.trainer import JudgeTrainer


def test_a_judge_is_trained_on_its_own_device_and_on_no_other(judge, tmp_path: Path) -> None:
    """As on a machine with two accelerators, of which transformers would take the first and use both."""
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    arguments._n_gpu = 2
    trainer = JudgeTrainer(model=judge.to("meta"), args=arguments)
    assert trainer.args.n_gpu == 1
    assert trainer.args.device == trainer.accelerator.device == judge.device == torch.device("meta")


@pytest.mark.parametrize("head", ["verdict", "scalar", "embedding"])
def test_weights_that_are_no_matrices_do_not_decay(tiny_checkpoint: Path, tmp_path: Path, head: str) -> None:
    """With decay, the scale of the head would be pulled to 1 whatever the data say."""
    judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint), head=head), "cpu")
    arguments = TrainingArguments(
        output_dir=str(tmp_path), report_to="none", use_cpu=True, weight_decay=0.1, learning_rate=1.0
    )
    optimizer = JudgeTrainer(model=judge, args=arguments).create_optimizer()
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in judge.named_parameters():
        if parameter.ndim < 2:
            assert decay[id(parameter)] == 0.0, name
    assert sum(decay.values()) > 0
    # Without a gradient, decay is all that moves a weight.
    with torch.no_grad():
        judge.head.log_scale.fill_(0.7)
    for parameter in judge.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert judge.head.log_scale.item() == pytest.approx(0.7)


def test_a_checkpoint_of_other_parameters_is_refused(judge: Judge) -> None:
    weights = gather_weights(judge)
    name = "head.log_scale"
    with pytest.raises(ConfigError, match=rf"the checkpoint holds other .* 1 missing \({name}\)"):
        load_weights(judge, {key: value for key, value in weights.items() if key != name})
