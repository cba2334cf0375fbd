"""Train the painter: `python -m data_recipes.shapes.painter.train --out DIR --seed 0`.

From random weights, on one CPU core in about six minutes, on prompts of the train split and programs
with faults. Then samples programs for held-out prompts and prints how the oracle finds them. Equal
seeds give equal weights on one machine.
"""

import argparse
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments, set_seed

from data_recipes.shapes.candidates import with_fault
from data_recipes.shapes.checkpoints import round_to_half
from data_recipes.shapes.oracle import assess
from data_recipes.shapes.painter.model import build_tokenizer, paint, save, untrained
from data_recipes.shapes.prompts import Prompt, solve, split_prompts
from data_recipes.shapes.render import render
from data_recipes.shapes.scene import ProgramError, Scene

__all__ = ["Collator", "Programs", "Report", "evaluate", "faulty_program", "main", "score", "train"]

FAULT_COUNTS = (0.15, 0.2, 0.3, 0.35)
"""The probability that a program to learn from has 0, 1, 2 or 3 faults."""
LEARNING_RATE = 3e-3
IGNORED = -100

Example = tuple[str, str]


class Programs(IterableDataset[Example]):
    """`examples` pairs of a prompt's text and a program for it, without regard to what is learnt."""

    def __init__(self, *, examples: int, seed: int) -> None:
        self.examples = examples
        self.seed = seed

    def __iter__(self) -> Iterator[Example]:
        rng = np.random.default_rng([self.seed, 1])
        prompts = split_prompts("train")
        for _ in range(self.examples):
            prompt = prompts[rng.integers(len(prompts))]
            yield prompt.text, faulty_program(prompt, rng)


def faulty_program(prompt: Prompt, rng: np.random.Generator) -> str:
    """A program that solves the prompt, but for some faults.

    Shapes are written row by row: a model that writes them in any order often puts two into one cell.
    """
    scene = solve(prompt, rng)
    for _ in range(rng.choice(len(FAULT_COUNTS), p=FAULT_COUNTS)):
        scene = with_fault(scene, rng)
    return scene.in_reading_order().program()


class Collator:
    """Turns examples into one padded batch in which only the programs are learnt."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """`input_ids`, `attention_mask` and `labels`, each [B, T]."""
        rows = [self._encoded(*example) for example in examples]
        width = max(len(ids) for ids, _ in rows)
        pad = self.tokenizer.pad_token_id
        return {
            "input_ids": torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in rows]),
            "labels": torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in rows]),
        }

    def _encoded(self, prompt: str, program: str) -> tuple[list[int], list[int]]:
        asked = self.tokenizer(prompt)["input_ids"]
        answer = self.tokenizer(program, add_special_tokens=False)["input_ids"] + [
            self.tokenizer.eos_token_id
        ]
        return asked + answer, [IGNORED] * len(asked) + answer


def train(
    out: Path, *, seed: int, steps: int, batch_size: int, width: int = 96, layers: int = 3
) -> tuple[Any, Any]:
    """Train, write a checkpoint folder to `out`, and return the model and its tokenizer."""
    set_seed(seed)
    tokenizer = build_tokenizer()
    model = untrained(tokenizer, width=width, layers=layers)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * 0.04),
        adam_beta2=0.98,
        weight_decay=0.01,
        logging_steps=max(1, steps // 10),
        save_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        use_cpu=True,
        accelerator_config={"dispatch_batches": False},
        seed=seed,
    )
    data = Programs(examples=steps * batch_size, seed=seed)
    Trainer(model=model, args=arguments, train_dataset=data, data_collator=Collator(tokenizer)).train()
    round_to_half(model)
    save(model, tokenizer, out)
    return model, tokenizer


def score(prompt: Prompt, program: str) -> float | None:
    """The oracle's score in [0, 1] of what a program draws; None if it is not a valid program."""
    try:
        return assess(prompt, render(Scene.parse(program))).score
    except ProgramError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How sampled programs fare; one that draws nothing scores 0."""

    mean: float
    by_skill: dict[str, float]
    unparsable: float
    programs_per_second: float

    def __str__(self) -> str:
        skills = "".join(f"\n  {skill:<18} {value:.3f}" for skill, value in self.by_skill.items())
        return (
            f"oracle score {self.mean:.3f}, unparsable {self.unparsable:.3f}, "
            f"{self.programs_per_second:.0f} programs/s{skills}"
        )


def evaluate(model: Any, tokenizer: Any, *, per_skill: int, seed: int = 0, batch_size: int = 64) -> Report:
    """Sample `per_skill` programs for held-out prompts of each skill, at temperature 1."""
    set_seed(seed)
    rng = np.random.default_rng([seed, 2])
    decks: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in split_prompts("test"):
        decks[prompt.skill].append(prompt)
    prompts = [deck[rng.integers(len(deck))] for deck in decks.values() for _ in range(per_skill)]
    start = time.perf_counter()
    programs = [
        program
        for n in range(0, len(prompts), batch_size)
        for program in paint(model, tokenizer, [p.text for p in prompts[n : n + batch_size]])
    ]
    seconds = time.perf_counter() - start
    scores = [score(prompt, program) for prompt, program in zip(prompts, programs, strict=True)]
    filled = [value or 0.0 for value in scores]
    return Report(
        mean=float(np.mean(filled)),
        by_skill={
            skill: float(np.mean(filled[n * per_skill :][:per_skill])) for n, skill in enumerate(decks)
        },
        unparsable=scores.count(None) / len(scores),
        programs_per_second=len(programs) / seconds,
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch-size", type=int, default=64)
    arguments = vars(parser.parse_args())
    # Several threads add up in another order, and are slower for a model this small.
    torch.set_num_threads(1)
    model, tokenizer = train(arguments.pop("out"), **arguments)
    print(evaluate(model, tokenizer, per_skill=100))


if __name__ == "__main__":
    main()
