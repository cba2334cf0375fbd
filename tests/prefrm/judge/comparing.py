"""From a judge, a prompt and images to what the judge says of them, as a training step reads them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations

import pytest
import torch

from prefrm.judge import ContentReader, ImageInput, Judge, JudgeBatch, Tree
from prefrm.media import decode
from prefrm.winmatrix import Group

__all__ = ["batch_of", "compared", "group_batch", "noise_verdicts", "prepared", "reading", "tree_of"]

Places = Sequence[tuple[int, int]]


def prepared(judge: Judge, images: Sequence[bytes]) -> list[ImageInput]:
    """Encoded images, prepared for the judge."""
    return [judge.processor.prepare_image(decode(image)) for image in images]


def tree_of(judge: Judge, group: Group) -> Tree:
    """The tree of a group in which no candidate is missing, by their places."""
    read = ContentReader(judge.processor)
    shown = {n: read(one, judge.spec.kind) for n, one in enumerate(group.candidates) if one}
    context = [image for data in group.context for image in read(data, "image")]
    return judge.processor.tree(group.prompt, shown, context, group.criterion)


def group_batch(judge: Judge, group: Group, pairs: Places | None = None) -> JudgeBatch:
    """A batch of one group: comparisons of its candidates by their places, all ordered pairs by default."""
    wanted = list(permutations(range(group.size), 2)) if pairs is None else pairs
    return judge.processor.collate([(tree_of(judge, group), wanted)])


def batch_of(
    judge: Judge, prompt: str, images: Sequence[ImageInput], pairs: Places | None = None
) -> JudgeBatch:
    """A batch of one group: comparisons of its images by their places, all ordered pairs by default."""
    tree = judge.processor.tree(prompt, dict(enumerate(images)))
    wanted = list(permutations(range(len(images)), 2)) if pairs is None else pairs
    return judge.processor.collate([(tree, wanted)])


def compared(
    judge: Judge, prompt: str, images: Sequence[ImageInput], pairs: Places | None = None
) -> torch.Tensor:
    """The outcomes of `batch_of`."""
    outcomes: torch.Tensor = judge(batch_of(judge, prompt, images, pairs))
    return outcomes


@torch.inference_mode()
def noise_verdicts(judge: Judge, png: Callable[..., bytes]) -> torch.Tensor:
    """The outcomes of all ordered pairs of three images of noise."""
    return compared(judge, "a cat", prepared(judge, [png(seed) for seed in range(3)]))


@contextmanager
def reading(judge: Judge) -> Iterator[list[torch.Tensor]]:
    """The last hidden states [R, D] that the head is given in the block."""
    read, seen = judge.head.read, []

    def watched(hidden_RD: torch.Tensor, answers_AD: torch.Tensor) -> torch.Tensor:
        seen.append(hidden_RD)
        return read(hidden_RD, answers_AD)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge.head, "read", watched)
        yield seen
