"""The groups of a dataset as pages show them: texts and digests in memory, images and videos read when asked
for."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from prefrm import media
from prefrm.data import LoadedGroups
from prefrm.records import PreferenceGroup, read_row_groups, row_group_sizes
from prefrm.winmatrix import Kind

__all__ = ["Catalog", "Listed"]

# Of a dataset file's row groups, each of some 32 MB.
KEPT_ROW_GROUPS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """A group without its contents.

    Attributes:
        prompt: as of the group.
        criterion: as of the group.
        kind: of its candidates.
        candidates: digest of each, None if it is missing.
        context: digest of each context image.
    """

    prompt: str
    criterion: str
    kind: Kind
    candidates: tuple[str | None, ...]
    context: tuple[str, ...]


class Catalog:
    """A split of a dataset, listed once and read again in parts. Safe to use from several threads.

    Args:
        groups: the split.
    """

    def __init__(self, groups: LoadedGroups) -> None:
        self._groups = groups
        self._lock = threading.Lock()
        self._listed: dict[str, Listed] = {}
        self._row_group: dict[str, int] = {}
        self._contents: OrderedDict[int, dict[str, bytes | str]] = OrderedDict()

    def __len__(self) -> int:
        """How many groups there are, listed or not."""
        return len(self._groups)

    def read(self) -> Iterator[PreferenceGroup]:
        """Every group, in order, each listed before it is given out."""
        sizes = row_group_sizes(self._groups.folder, self._groups.split)
        numbers = (number for number, size in enumerate(sizes) for _ in range(size))
        for group, number in zip(self._groups, numbers, strict=True):
            listed, contents = _list(group)
            with self._lock:
                self._listed[group.id] = listed
                self._row_group |= dict.fromkeys(contents, number)
            yield group

    def find(self, group: str) -> Listed | None:
        """A group by its id; None if it is not listed, or not yet."""
        with self._lock:
            return self._listed.get(group)

    def content(self, digest: str) -> bytes | str | None:
        """A candidate or a context image of a listed group; None if no group has it."""
        with self._lock:
            number = self._row_group.get(digest)
            if number is None:
                return None
            if number not in self._contents:
                self._contents[number] = {
                    digest: content
                    for group in read_row_groups(self._groups.folder, self._groups.split, [number])
                    for digest, content in _list(group)[1].items()
                }
                if len(self._contents) > KEPT_ROW_GROUPS:
                    self._contents.popitem(last=False)
            self._contents.move_to_end(number)
            return self._contents[number][digest]


def _list(group: PreferenceGroup) -> tuple[Listed, dict[str, bytes | str]]:
    """The group without its contents, and those by their digests."""
    candidates = [candidate or None for candidate in group.candidates]
    digests = [None if candidate is None else media.digest(candidate) for candidate in candidates]
    context = {media.digest(image): image for image in group.context}
    listed = Listed(
        prompt=group.prompt,
        criterion=group.criterion,
        kind=group.group().kind,
        candidates=tuple(digests),
        context=tuple(map(media.digest, group.context)),
    )
    contents = {
        digest: candidate
        for digest, candidate in zip(digests, candidates, strict=True)
        if digest is not None and candidate is not None
    }
    return listed, contents | context
