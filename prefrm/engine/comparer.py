"""Comparisons of several groups at once: what they have in common is read once, and then their pairs."""

from collections.abc import Sequence

from prefrm.engine.attention import KVBlocks
from prefrm.engine.passes import Blocks, Features, Name, Passes, Row
from prefrm.engine.plan import Pair
from prefrm.engine.readers import Outcome, Reader
from prefrm.engine.refcounted import RefCounted

__all__ = ["Comparer", "Prefixes"]

Prefixes = RefCounted[tuple[KVBlocks, int]]
"""Where the blocks of prompts are, by prompt."""


class Comparer:
    """Compares images of groups; what it has read of them serves every later comparison.

    Args:
        passes: run the rows.
        readers: one for each group.
        prefixes: of earlier groups; a use of each is counted.
    """

    def __init__(self, passes: Passes, readers: Sequence[Reader], prefixes: Prefixes) -> None:
        self._passes = passes
        self._features: Features = {image: x for reader in readers for image, x in reader.features.items()}
        found: Blocks = {}
        openings: dict[Name, Row] = {}
        for reader in readers:
            if (known := prefixes.get(_prompt(reader))) is None:
                openings[reader.prefix] = reader.opening
            else:
                found = {**found, reader.prefix: known}
        found = {**found, **passes.keep(openings, {}, self._features)}
        for reader in readers:
            prefixes.use(_prompt(reader), found[reader.prefix])
        rows = {name: row for reader in readers for name, row in reader.blocks.items()}
        self._blocks: Blocks = {**found, **passes.keep(rows, found, self._features)}

    def compare(self, asked: Sequence[tuple[Reader, Sequence[Pair]]]) -> list[dict[Pair, Outcome]]:
        """What the judge says of each reader's pairs that it can read, the first of a pair shown first."""
        rows = [reader.rows(pairs) for reader, pairs in asked]
        readings = self._passes.read(
            [row for some in rows for row in some.values()], self._blocks, self._features
        )
        parts = readings.split([len(some) for some in rows])
        return [
            reader.outcomes(pairs, list(some), part)
            for (reader, pairs), some, part in zip(asked, rows, parts, strict=True)
        ]


def _prompt(reader: Reader) -> str:
    return str(reader.prefix[0])
