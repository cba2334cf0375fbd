"""Results of single images in a file, a line of JSON each; a run that is killed continues there."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefrm.errors import DatasetError
from prefrm.files import write_whole

__all__ = ["stored_rows"]

Key = tuple[str, ...]
Row = Mapping[str, Any]


@contextmanager
def stored_rows(
    path: Path, claim: Mapping[str, Any], key: Callable[[Row], Key]
) -> Iterator[tuple[dict[Key, Row], Callable[[Iterable[Row]], None]]]:
    """The rows of a file by their keys, and a function that appends rows to both, until the block ends.

    A row that a kill cut short is removed. The file's first line is the claim.

    Args:
        path: of the file, which need not exist.
        claim: whose rows these are, such as the judge and its settings.
        key: of a row, such as the digest of its image.

    Raises:
        DatasetError: the file has another claim.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # As it is once it was written: lists instead of tuples.
    claim = json.loads(json.dumps(dict(claim)))
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith(b"\n")]
    if whole and whole[0] != claim:
        raise DatasetError(
            f"{path} has results of {whole[0]}, not of {claim}; give another output folder, or delete it"
        )
    rows = {key(row): row for row in whole[1:]}
    write_whole(path, "".join(json.dumps(line) + "\n" for line in (claim, *whole[1:])))
    with path.open("a", encoding="utf-8") as file:

        def add(some: Iterable[Row]) -> None:
            for row in some:
                file.write(json.dumps(row) + "\n")
                rows[key(row)] = row
            file.flush()

        yield rows, add
