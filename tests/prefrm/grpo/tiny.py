"""A real `GRPOTrainer` on a language model of a few thousand random parameters.

`python tiny.py FOLDER` trains in one of the processes of a launched run (RANK, WORLD_SIZE, ... in the
environment) and writes what it saw to FOLDER/RANK.json.
"""

import json
import math
import os

from prefrm.grpo import PreferenceReward
from prefrm.winmatrix import FakeScorer

LETTERS = "abcdefghijklmnopqrstuvwxyz "


def to_image(completion, blank=False, **columns):
    """A completion is worth its letters' places in the alphabet; one in five draws nothing."""
    text = completion if isinstance(completion, str) else completion[0]["content"]
    worth = sum(text.encode())
    return None if blank or worth % 5 == 0 else str(worth / 100).encode()


class CountingScorer(FakeScorer):
    def __init__(self):
        super().__init__(lambda prompt, image: float(image), first_bonus=0.5)
        self.groups = []

    def score(self, groups):
        self.groups += groups
        return super().score(groups)


class Recorded:
    """A reward function that remembers what it returned, and for what."""

    def __init__(self, inner):
        self.inner, self.__name__, self.calls = inner, inner.__name__, []

    def __call__(self, **arguments):
        rewards = self.inner(**arguments)
        self.calls.append((arguments["prompts"], arguments["completions"], rewards))
        return rewards


class AsyncRecorded(Recorded):
    async def __call__(self, **arguments):
        rewards = await self.inner(**arguments)
        self.calls.append((arguments["prompts"], arguments["completions"], rewards))
        return rewards


def tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["<pad>", "<eos>", "<unk>", *LETTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    made.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    return made


def model(made):
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(made),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    return Qwen2ForCausalLM(config)


SETTINGS = dict(
    max_steps=2,
    logging_steps=1,
    save_strategy="no",
    report_to="none",
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    disable_tqdm=True,
    seed=1,
)


def vision_model():
    """A vision-language model and its processor, which needs no torchvision."""
    import torch
    from transformers import AutoModelForImageTextToText, Idefics3Processor

    from tests.prefrm.judge.families import TINY, build_tokenizer

    tiny = TINY["idefics3"]
    made = build_tokenizer(tiny.chat_template, tiny.specials)
    processor = Idefics3Processor(
        tiny.image_processor(), made, image_seq_len=4, chat_template=tiny.chat_template
    )
    torch.manual_seed(0)
    return AutoModelForImageTextToText.from_config(tiny.config(made, 32)), processor


def trainer(reward_funcs, folder, rows, eval_rows=None, parts=None, **settings):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy, processor = parts or (model(made := tokenizer()), made)
    defaults = dict(per_device_train_batch_size=8, num_generations=4, max_completion_length=5, **SETTINGS)
    return GRPOTrainer(
        model=policy,
        reward_funcs=reward_funcs,
        args=GRPOConfig(output_dir=str(folder), **{**defaults, **settings}),
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(eval_rows) if eval_rows else None,
        processing_class=processor,
    )


def main(folder):
    rank = int(os.environ["RANK"])
    scorer = CountingScorer()
    reward = Recorded(PreferenceReward(scorer, to_image))
    rows = [{"prompt": text} for text in ("a cat", "a dog", "a cow", "a fox")]
    run = trainer([reward], folder, rows, per_device_train_batch_size=3, num_generations=6)
    run.train()
    result = {
        "calls": reward.calls,
        "groups": [
            [group.prompt, [image and image.decode() for image in group.candidates]]
            for group in scorer.groups
        ],
        "rewards": [None if math.isnan(r) else r for r in run._logs["rewards"]["preference"]],
        "advantages": list(run._logs["advantages"]),
        "history": run.state.log_history,
    }
    (folder / f"{rank}.json").write_text(json.dumps(result))
    run.accelerator.end_training()
