"""Train the captioner: `python -m data_recipes.shapes.captioner.train --out DIR --seed 0`.

From random weights, through five courses of fresh scenes, on one CPU core: a good hour. Prints
the share of held-out pictures that are described exactly. Equal seeds give equal weights on one machine.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.captioner import lessons
from data_recipes.shapes.captioner.dialogue import IGNORED, Batch, Collator, Turn
from data_recipes.shapes.captioner.model import Architecture, image_processor, save, untrained
from data_recipes.shapes.captioner.tokenizer import IM_END, train_tokenizer
from data_recipes.shapes.checkpoints import round_to_half
from data_recipes.shapes.prompts import caption, split_prompts
from data_recipes.shapes.render import render

__all__ = [
    "COURSES",
    "Course",
    "describe",
    "exact_captions",
    "first_tokens",
    "main",
    "train",
    "weighted_loss",
]

VOCABULARY = 512
WEIGHT_DECAY = 0.01
WARMUP_STEPS = 40
FLOOR = 0.02
LOG_EVERY = 100
KEYWORD_WEIGHT = 6.0
MAX_CAPTION_TOKENS = 48  # five shapes take 30


Kind = Literal[
    "describe",
    "find one",
    "find two",
    "count",
    "count one",
    "count nearly",
    "count tallied",
    "tally",
    "coin",
]
_LESSONS: dict[Kind, Callable[[np.random.Generator], Turn]] = {
    "describe": lessons.describe_any,
    "find one": partial(lessons.locate, 1),
    "find two": partial(lessons.locate, 2),
    "count": lessons.count_missed,
    "count one": lessons.count_one,
    "count nearly": lessons.count_nearly,
    "count tallied": lessons.count_tallied,
    "tally": lessons.tally,
    "coin": lessons.coin,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A stretch of lessons under one learning-rate schedule.

    Attributes:
        steps: batches.
        stages: (the share of the steps at which a stage ends, the kinds of its batches, in turn).
        lr: peak learning rate.
    """

    steps: int
    stages: tuple[tuple[float, tuple[Kind, ...]], ...]
    lr: float

    def kind(self, step: int) -> Kind:
        """What the batch of that step is about."""
        cycle = next(cycle for end, cycle in self.stages if step < end * self.steps)
        return cycle[step % len(cycle)]

    def rate(self, step: int) -> float:
        """The learning rate's factor: up over the first steps, then down along a cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min((step + 1) / WARMUP_STEPS, FLOOR + (1 - FLOOR) * cosine)


# First pictures alone: a prompt is of no use to a model that cannot read one. Then to find what a prompt
# names, which is what every claim takes. Then how many claims each picture misses, seen at a glance: no
# answer spells the claims out. Then a judge's question, answered by a coin, so that nothing is made of it;
# then how many there are of each thing; at last everything, so that nothing is forgotten.
COURSES = (
    Course(
        steps=2400,
        stages=(
            (0.1, ("describe",)),
            (0.35, ("find one", "find one", "find one", "describe")),
            (0.7, ("find two", "find two", "find two", "describe")),
            (1.0, ("find two", "count nearly", "count")),
        ),
        lr=3e-3,
    ),
    Course(
        steps=4000,
        stages=((1.0, ("count nearly", "find two", "count", "count nearly", "count", "describe")),),
        lr=2e-3,
    ),
    Course(
        steps=1200,
        stages=((1.0, ("count", "count nearly", "coin", "count", "describe", "find two")),),
        lr=1.5e-3,
    ),
    Course(
        steps=1400,
        stages=((1.0, ("tally", "count tallied", "count", "tally", "count nearly", "coin", "find two")),),
        lr=2e-3,
    ),
    Course(
        steps=1400,
        stages=(
            (
                1.0,
                (
                    *("describe", "coin", "tally", "count", "count tallied"),
                    *("count nearly", "coin", "find two", "count one"),
                ),
            ),
        ),
        lr=1.5e-3,
    ),
)


def train(
    out: Path,
    *,
    seed: int,
    batch_size: int,
    courses: Sequence[Course] = COURSES,
    architecture: Architecture | None = None,
) -> tuple[Any, Any, Any]:
    """Train, write a checkpoint folder to `out`, and return the model, its tokenizer and image processor."""
    set_seed(seed)
    architecture = architecture or Architecture()
    tokenizer = train_tokenizer(lessons.vocabulary(np.random.default_rng([seed, 0])), VOCABULARY)
    processor = image_processor(architecture)
    model = untrained(architecture, tokenizer).train()
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    collator, keywords = Collator(tokenizer, processor), first_tokens(tokenizer, lessons.KEYWORDS)
    for number, course in enumerate(courses, 1):
        rng = np.random.default_rng([seed, number])
        _attend(model, course, collator, keywords, rng, batch_size=batch_size)
        round_to_half(model)
    save(model, tokenizer, processor, out)
    return model, tokenizer, processor


def _attend(
    model: Any,
    course: Course,
    collator: Collator,
    keywords: torch.Tensor,
    rng: np.random.Generator,
    *,
    batch_size: int,
) -> None:
    """Teach `model` one course, in place."""
    optimizers = _optimizers(model, course.lr)
    schedules = [LambdaLR(optimizer, course.rate) for optimizer in optimizers]
    seen: dict[Kind, list[tuple[float, float]]] = defaultdict(list)
    for step in track(range(course.steps), "training"):
        kind = course.kind(step)
        batch = collator([_LESSONS[kind](rng) for _ in range(batch_size)])
        loss, right = weighted_loss(model, batch, keywords)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        seen[kind].append((loss.item(), right))
        if step % LOG_EVERY == LOG_EVERY - 1:
            print(f"step {step + 1}: {'; '.join(_report(seen))}", flush=True)
            seen.clear()


def _report(seen: Mapping[Kind, list[tuple[float, float]]]) -> Iterator[str]:
    for kind, values in seen.items():
        loss, right = np.mean(values, axis=0)
        yield f"{kind} loss {loss:.3f}" + ("" if np.isnan(right) else f", {right:.1%} of keywords")


def _optimizers(model: Any, lr: float) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for everything else.

    With AdamW alone the same lessons take several times as many steps.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return (
        torch.optim.Muon(
            matrices,
            lr=lr,
            weight_decay=WEIGHT_DECAY,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=lr, weight_decay=0.0, betas=(0.9, 0.98)),
    )


def weighted_loss(model: Any, batch: Batch, keywords: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The mean cross-entropy of the answers' tokens, in nats, where a keyword counts KEYWORD_WEIGHT times,
    and the share of keywords that are the likeliest token: NaN if there are none."""
    labels_BT = batch.pop("labels")[:, 1:]
    learnt_BT = labels_BT != IGNORED
    logits_NV = model(**batch).logits[:, :-1][learnt_BT]
    labels_N = labels_BT[learnt_BT]
    key_N = torch.isin(labels_N, keywords)
    weight_N = torch.where(key_N, KEYWORD_WEIGHT, 1.0)
    loss_N = cross_entropy(logits_NV, labels_N, reduction="none")
    right = (logits_NV.argmax(-1) == labels_N)[key_N].float().mean().item()
    return (loss_N * weight_N).sum() / weight_N.sum(), right


def first_tokens(tokenizer: Any, words: Sequence[str]) -> torch.Tensor:
    """The tokens that begin each word, at the start of a text and after a space."""
    texts = [text for word in words for text in (word, f" {word}")]
    return torch.tensor(sorted({tokenizer(text)["input_ids"][0] for text in texts}))


def exact_captions(
    model: Any, tokenizer: Any, processor: Any, *, pictures: int = 120, seed: int = 0
) -> float:
    """The share of pictures, candidates for prompts that training never saw, described word for word."""
    rng = np.random.default_rng([seed, len(COURSES) + 1])
    prompts = split_prompts("test")
    exact = 0
    for _ in range(pictures):
        scene = make_candidates(prompts[rng.integers(len(prompts))], 1, rng)[0]
        exact += describe(model, tokenizer, processor, render(scene)) == caption(scene)
    return exact / pictures


def describe(model: Any, tokenizer: Any, processor: Any, image: Image.Image) -> str:
    """The most likely caption of one picture."""
    asked = Collator(tokenizer, processor)([lessons.describe(image)])
    # An empty answer still ends; without its last token the model has the floor.
    asked |= {name: asked[name][:, :-1] for name in ("input_ids", "attention_mask", "mm_token_type_ids")}
    del asked["labels"]
    with torch.inference_mode():
        tokens = model.eval().generate(**asked, max_new_tokens=MAX_CAPTION_TOKENS, do_sample=False)
    text: str = tokenizer.decode(tokens[0, asked["input_ids"].shape[1] :])
    return text.removesuffix(IM_END)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = vars(parser.parse_args())
    # Several threads add up in another order, and are slower for a model this small.
    torch.set_num_threads(1)
    share = exact_captions(*train(arguments.pop("out"), **arguments))
    print(f"exact captions of held-out pictures: {share:.3f}")


if __name__ == "__main__":
    main()
