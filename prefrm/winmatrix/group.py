"""A prompt and the candidates that answer it, without any verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prefrm import media
from prefrm.containers import is_video
from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.pixels import encode_image, split_images

__all__ = ["Candidate", "Group", "Kind", "check_permutation", "kind_of"]

OTHER_FORMS = "Group.of(prompt, candidates) takes paths, Pillow images and arrays"
TEXT_FORM = "write Group(prompt=prompt, candidates=(text, text))"


Candidate = bytes | str | None
"""An encoded image or video, a text, or None if it is missing."""
Kind = Literal["image", "video", "text"]
"""Of the candidates of a group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt and its K >= 2 candidates, all images, all videos or all texts.

    An empty prompt compares the candidates without a task. Datasets have none (`PreferenceGroup`), so it is
    nothing that a judge was trained for. `Group.of` makes one of files, Pillow images and arrays.

    Attributes:
        prompt: what the candidates answer.
        candidates: each an encoded image or video, told apart by its container, a text, or None if it is
            missing. An empty text or no bytes is a missing candidate, too.
        context: encoded images that belong to the prompt: the source of an edit, or the picture that a
            question is about. Only judges whose template has a place for it take any.
        criterion: what candidates are compared by, such as "alignment"; "" is overall preference. Only
            judges whose template has a place for it take one.

    Raises:
        RecordError: a field is of another type, texts stand among bytes, or there are fewer than
            two candidates.
    """

    prompt: str
    candidates: tuple[Candidate, ...]
    context: tuple[bytes, ...] = ()
    criterion: str = ""

    def __post_init__(self) -> None:
        for name in ("prompt", "criterion"):
            if not isinstance(value := getattr(self, name), str):
                raise RecordError(f"a group's {name} is a string; received {type(value).__name__}")
        if not isinstance(self.candidates, tuple):
            raise RecordError(
                f"a group's candidates are a tuple; received {type(self.candidates).__name__}; {OTHER_FORMS}"
            )
        for n, candidate in enumerate(self.candidates):
            if candidate is not None and not isinstance(candidate, bytes | str):
                raise RecordError(
                    "a group's candidates are encoded bytes, texts or None; "
                    f"candidate {n} is {type(candidate).__name__}; {OTHER_FORMS}"
                )
        if not isinstance(self.context, tuple) or not all(isinstance(x, bytes) and x for x in self.context):
            raise RecordError("a group's context is a tuple of encoded images, none of them empty or None")
        if len(self.candidates) < 2:
            raise RecordError(
                f"a group needs at least 2 candidates; received {len(self.candidates)} "
                f"for the prompt {self.prompt[:60]!r}"
            )
        if len({type(x) for x in self.candidates if x is not None}) > 1:
            raise RecordError("a group's candidates are all texts or all encoded bytes; received both")

    @classmethod
    def of(
        cls,
        prompt: str,
        candidates: Any,
        *,
        context: Sequence[Any] = (),
        criterion: str = "",
        limits: media.ImageLimits = media.DEFAULT_LIMITS,
    ) -> "Group":
        """A group of candidates in whatever form they are at hand.

        Args:
            prompt: what the candidates answer.
            candidates: K >= 2 images or videos, each the path of a file (str or Path; also GIF, BMP, TIFF and
                AVIF, of which the first frame is taken), a Pillow image, an array or a tensor as
                `prefrm.pixels.encode_image` takes it, encoded bytes, or None if it is missing; or all of them
                as one array or tensor, NCHW or NHWC. Texts are candidates of `Group` itself.
            context: images that belong to the prompt, each in such a form but None.
            criterion: what candidates are compared by.
            limits: bounds on a file.

        Raises:
            ConfigError: the candidates or the context are not a sequence or such an array.
            MediaError: candidates or context images cannot be read or encoded; names each, with its reason.
            RecordError: there are fewer than two candidates, a context image is missing, or the prompt is not
                a string.
        """
        problems: list[str] = []
        found = _all_encoded("candidate", candidates, limits, problems)
        own = _all_encoded("context image", context, limits, problems)
        if problems and not found and all(isinstance(x, str) for x in candidates):
            problems.append(f"if they are texts, {TEXT_FORM}")
        if problems:
            raise MediaError("; ".join(problems))
        return cls(
            prompt=prompt,
            candidates=tuple(found),
            # An empty one is refused there.
            context=tuple(image or b"" for image in own),
            criterion=criterion,
        )

    @property
    def size(self) -> int:
        """K, the group size."""
        return len(self.candidates)

    @property
    def kind(self) -> Kind:
        """Of the candidates; "video" if videos stand among other bytes, and "image" if all are missing."""
        if any(isinstance(x, str) for x in self.candidates):
            return "text"
        return "video" if "video" in self.kinds else "image"

    @property
    def kinds(self) -> frozenset[Kind]:
        """Of each candidate that is there: images and videos may be mixed, and a scorer reads one of them."""
        return frozenset(kind_of(x) for x in self.candidates if x)

    @property
    def encoded(self) -> tuple[bytes | None, ...]:
        """The candidates of a group of images or videos; a text is None."""
        return tuple(x if isinstance(x, bytes) else None for x in self.candidates)

    @property
    def text_bytes(self) -> int:
        """Of the prompt and the criterion in UTF-8; a lone surrogate, which no wire carries, counts 3."""
        return _size(self.prompt) + _size(self.criterion)

    @property
    def content_bytes(self) -> int:
        """Of the prompt, the criterion, all candidates and the context; texts in UTF-8."""
        return self.text_bytes + sum(map(_size, (*self.candidates, *self.context)))

    def permuted(self, order: Sequence[int]) -> "Group":
        """The same group with candidate `order[n]` in place n."""
        order = check_permutation(order, self.size)
        return replace(self, candidates=tuple(self.candidates[i] for i in order))


def kind_of(content: bytes | str) -> Kind:
    """Of a candidate; encoded bytes that are not a video count as an image."""
    if isinstance(content, str):
        return "text"
    return "video" if is_video(content) else "image"


def _size(content: Candidate) -> int:
    if content is None:
        return 0
    return len(content) if isinstance(content, bytes) else len(content.encode("utf-8", "surrogatepass"))


def _all_encoded(name: str, given: Any, limits: media.ImageLimits, problems: list[str]) -> list[bytes | None]:
    """Those that can be read; why each of the others cannot is added to `problems`."""
    try:
        images = split_images(given)
    except ConfigError as error:
        raise ConfigError(f"{name}s: {error}") from error
    found: list[bytes | None] = []
    for n, image in enumerate(images):
        try:
            found.append(_encoded(image, limits))
        except (ConfigError, MediaError) as error:
            problems.append(f"{name} {n}: {error}")
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
