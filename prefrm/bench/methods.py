"""The methods that the benchmark of the engine compares, each from encoded images on.

`plain` is what people run today: every comparison a whole prompt of two images, both orders, through the
forward pass of `transformers`, in batches, in inference mode, with the logits of the last position alone and
no cache of keys and values, each image decoded and prepared once. The others are the engine.

Shapes: K candidates, B sequences, N comparisons, V words.
"""

import io
import math
from collections.abc import Sequence
from functools import partial
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from prefrm.bench.inputs import own_attention, plain_inputs, sequences
from prefrm.bench.meters import timed
from prefrm.bench.random_model import PROMPT
from prefrm.engine import Engine
from prefrm.engine.encoder import PreparedContent
from prefrm.judge import ImageInput, Judge, Tree, log_odds
from prefrm.media import decode
from prefrm.progress import Advance
from prefrm.winmatrix import Group

__all__ = [
    "METHODS",
    "PLAIN",
    "EngineMethod",
    "PlainMethod",
    "both_orders",
    "noise_images",
    "reference_probabilities",
]

PLAIN = "plain"
METHODS = (PLAIN, "joint", "late", "scalar", "embedding")
Pairs = Sequence[tuple[int, int]]


def noise_images(count: int, side: int, *, seed: int = 0) -> list[bytes]:
    """Distinct images as PNG: noise of different brightness, so that a model tells them apart."""
    random = np.random.default_rng(seed)
    images = []
    for top in random.permutation(np.linspace(32, 255, count)):
        pixels = random.integers(0, round(top) + 1, (side, side, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        images.append(buffer.getvalue())
    return images


def both_orders(k: int) -> list[tuple[int, int]]:
    """Every comparison of K candidates; the two orders of a pair are neighbours."""
    return [order for i, j in combinations(range(k), 2) for order in ((i, j), (j, i))]


class PlainMethod:
    """Comparisons through the forward pass of `transformers`.

    Args:
        judge: a joint verdict.
        images: of all candidates, encoded.
    """

    def __init__(self, judge: Judge, images: Sequence[bytes]) -> None:
        self.batch_size = 1
        self.judge = judge
        self._images = images

    def prepare(self, k: int) -> list[ImageInput]:
        """The first K candidates, decoded and prepared."""
        return [self.judge.processor.prepare_image(decode(image)) for image in self._images[:k]]

    @torch.inference_mode()
    def read(self, images: Sequence[ImageInput], pairs: Pairs) -> torch.Tensor:
        """Log-odds [N] that the image shown first is preferred."""
        size = self.batch_size
        batches = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        tree = self.judge.processor.tree(PROMPT, dict(enumerate(images)))
        with own_attention(self.judge):
            return torch.cat([self._forward(tree, batch) for batch in batches]).cpu()

    def choose_batch_size(self, sizes: Sequence[int], *, tries: int, advance: Advance) -> None:
        """Keep the size at which a comparison takes the fewest seconds; one that does not fit is left out."""
        images, device = self.prepare(2), self.judge.device
        self.read(images, [(0, 1)])
        seconds: dict[int, float] = {}
        for done, size in enumerate((*sizes,) * tries):
            advance(done)
            self.batch_size = size
            pairs = both_orders(2) * -(-size // 2)
            try:
                _, spent = timed(partial(self.read, images, pairs[:size]), device)
            except torch.OutOfMemoryError:
                continue
            seconds[size] = min(spent / size, seconds.get(size, math.inf))
        self.batch_size = min(seconds, key=lambda size: seconds[size])

    def _forward(self, tree: Tree, pairs: Pairs) -> torch.Tensor:
        processor, model = self.judge.processor, self.judge.model
        inputs = plain_inputs(sequences(tree, pairs))
        # The last position of the batch is that of each row: images of one size need no padding.
        assert bool(inputs["attention_mask"].all())
        inputs = {name: x.to(self.judge.device) for name, x in inputs.items()}
        logits_BV = model(**inputs, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        first, second = processor.layout.answers
        z_B: torch.Tensor = logits_BV[:, first] - logits_BV[:, second]
        return z_B


class EngineMethod:
    """A group through the engine, of which nothing is kept from one call to the next.

    Args:
        judge: of any kind.
        images: of all candidates, encoded.
        compile: as of `Engine`.
    """

    def __init__(self, judge: Judge, images: Sequence[bytes], *, compile: bool = False) -> None:
        self._engine = Engine(judge, cache_bytes=0, compile=compile)
        self._images = images

    def score(self, k: int) -> npt.NDArray[np.float32]:
        """The win matrix [K, K] of the first K candidates."""
        group = Group(prompt=PROMPT, candidates=tuple(self._images[:k]))
        return self._engine.score([group])[0].p

    def prepare(self, k: int) -> list[PreparedContent]:
        """The first K candidates, decoded: `score` does not decode them while the result is kept."""
        return [self._engine.prepare(image) for image in self._images[:k]]


@torch.inference_mode()
def reference_probabilities(judge: Judge, plain: PlainMethod, k: int) -> npt.NDArray[np.float64]:
    """The win matrix [K, K] of the first K candidates without the engine.

    Of a joint verdict by the plain method; of others by the judge's own forward pass, as it is trained.
    """
    images, pairs = plain.prepare(k), both_orders(k)
    if judge.spec.attention == "joint":
        z_N = plain.read(images, pairs)
    else:
        tree = judge.processor.tree(PROMPT, dict(enumerate(images)))
        z_N, _ = log_odds(judge(judge.processor.collate([(tree, pairs)])))
    p_KK = np.full((k, k), 0.5)
    for n in range(0, len(pairs), 2):
        i, j = pairs[n]
        z = (float(z_N[n]) - float(z_N[n + 1])) / 2
        p_KK[i, j] = 1 / (1 + np.exp(-z))
        p_KK[j, i] = 1 - p_KK[i, j]
    return p_KK
