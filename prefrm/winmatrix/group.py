"""A prompt and the candidates that answer it. Knows nothing of what a judge says of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from prefrm.errors import RecordError

__all__ = ["Group", "check_permutation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt and its K >= 2 candidates, each the bytes of an encoded image or None if it is missing."""

    prompt: str
    images: tuple[bytes | None, ...]

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise RecordError(
                f"a group needs at least 2 candidates; received {len(self.images)} "
                f"for the prompt {self.prompt[:60]!r}"
            )

    @property
    def size(self) -> int:
        """K, the group size."""
        return len(self.images)

    @property
    def prompt_bytes(self) -> int:
        """Of the prompt in UTF-8; a lone surrogate, which no wire carries, counts 3."""
        text = self.prompt
        return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))

    @property
    def content_bytes(self) -> int:
        """Of the prompt in UTF-8 and of all images."""
        return self.prompt_bytes + sum(len(image or b"") for image in self.images)

    def permuted(self, order: Sequence[int]) -> "Group":
        """The same group with candidate `order[n]` in place n."""
        return Group(
            prompt=self.prompt, images=tuple(self.images[i] for i in check_permutation(order, self.size))
        )


def check_permutation(order: Sequence[int], size: int) -> Sequence[int]:
    """The order itself. Raises `RecordError` unless it names each of `size` candidates once."""
    if sorted(order) != list(range(size)):
        raise RecordError(f"{list(order)} is not a permutation of 0..{size - 1}")
    return order
