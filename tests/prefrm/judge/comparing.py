"""From a judge, a prompt and images to what the judge says of them, as a training step reads them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations

import pytest
import torch

from prefrm.judge import ImageInput, Judge, JudgeBatch
from prefrm.media import decode

__all__ = ["batch_of", "compared", "noise_verdicts", "prepared", "reading"]

Places = Sequence[tuple[int, int]]


def prepared(judge: Judge, images: Sequence[bytes]) -> list[ImageInput]:
    """Encoded images, prepared for the judge."""
    return [judge.processor.prepare_image(decode(image)) for image in images]


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
