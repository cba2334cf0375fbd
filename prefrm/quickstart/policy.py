"""Stage 6: a small language model draws, and TRL's `GRPOTrainer` improves it by a judge's win rates.

The policy answers a prompt with a drawing program. What it earns is the judge's opinion, asked for over
the wire; the oracle only watches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from data_recipes.shapes.oracle import assess
from data_recipes.shapes.painter import CHECKPOINT
from data_recipes.shapes.painter.model import MAX_PROGRAM_TOKENS, paint
from data_recipes.shapes.prompts import Prompt
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import ProgramError, Scene
from prefrm.grpo import PreferenceReward
from prefrm.judge.weights import load_pretrained
from prefrm.progress import Tracker
from prefrm.quickstart.settings import PolicySettings
from prefrm.train.callbacks import ReportProgress
from prefrm.winmatrix import Scorer

__all__ = ["Painter", "PolicyResult", "Sample", "draw", "improve", "mean_oracle"]


def draw(program: str) -> Image.Image:
    """The picture that a program draws. Raises `ProgramError` (a `DataError`) if it draws none."""
    return render(Scene.parse(program))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A program that the policy wrote for a prompt, and the share of the prompt's claims that its picture
    fulfils, by the oracle; 0 and no image if it draws nothing."""

    prompt: Prompt
    program: str
    image: Image.Image | None
    oracle: float


class Painter:
    """The shipped policy: a causal language model and its tokenizer."""

    def __init__(self, checkpoint: Path = CHECKPOINT) -> None:
        self.model: Any = load_pretrained(AutoModelForCausalLM, checkpoint, dtype=torch.float32)
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def sample(self, prompts: Sequence[Prompt], *, each: int, seed: int) -> list[Sample]:
        """`each` samples for every prompt, at temperature 1; leaves the global random state as it was."""
        repeated = [prompt for prompt in prompts for _ in range(each)]
        training = self.model.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            programs = paint(self.model, self.tokenizer, [prompt.text for prompt in repeated])
        self.model.train(training)
        return [_seen(prompt, program) for prompt, program in zip(repeated, programs, strict=True)]

    def save(self, folder: Path) -> None:
        """Write the checkpoint: safetensors, configuration, tokenizer."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _seen(prompt: Prompt, program: str) -> Sample:
    try:
        image = draw(program)
    except ProgramError:
        return Sample(prompt=prompt, program=program, image=None, oracle=0.0)
    return Sample(prompt=prompt, program=program, image=image, oracle=assess(prompt, image).score)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """How the policy changed.

    Attributes:
        before: samples for held-out prompts, before training.
        after: samples for the same prompts, after it.
        watched: (step, mean oracle score on held-out prompts), the first at step 0.
    """

    before: list[Sample]
    after: list[Sample]
    watched: list[tuple[int, float]]


def improve(
    painter: Painter,
    scorer: Scorer,
    *,
    train: Sequence[Prompt],
    held_out: Sequence[Prompt],
    folder: Path,
    settings: PolicySettings,
    seed: int,
    tracker: Tracker,
) -> PolicyResult:
    """Train `painter` in place on the prompts of `train`, by the win rates that `scorer` gives its pictures.

    The prompts of `held_out` are only watched. `tracker` shows the step.
    """

    def watch() -> list[Sample]:
        return painter.sample(held_out, each=settings.samples, seed=seed)

    before = watch()
    watched = [(0, mean_oracle(before))]
    trainer = GRPOTrainer(
        model=painter.model,
        processing_class=painter.tokenizer,
        reward_funcs=PreferenceReward(scorer, draw),
        train_dataset=Dataset.from_dict({"prompt": [prompt.text for prompt in train]}),
        args=_grpo_config(settings, folder, seed),
        callbacks=[
            ReportProgress(tracker),
            _Watch(lambda step: watched.append((step, mean_oracle(watch()))), settings.watch_every),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    after = watch()
    watched.append((settings.steps, mean_oracle(after)))
    return PolicyResult(before=before, after=after, watched=watched)


def mean_oracle(samples: Sequence[Sample]) -> float:
    """The mean oracle score, in [0, 1]."""
    return sum(sample.oracle for sample in samples) / len(samples)


def _grpo_config(settings: PolicySettings, folder: Path, seed: int) -> GRPOConfig:
    return GRPOConfig(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.prompts * settings.group_size,
        num_generations=settings.group_size,
        num_iterations=settings.iterations,
        # By each group's own deviation, candidates that are all as good would be told far apart.
        scale_rewards="batch",
        max_completion_length=MAX_PROGRAM_TOKENS,
        temperature=1.0,
        learning_rate=settings.lr,
        lr_scheduler_type="linear",
        warmup_steps=settings.warmup_steps,
        beta=settings.beta,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        seed=seed,
    )


class _Watch(TrainerCallback):
    """Calls a function with the step, every few steps but not after the last."""

    def __init__(self, look: Callable[[int], None], every: int) -> None:
        self._look, self._every = look, every

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._every == 0 and state.global_step < state.max_steps:
            self._look(state.global_step)
