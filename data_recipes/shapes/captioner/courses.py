"""Courses of lessons: how a vision-language model of toy size is taught to answer questions about pictures.

Knows neither the lessons nor what they are about.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from rich.progress import track
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from data_recipes.shapes.captioner.dialogue import IGNORED, Batch, Collator, Turn
from data_recipes.shapes.captioner.muon import Muon
from data_recipes.shapes.checkpoints import round_to_half

__all__ = ["Course", "Lesson", "attend", "first_tokens", "weighted_loss"]

WEIGHT_DECAY = 0.01
WARMUP_STEPS = 40
FLOOR = 0.02
LOG_EVERY = 100
KEYWORD_WEIGHT = 6.0

Lesson: TypeAlias = Callable[[np.random.Generator], Turn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A stretch of lessons under one learning-rate schedule.

    Attributes:
        steps: batches.
        stages: (the share of the steps at which a stage ends, the lessons of its batches, in turn).
        lr: peak learning rate.
        lr_on_top: that of the matrices of the last layers; None is `lr`. What new layers add has to grow to
            the size of what others have come to add, which takes thousands of steps at the others' rate.
        layers_on_top: how many these are.
    """

    steps: int
    stages: tuple[tuple[float, tuple[str, ...]], ...]
    lr: float
    lr_on_top: float | None = None
    layers_on_top: int = 0

    def lesson(self, step: int) -> str:
        """The name of the lesson of that step's batch."""
        cycle = next(cycle for end, cycle in self.stages if step < end * self.steps)
        return cycle[step % len(cycle)]

    def rate(self, step: int) -> float:
        """The learning rate's factor: up over the first steps, then down along a cosine."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min((step + 1) / WARMUP_STEPS, FLOOR + (1 - FLOOR) * cosine)


def attend(
    model: Any,
    course: Course,
    lessons: Mapping[str, Lesson],
    collator: Collator,
    keywords: torch.Tensor,
    rng: np.random.Generator,
    *,
    batch_size: int,
) -> None:
    """Teach `model` one course, in place; its weights end rounded to half precision.

    Args:
        lessons: by the names that the course has for them.
        keywords: tokens that count KEYWORD_WEIGHT times.
    """
    optimizers = _optimizers(model, course)
    schedules = [LambdaLR(optimizer, course.rate) for optimizer in optimizers]
    seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for step in track(range(course.steps), "training"):
        name = course.lesson(step)
        batch = collator(_draw(lessons[name], rng, batch_size))
        loss, right = weighted_loss(model, batch, keywords)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        model.zero_grad()
        seen[name].append((loss.item(), right))
        if step % LOG_EVERY == LOG_EVERY - 1:
            print(f"step {step + 1}: {'; '.join(_report(seen))}", flush=True)
            seen.clear()
    round_to_half(model)


def _draw(lesson: Lesson, rng: np.random.Generator, batch_size: int) -> list[Turn]:
    """Turns that have at least `batch_size` branches; one that does not branch counts as one."""
    turns: list[Turn] = []
    while sum(len(turn.branches) or 1 for turn in turns) < batch_size:
        turns.append(lesson(rng))
    return turns


def _report(seen: Mapping[str, list[tuple[float, float]]]) -> Iterator[str]:
    for name, values in seen.items():
        loss, right = np.mean(values, axis=0)
        yield f"{name} loss {loss:.3f}" + ("" if np.isnan(right) else f", {right:.1%} of keywords")


def _optimizers(model: Any, course: Course) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the matrices of the layers, AdamW for everything else.

    With AdamW alone the same lessons take several times as many steps.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    layers = model.model.language_model.layers
    on_top = {id(p) for layer in layers[len(layers) - course.layers_on_top :] for p in layer.parameters()}
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in matrices if id(p) not in on_top]},
        {"params": [p for p in matrices if id(p) in on_top], "lr": course.lr_on_top or course.lr},
    ]
    return (
        Muon(groups, lr=course.lr, weight_decay=WEIGHT_DECAY, momentum=0.95),
        torch.optim.AdamW(others, lr=course.lr, weight_decay=0.0, betas=(0.9, 0.98)),
    )


def weighted_loss(model: Any, batch: Batch, keywords: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A loss in nats and the share of keywords that are the likeliest token: NaN if there are none.

    The loss is the mean cross-entropy of the answers' tokens, where a keyword counts KEYWORD_WEIGHT times,
    plus those of the marks in pictures and elsewhere.
    """
    labels_BT, marks_W3 = batch.pop("labels")[:, 1:], batch.pop("marks", None)
    learnt_BT = labels_BT != IGNORED
    logits_BTV = model(**batch).logits
    logits_NV = logits_BTV[:, :-1][learnt_BT]
    labels_N = labels_BT[learnt_BT]
    key_N = torch.isin(labels_N, keywords)
    weight_N = torch.where(key_N, KEYWORD_WEIGHT, 1.0)
    loss_N = cross_entropy(logits_NV, labels_N, reduction="none")
    right = (logits_NV.argmax(-1) == labels_N)[key_N].float().mean().item()
    loss = (loss_N * weight_N).sum() / weight_N.sum()
    if marks_W3 is not None:
        rows, tokens, words = marks_W3.unbind(1)
        loss_W = cross_entropy(logits_BTV[rows, tokens], words, reduction="none")
        # The cells of pictures have many, and would leave nothing for others.
        seen_W = batch["mm_token_type_ids"][rows, tokens] > 0
        loss = loss + sum(each.mean() for each in (loss_W[seen_W], loss_W[~seen_W]) if len(each))
    return loss, right


def first_tokens(tokenizer: Any, words: Sequence[str]) -> torch.Tensor:
    """The tokens that begin each word, at the start of a text and after a space."""
    texts = [text for word in words for text in (word, f" {word}")]
    return torch.tensor(sorted({tokenizer(text)["input_ids"][0] for text in texts}))
