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
from data_recipes.shapes.captioner.model import EMBEDDING_RANGE, save, with_layers_on_top
from data_recipes.shapes.captioner.tokenizer import train_tokenizer
from data_recipes.shapes.clips import FRAME_RATE
from data_recipes.shapes.viewer import lessons

__all__ = ["COURSES", "LESSONS", "main", "train"]

VOCABULARY = 768

_ASKED = {
    **{name: partial(lessons.fit, world, judged=True) for name, world in lessons.WORLDS.items()},
    "match": partial(lessons.fit, lessons.WORLDS["images"], judged=True, wording=lessons.MATCH),
}
LESSONS: dict[str, Lesson] = {
    **first.LESSONS,
    **{f"see {name}": partial(lessons.fit, world, judged=False) for name, world in lessons.WORLDS.items()},
    **{f"ask {name}": lesson for name, lesson in _ASKED.items()},
    **{f"fit {name}": partial(lesson, counted=True) for name, lesson in _ASKED.items()},
    "reply": lessons.reply,
}

LAYERS_ON_TOP = 3
_SEEN = (
    *("see edits", "see questions", "ask match", "see edits", "see questions", "ask clips"),
    *("see edits", "see questions", "find two", "see edits", "see questions"),
    *("ask criteria", "describe"),
)
_JUDGED = (
    *("fit edits", "fit questions", "fit criteria", "fit edits", "fit questions"),
    *("fit match", "fit questions", "fit edits", "fit questions", "fit clips"),
)
_KEPT = ("find two", "describe", "count nearly", "reply", "coin")
_HARDEST = (
    *("fit questions", "fit clips", "fit questions", "fit criteria", "fit questions"),
    *("fit edits", "coin", "fit questions", "fit clips", "fit questions"),
    *("fit images", "fit questions", "fit clips", "fit match", "describe"),
)


def _on_top(steps: int, cycle: tuple[str, ...], lr: float, lr_on_top: float) -> Course:
    stages = ((1.0, cycle),)
    return Course(steps=steps, stages=stages, lr=lr, lr_on_top=lr_on_top, layers_on_top=LAYERS_ON_TOP)


# First what candidates show and whether that is right, by the marks at their tokens, among the captioner's
# own lessons. Then a judge's question, whose answer has to gather what the marks say, in new layers on top:
# at a high rate until these add something, then at lower ones. Toward the end come the captioner's lessons
# again, and more of what is hardest. Answers where a candidate is seen are only a way there, and are lost.
COURSES = (
    Course(steps=1300, stages=((1.0, _SEEN),), lr=3e-3),
    _on_top(200, _JUDGED, 2.5e-3, 3e-2),
    _on_top(700, _JUDGED, 1.5e-3, 4.5e-3),
    _on_top(1800, _JUDGED, 1.5e-3, 4.5e-3),
    _on_top(500, (*_JUDGED, "fit criteria", "fit images", *_KEPT), 1e-3, 2e-3),
    _on_top(1100, _HARDEST, 1.5e-3, 4.5e-3),
)


def train(
    out: Path, *, seed: int, batch_size: int, courses: Sequence[Course] = COURSES
) -> tuple[Any, Any, Any]:
    """Train, write a checkpoint folder to `out`, and return the model, its tokenizer and image processor."""
    set_seed(seed)
    tokenizer = train_tokenizer(lessons.vocabulary(np.random.default_rng([seed, 0])), VOCABULARY)
    processor = AutoImageProcessor.from_pretrained(captioner.CHECKPOINT, backend="pil")
    model = _captioner_with(tokenizer, frame_pairs_per_second=FRAME_RATE // processor.temporal_patch_size)
    collator = Collator(tokenizer, processor)
    keywords = first_tokens(tokenizer, lessons.KEYWORDS)
    on_top = 0
    for number, course in enumerate(courses, 1):
        missing = course.layers_on_top - on_top
        if missing > 0:
            model, on_top = with_layers_on_top(model, missing), course.layers_on_top
        print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
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
