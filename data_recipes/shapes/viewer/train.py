"""Train the viewer: `python -m data_recipes.shapes.viewer.train --out DIR --seed 0`.

From the captioner's weights, through courses of fresh lessons, on one CPU core: about a step a second.
After each course it writes a checkpoint. Equal seeds give equal weights on one machine.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer, set_seed

from data_recipes.shapes import captioner
from data_recipes.shapes.captioner import train as first
from data_recipes.shapes.captioner.courses import Course, Lesson, attend, first_tokens
from data_recipes.shapes.captioner.dialogue import Collator
from data_recipes.shapes.captioner.model import EMBEDDING_RANGE, save
from data_recipes.shapes.captioner.tokenizer import train_tokenizer
from data_recipes.shapes.clips import FRAME_RATE
from data_recipes.shapes.viewer import lessons

__all__ = ["COURSES", "LESSONS", "main", "train"]

VOCABULARY = 768

LESSONS: dict[str, Lesson] = {
    **first.LESSONS,
    **{f"see {name}": partial(lessons.fit, world, judged=False) for name, world in lessons.WORLDS.items()},
    **{f"fit {name}": partial(lessons.fit, world, judged=True) for name, world in lessons.WORLDS.items()},
    "match": partial(lessons.fit, lessons.WORLDS["images"], judged=True, wording=lessons.MATCH),
    "reply": lessons.reply,
}

# First what candidates show and whether that is right, by the marks at their tokens, among the captioner's
# own lessons. Then a judge's question, whose answer has to gather what the marks say; at last everything, so
# that nothing is forgotten.
COURSES = (
    Course(
        steps=1300,
        stages=(
            (
                1.0,
                (
                    *("see edits", "see questions", "match", "see edits", "see questions", "fit clips"),
                    *("see edits", "see questions", "find two", "see edits", "see questions"),
                    *("fit criteria", "describe"),
                ),
            ),
        ),
        lr=3e-3,
    ),
    Course(
        steps=2100,
        stages=(
            (
                0.5,
                (
                    *("fit edits", "fit questions", "see edits", "fit questions", "fit clips", "fit edits"),
                    *("match", "fit questions", "fit edits", "see questions", "fit criteria", "fit edits"),
                    *("fit questions", "coin"),
                ),
            ),
            (
                1.0,
                (
                    *("fit edits", "fit questions", "fit clips", "fit edits", "fit questions"),
                    *("fit images", "fit edits", "fit questions", "reply", "fit edits", "match"),
                    *("fit questions", "see edits", "find two", "fit criteria", "fit questions"),
                    *("fit edits", "describe", "fit clips", "count nearly", "coin"),
                ),
            ),
        ),
        lr=2.5e-3,
    ),
)


def train(
    out: Path, *, seed: int, batch_size: int, courses: Sequence[Course] = COURSES
) -> tuple[Any, Any, Any]:
    """Train, write a checkpoint folder to `out`, and return the model, its tokenizer and image processor."""
    set_seed(seed)
    tokenizer = train_tokenizer(lessons.vocabulary(np.random.default_rng([seed, 0])), VOCABULARY)
    processor = AutoImageProcessor.from_pretrained(captioner.CHECKPOINT, backend="pil")
    model = _captioner_with(tokenizer, frame_pairs_per_second=FRAME_RATE // processor.temporal_patch_size)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    collator = Collator(tokenizer, processor)
    keywords = first_tokens(tokenizer, lessons.KEYWORDS)
    for number, course in enumerate(courses, 1):
        rng = np.random.default_rng([seed, number])
        attend(model, course, LESSONS, collator, keywords, rng, batch_size=batch_size)
        save(model, tokenizer, processor, out)
    return model, tokenizer, processor


def _captioner_with(tokenizer: Any, *, frame_pairs_per_second: int) -> Any:
    """The captioner with another vocabulary: tokens that it knows keep their embeddings.

    A clip's tokens follow each other in time as those of a picture do in space, position by position.
    """
    model = AutoModelForImageTextToText.from_pretrained(captioner.CHECKPOINT).train()
    known = AutoTokenizer.from_pretrained(captioner.CHECKPOINT).get_vocab()
    before = model.get_input_embeddings().weight.detach().clone()
    after = torch.randn(len(tokenizer), before.shape[1]) * EMBEDDING_RANGE
    for token, index in tokenizer.get_vocab().items():
        if token in known:
            after[index] = before[known[token]]
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(after)
    model.config.vision_config.tokens_per_second = frame_pairs_per_second
    return model


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = vars(parser.parse_args())
    # Several threads add up in another order, and are slower for a model this small.
    torch.set_num_threads(1)
    train(arguments.pop("out"), **arguments)


if __name__ == "__main__":
    main()
