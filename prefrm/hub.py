"""Repositories on the Hugging Face Hub, named `hf://org/name` or `hf://org/name@revision`.

Downloads go through `huggingface_hub` into its cache; uploads are one commit. Every failure is one line that
says what to do. Knows neither bundles nor datasets.
"""

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prefrm.display import shortened
from prefrm.errors import BundleError, DatasetError, PrefrmError, missing_extra

__all__ = ["HubRepository", "import_hub", "in_hub_cache", "is_hub"]

# `pathlib` makes one slash of two.
PREFIX = re.compile(r"hf:/{1,2}")
NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w.][\w./-]*))?")
ERRORS: Mapping[str, type[PrefrmError]] = {"model": BundleError, "dataset": DatasetError}
# Files that the Hub itself puts into a new repository, and its page may.
HUB_FILES = frozenset({".gitattributes"})
HUB_PAGE = "README.md"
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"


def is_hub(target: Path | str) -> bool:
    """Whether `target` begins with `hf://`."""
    return PREFIX.match(str(target)) is not None


def in_hub_cache(folder: Path) -> bool:
    """Whether a folder is a commit in the Hub's cache, whose files are links to shared ones."""
    return folder.resolve().parent.name == "snapshots"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubRepository:
    """A repository of the Hub at a revision.

    Attributes:
        kind: "model" or "dataset"; failures are a `BundleError` or a `DatasetError`.
        name: `org/name`.
        revision: branch, tag or commit; None is the default branch.
    """

    kind: Literal["model", "dataset"]
    name: str
    revision: str | None = None

    @classmethod
    def parse(
        cls, text: Path | str, kind: Literal["model", "dataset"], revision: str | None = None
    ) -> "HubRepository":
        """Read `[hf://]org/name[@revision]`; `revision` may stand beside it instead.

        Raises:
            BundleError, DatasetError: by `kind`: it is not such a name, or has two revisions.
        """
        found = NAME.fullmatch(PREFIX.sub("", str(text), count=1))
        if found is None:
            raise ERRORS[kind](f"{text} must be hf://org/name or hf://org/name@revision")
        if revision is not None and found[2] is not None:
            raise ERRORS[kind](
                f"{text} has a revision, and revision={revision!r} was given as well; give one of them"
            )
        return cls(kind=kind, name=found[1], revision=revision or found[2])

    def __str__(self) -> str:
        return f"hf://{self.name}" + ("" if self.revision is None else f"@{self.revision}")

    def file(self, path: str, *, absent: str) -> Path:
        """Download a file; its folder in the cache is named by the commit.

        Args:
            path: inside the repository.
            absent: clause of the error message for a file that does not exist.

        Raises:
            BundleError, DatasetError: by `kind`: it cannot be downloaded.
            MissingExtraError: `huggingface_hub` is not installed.
        """
        hub = import_hub()
        with self.reporting(absent=f"it has no {path}: {absent}"):
            return Path(hub.hf_hub_download(self.name, path, repo_type=self.kind, revision=self.revision))

    def download(self, files: Sequence[str]) -> Path:
        """Download files that the repository has; returns the folder of the commit. Errors as `file`."""
        return self.download_matching([glob.escape(path) for path in files])

    def download_matching(self, patterns: Sequence[str]) -> Path:
        """Download files by patterns such as `*.json`; the folder of the commit. Errors as `file`."""
        hub = import_hub()
        with self.reporting():
            return Path(
                hub.snapshot_download(
                    self.name, repo_type=self.kind, revision=self.revision, allow_patterns=list(patterns)
                )
            )

    def upload(
        self, files: Mapping[str, Path | bytes], *, mark: str, message: str, private: bool = False
    ) -> "HubRepository":
        """Replace the content of a branch by `files`, in one commit; creates repository and branch if absent.

        Args:
            files: path inside the repository -> a file here, or the content.
            mark: the file by which a repository is known to hold an earlier upload, which may be replaced.
            message: of the commit.
            private: whether the repository is visible to its owners only.

        Returns:
            The repository at the new commit.

        Raises:
            BundleError, DatasetError: by `kind`: the Hub refuses it, or the repository holds something else,
                or is public and `private` was asked for; nothing was changed.
            MissingExtraError: `huggingface_hub` is not installed.
        """
        hub = import_hub()
        api = hub.HfApi()
        where = {"repo_id": self.name, "repo_type": self.kind}
        with self.reporting():
            api.create_repo(**where, private=private or None, exist_ok=True)
            if private and not api.repo_info(**where).private:
                raise ERRORS[self.kind](
                    f"{self} exists and is public; make it private on its page, or use another name"
                )
            if self.revision is not None:
                api.create_branch(**where, branch=self.revision, exist_ok=True)
            there = set(api.list_repo_files(**where, revision=self.revision)) - HUB_FILES
            if there - {HUB_PAGE} and mark not in there:
                lost = min(there - {HUB_PAGE})
                raise ERRORS[self.kind](
                    f"{self} holds {lost} and no {mark}: the upload would delete it; use another name"
                )
            added = [hub.CommitOperationAdd(path, content) for path, content in files.items()]
            deleted = [hub.CommitOperationDelete(path) for path in sorted(there - files.keys())]
            commit = api.create_commit(
                **where, operations=[*added, *deleted], commit_message=message, revision=self.revision
            )
        return replace(self, revision=commit.oid)

    @contextmanager
    def reporting(self, absent: str = "a file of it is missing") -> Iterator[None]:
        """A block whose failures are each raised as one line that names the repository.

        Args:
            absent: clause of the error message for a file that does not exist.

        Raises:
            BundleError, DatasetError: by `kind`: for any error but those of prefrm.
        """
        try:
            yield
        except PrefrmError:
            raise
        # The kinds come from `huggingface_hub` and from the libraries for HTTP below it.
        except Exception as error:
            raise ERRORS[self.kind](f"{self}: {self._reason(error, absent)}") from error

    def _reason(self, error: Exception, absent: str) -> str:
        # Uploads in several threads hide what went wrong in a RuntimeError.
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
            return self._reason(error.__cause__, absent)
        errors = import_hub().errors
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, errors.GatedRepoError):
            return f"its access is restricted; request access on its page, then {LOG_IN}"
        if isinstance(error, errors.RepositoryNotFoundError):
            return f"the Hub has no such {self.kind}, or it is private; check the name, or {LOG_IN}"
        if isinstance(error, errors.RevisionNotFoundError):
            return f"it has no branch, tag or commit {self.revision or 'main'}"
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return absent
        if status in (401, 403):
            return f"the Hub refused the request (status {status}); {LOG_IN}, with a token that permits it"
        if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
            return f"the Hub cannot be reached, and it is not in the cache ({_first_line(error)})"
        return f"the request to the Hub failed ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {shortened(str(error).strip().partition(chr(10))[0], 300)}"


def import_hub() -> Any:
    """The package `huggingface_hub`. Raises `MissingExtraError` if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise missing_extra("huggingface_hub", "data") from error
    return huggingface_hub
