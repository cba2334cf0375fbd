"""Groups as an endpoint is shown them: images checked, upright and as data URLs, and texts as they are."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prefrm import media
from prefrm.errors import MediaError
from prefrm.winmatrix import Candidate, Group, Inputs

__all__ = ["Key", "Order", "ShownGroup", "data_url", "read_context"]

Key = tuple[str, ...]
"""Digests of the candidates that one question shows, in order."""
Order = tuple[int, int]
"""Two candidates by number, in the order shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGroup:
    """A group of K candidates, ready to be asked about.

    Attributes:
        prompt, criterion: of the group.
        keys: length K; the digest of each candidate, "" if it cannot be shown.
        errors: length K; why it cannot be shown, "" if it can.
        contents: the data URL of each digest, or the text.
        context: the data URLs of images of the context, in order.
    """

    prompt: str
    keys: tuple[str, ...]
    errors: tuple[str, ...]
    contents: Mapping[str, str]
    context: tuple[str, ...] = ()
    criterion: str = ""

    @classmethod
    def of(
        cls, group: Group, *, inputs: Inputs, contexts: int | None = 0, context: tuple[str, ...] = ()
    ) -> "ShownGroup":
        """The group with its images decoded once, to find those that cannot be.

        Args:
            group: of candidates.
            inputs: what is read of a group; of another one, nothing can be judged.
            contexts: number of images of the context that a question shows, None for any; of a group with
                another number, nothing can be judged.
            context: as data URLs, for a group without a context.
        """
        # Below, images of the context are counted.
        reason = replace(inputs, needs_context=False).refusal(group)
        try:
            context = tuple(map(data_url, group.context)) or context
        except MediaError as error:
            reason = reason or f"the context: {error}"
        if not reason and contexts is not None and len(context) != contexts:
            reason = _wanted(contexts, len(context))
        if reason:
            nothing = ("",) * group.size
            return cls(prompt=group.prompt, keys=nothing, errors=(reason,) * group.size, contents={})
        contents: dict[str, str] = {}
        found = [_shown(candidate, contents) for candidate in group.candidates]
        return cls(
            prompt=group.prompt,
            keys=tuple(key for key, _ in found),
            errors=tuple(error for _, error in found),
            contents=contents,
            context=context,
            criterion=group.criterion,
        )

    @property
    def shown(self) -> list[int]:
        """The candidates that can be shown."""
        return [n for n, key in enumerate(self.keys) if key]

    def pairs(self, orders: Iterable[Order] | None = None) -> list[Key]:
        """The questions about pairs in these orders, by default all, each once; equal candidates are in none.

        Those with the same image first follow one another, so that a server's prefix cache serves them.
        """
        if orders is None:
            orders = [(i, j) for i in self.shown for j in self.shown]
        keys = dict.fromkeys((self.keys[i], self.keys[j]) for i, j in orders)
        return [key for key in keys if key[0] != key[1]]

    def singles(self) -> list[Key]:
        """The questions about candidates alone, each once."""
        return list(dict.fromkeys((self.keys[n],) for n in self.shown))


def _wanted(wanted: int, received: int) -> str:
    return (
        f"the question shows {wanted} images of the context and the group has {received}; give it them, or "
        "name the file of one with context=FILE"
    )


def _shown(candidate: Candidate, contents: dict[str, str]) -> tuple[str, str]:
    """The digest of a candidate, which is added to `contents`, and ""; or "" and why it cannot be shown."""
    if not candidate:
        return "", "the candidate is missing"
    key = media.digest(candidate)
    try:
        if key not in contents:
            contents[key] = candidate if isinstance(candidate, str) else data_url(candidate)
    except MediaError as error:
        return "", str(error)
    return key, ""


def data_url(image: bytes) -> str:
    """A `data:` URL of an encoded image: its own bytes, or those of an upright PNG if its metadata turns it.

    Raises:
        MediaError: the image cannot be decoded.
    """
    media.verify(image)
    straight = media.upright(image)
    kind = media.probe(straight).format.lower()
    return f"data:image/{kind};base64,{base64.b64encode(straight).decode()}"


def read_context(path: Path) -> str:
    """The data URL of the image that all candidates are edits of. Raises `MediaError` that names the file."""
    try:
        return data_url(media.read(path))
    except MediaError as error:
        raise MediaError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
