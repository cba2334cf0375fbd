"""A file with a line of JSON for each step of a run, such as its metrics."""

import json
import os
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from prefrm.files import write_whole

__all__ = ["JsonLines"]


class JsonLines:
    """Appends lines; a resumed run removes those of the steps that it repeats.

    Args:
        path: of the file; None keeps the lines in memory alone.
        key: of a line's step.
        done: steps that are done; 0 starts a new file.

    Attributes:
        lines: all lines, those of earlier processes of the run too.
    """

    def __init__(self, path: Path | None, *, key: str, done: int) -> None:
        self._path, self.lines = path, list[dict[str, Any]]()
        if path is not None:
            before = path.read_text(encoding="utf-8").splitlines() if path.exists() and done else []
            # A line that a kill cut short is never of a step that a checkpoint knows.
            whole = map(json.loads, takewhile(lambda line: line.endswith("}"), before))
            self.lines += [line for line in whole if line[key] <= done]
            write_whole(path, "".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: Mapping[str, Any], *, sync: bool = False) -> None:
        """Append a line of finite numbers; `sync` forces the file to the disk."""
        self.lines.append(dict(line))
        if self._path is None:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")
            if sync:
                file.flush()
                os.fsync(file.fileno())
