"""Writes the groups of a run's last steps, bounded in number and bytes.

A file is named TIME-STEP-GROUPS-RANDOM.parquet, with the time in nanoseconds, so that a listing tells which
files are the oldest and how many groups they hold. Every process of a run writes files of its own into the
same folder, and any of them may delete the oldest.
"""

import logging
import re
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Union

from prefrm.errors import ConfigError
from prefrm.files import require_writable_folder, write_file_whole
from prefrm.group_log.rows import LoggedGroup, schema, to_row
from prefrm.records import import_pyarrow

__all__ = ["MOST_BYTES", "MOST_GROUPS", "GroupLog", "LogFile", "log_files"]

logger = logging.getLogger(__name__)

MOST_GROUPS, MOST_BYTES = 512, 512 * 2**20
# A file that is still partial after this time was left by a process that was killed.
ABANDONED_NS = 3600 * 10**9
NAME = re.compile(r"(\d{20})-(\d+|none)-(\d+)-[0-9a-f]{8}\.(parquet|partial)")


class LogFile(NamedTuple):
    """A file of a log, as its name describes it."""

    time_ns: int
    step: int | None
    groups: int
    path: Path

    @classmethod
    def of(cls, path: Path) -> "LogFile | None":
        """None for a file that no log writes."""
        if (found := NAME.fullmatch(path.name)) is None:
            return None
        written, step, groups, _ = found.groups()
        return cls(int(written), None if step == "none" else int(step), int(groups), path)


def log_files(folder: Path, kind: str = "parquet") -> list[LogFile]:
    """The files of a log, oldest first; none if there is no such folder."""
    return sorted(filter(None, map(LogFile.of, folder.glob(f"*.{kind}"))))


class GroupLog:
    """A log of groups; processes of one run may share its folder.

    A new run that starts again at an earlier step, such as a resumed one, removes the groups of the steps
    that it repeats. What cannot be written is left out with a warning, and the training continues.

    Args:
        folder: of the files, created if it does not exist.
        most_groups: how many groups are kept, of all processes.
        most_bytes: how large the files may be together; the content is not compressed again. Of a step that
            is larger, the first groups are kept.

    Raises:
        ConfigError: the folder cannot be written, or a bound is not positive.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(
        self, folder: Path | str, *, most_groups: int = MOST_GROUPS, most_bytes: int = MOST_BYTES
    ) -> None:
        for name, value in (("most_groups", most_groups), ("most_bytes", most_bytes)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1; received {value}")
        import_pyarrow()
        self.folder = Path(folder)
        require_writable_folder(self.folder, "log_groups")
        self._most_groups, self._most_bytes = most_groups, most_bytes
        self._started_ns = time.time_ns()
        self._writes = False
        self._warned = False

    @classmethod
    def of(cls, log: Union["GroupLog", Path, str, None]) -> "GroupLog | None":
        """A log as it is, or that of a folder with the bounds of the defaults."""
        return log if log is None or isinstance(log, GroupLog) else cls(log)

    def add(self, groups: Sequence[LoggedGroup]) -> None:
        """Write groups of one step, and delete the oldest files beyond the bounds."""
        kept = self._within(groups)
        if len(kept) < len(groups):
            self._warn(
                f"{len(groups) - len(kept)} of {len(groups)} groups of a step are beyond the bounds; "
                "raise most_groups and most_bytes of the GroupLog"
            )
        if not kept:
            return
        import pyarrow as pa

        try:
            self._write(kept)
            self._prune()
        except (OSError, pa.ArrowException) as error:
            self._warn(str(error))

    def _within(self, groups: Sequence[LoggedGroup]) -> Sequence[LoggedGroup]:
        """The first groups that the bounds have room for."""
        size = 0
        for n, logged in enumerate(groups[: self._most_groups]):
            size += logged.group.content_bytes
            if size > self._most_bytes:
                return groups[:n]
        return groups[: self._most_groups]

    def _write(self, groups: Sequence[LoggedGroup]) -> None:
        pa, pq = import_pyarrow()
        step = groups[0].step
        if not self._writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_repeated(step)
            self._writes = True
        shown = "none" if step is None else step
        name = f"{time.time_ns():020d}-{shown}-{len(groups)}-{uuid.uuid4().hex[:8]}"
        with write_file_whole(self.folder / f"{name}.parquet") as partial:
            pq.write_table(
                pa.Table.from_pylist([to_row(one) for one in groups], schema=schema()),
                partial,
                # A reader takes one group, or the matrices of all.
                row_group_size=1,
                # Images are compressed, and no two are equal.
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )

    def _remove_repeated(self, step: int | None) -> None:
        """Remove what an earlier run wrote of this step and later ones."""
        if step is None:
            return
        for file in log_files(self.folder):
            if file.time_ns < self._started_ns and file.step is not None and file.step >= step:
                file.path.unlink(missing_ok=True)

    def _prune(self) -> None:
        groups = size = 0
        for file in reversed(log_files(self.folder)):
            groups += file.groups
            try:
                size += file.path.stat().st_size
            except FileNotFoundError:
                # Another process has deleted it.
                continue
            if groups > self._most_groups or size > self._most_bytes:
                file.path.unlink(missing_ok=True)
        for file in log_files(self.folder, "partial"):
            if file.time_ns < time.time_ns() - ABANDONED_NS:
                file.path.unlink(missing_ok=True)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            logger.warning("groups are missing from the log %s: %s", self.folder, reason)
            self._warned = True
