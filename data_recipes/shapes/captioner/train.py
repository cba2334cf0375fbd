"""Train the captioner: `python -m data_recipes.shapes.captioner.train --out DIR --seed 0`.

From random weights, through five courses of fresh scenes, on one CPU core: a good hour. Prints
the share of held-out pictures that are described exactly. Equal seeds give equal weights on one machine.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import set_seed

from data_recipes.shapes.candidates import make_candidates
from data_recipes.shapes.captioner import lessons
from data_recipes.shapes.captioner.courses import Course, Lesson, attend, first_tokens
from data_recipes.shapes.captioner.dialogue import Collator
from data_recipes.shapes.captioner.model import Architecture, image_processor, save, untrained
from data_recipes.shapes.captioner.tokenizer import IM_END, train_tokenizer
from data_recipes.shapes.prompts import caption, split_prompts
from data_recipes.shapes.render import render

__all__ = ["COURSES", "LESSONS", "describe", "exact_captions", "main", "train"]

VOCABULARY = 512
MAX_CAPTION_TOKENS = 48  # five shapes take 30


LESSONS: dict[str, Lesson] = {
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
        attend(model, course, LESSONS, collator, keywords, rng, batch_size=batch_size)
    save(model, tokenizer, processor, out)
    return model, tokenizer, processor


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
