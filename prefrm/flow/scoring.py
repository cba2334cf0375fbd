"""Scoring in a thread while the next samples are drawn. Shapes: N samples."""

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from prefrm.errors import MediaError
from prefrm.pixels import encode_image
from prefrm.rewards.numbers import Doubles
from prefrm.rewards.samples import Reward

__all__ = ["Scoring", "encode_images"]


class Scoring:
    """Scores by several rewards, in one thread and in the order of the calls."""

    def __init__(self, rewards: Mapping[str, Reward]) -> None:
        self._rewards = rewards
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")

    def submit(
        self, prompts: Sequence[str], images: Tensor, keys: Sequence[Hashable]
    ) -> "Future[dict[str, Doubles]]":
        """Rewards [N] by name, later.

        Args:
            prompts: of each sample.
            images: [N, 3, H, W] in [0, 1]; one with a pixel that is NaN is missing.
            keys: equal for the samples of a group, all of which are here.
        """

        def score(images: Tensor) -> dict[str, Doubles]:
            encoded = encode_images(images)
            return {name: reward.rewards(prompts, encoded, keys) for name, reward in self._rewards.items()}

        return self._thread.submit(score, images.cpu())

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)


def encode_images(images: Tensor) -> list[bytes | None]:
    """PNG of each of [N, 3, H, W]; None of one with a pixel that is not a number in [0, 1]."""
    encoded: list[bytes | None] = []
    for image in images.cpu():
        try:
            encoded.append(encode_image(image))
        except MediaError:
            encoded.append(None)
    return encoded
