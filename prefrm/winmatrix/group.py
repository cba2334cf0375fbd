"""A prompt and the candidates that answer it, without any verdict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefrm import media
from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.pixels import encode_image, split_images

__all__ = ["Group", "check_groups", "check_permutation"]

OTHER_FORMS = "Group.of(prompt, candidates) takes paths, Pillow images and arrays"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt and its K >= 2 candidates, each the bytes of an encoded image or None if it is missing.

    An empty prompt compares the candidates without a task. Datasets have none (`PreferenceGroup`), so it is
    nothing that a judge was trained for. `Group.of` makes one of files, Pillow images and arrays.

    Attributes:
        prompt: what the candidates answer.
        images: the candidates.
        context: encoded images that belong to the prompt, such as the source of an edit. Only judges whose
            template has a place for it take any.

    Raises:
        RecordError: a field is of another type, or there are fewer than two candidates.
    """

    prompt: str
    images: tuple[bytes | None, ...]
    context: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise RecordError(f"a group's prompt is a string; received {type(self.prompt).__name__}")
        if not isinstance(self.images, tuple):
            raise RecordError(
                f"a group's images are a tuple; received {type(self.images).__name__}; {OTHER_FORMS}"
            )
        for n, image in enumerate(self.images):
            if image is not None and not isinstance(image, bytes):
                raise RecordError(
                    f"a group's images are encoded bytes or None; candidate {n} is {type(image).__name__}; "
                    f"{OTHER_FORMS}"
                )
        if not isinstance(self.context, tuple) or not all(isinstance(x, bytes) and x for x in self.context):
            raise RecordError("a group's context is a tuple of encoded images, none of them empty or None")
        if len(self.images) < 2:
            raise RecordError(
                f"a group needs at least 2 candidates; received {len(self.images)} "
                f"for the prompt {self.prompt[:60]!r}"
            )

    @classmethod
    def of(
        cls,
        prompt: str,
        candidates: Any,
        *,
        context: Sequence[Any] = (),
        limits: media.ImageLimits = media.DEFAULT_LIMITS,
    ) -> "Group":
        """A group of candidates in whatever form they are at hand.

        Args:
            prompt: what the candidates answer.
            candidates: K >= 2 images, each the path of a file (str or Path; also GIF, BMP, TIFF and AVIF, of
                which the first frame is taken), a Pillow image, an array or a tensor as
                `prefrm.pixels.encode_image` takes it, encoded bytes, or None if it is missing; or all of them
                as one array or tensor, NCHW or NHWC.
            context: images that belong to the prompt, each in such a form but None.
            limits: bounds on a file.

        Raises:
            ConfigError: the candidates are not a sequence or such an array.
            MediaError: candidates cannot be read or encoded; names each, with its reason.
            RecordError: there are fewer than two, or the prompt is not a string.
        """
        images: list[bytes | None] = []
        problems: list[str] = []
        for n, candidate in enumerate(split_images(candidates)):
            try:
                images.append(_encoded(candidate, limits))
            except (ConfigError, MediaError) as error:
                problems.append(f"candidate {n}: {error}")
        if problems:
            raise MediaError("; ".join(problems))
        own = [_encoded(image, limits) or b"" for image in context]
        return cls(prompt=prompt, images=tuple(images), context=tuple(own))

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
        """Of the prompt in UTF-8 and of all images, those of the context included."""
        return self.prompt_bytes + sum(len(image or b"") for image in (*self.images, *self.context))

    def permuted(self, order: Sequence[int]) -> "Group":
        """The same group with candidate `order[n]` in place n."""
        return replace(self, images=tuple(self.images[i] for i in check_permutation(order, self.size)))


def check_groups(groups: Iterable[Group], *, context: bool = False) -> list[Group]:
    """The groups that a scorer is given, as a list.

    Args:
        groups: of any kind.
        context: whether the scorer reads the context of groups.

    Raises:
        RecordError: they are not groups, or one has a context that would be ignored.
    """
    if not isinstance(groups, Iterable):
        raise RecordError(
            f"score takes a list of groups; received {type(groups).__name__}: write score([group])"
        )
    found = list(groups)
    for n, group in enumerate(found):
        if not isinstance(group, Group):
            raise RecordError(f"score takes a list of groups; its item {n} is {type(group).__name__}")
        if group.context and not context:
            raise RecordError(
                f"item {n} has context images, which this scorer does not read; use a bundle on this machine "
                "whose template has {context}, or leave them out"
            )
    return found


def _encoded(candidate: Any, limits: media.ImageLimits) -> bytes | None:
    if candidate is None:
        return None
    if isinstance(candidate, str | Path):
        return media.read(candidate, limits)
    return encode_image(candidate)


def check_permutation(order: Sequence[int], size: int) -> Sequence[int]:
    """The order itself. Raises `RecordError` unless it names each of `size` candidates once."""
    if sorted(order) != list(range(size)):
        raise RecordError(f"{list(order)} is not a permutation of 0..{size - 1}")
    return order
