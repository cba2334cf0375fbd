"""The files of a bundle: which there may be, which there are, and whether they are those of the manifest."""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prefrm.display import shortened
from prefrm.errors import BundleError, ConfigError, MissingExtraError, PrefrmError
from prefrm.files import hash_file
from prefrm.hub import in_hub_cache

__all__ = [
    "HOST_PATHS",
    "MANIFEST",
    "FileRecord",
    "check_folder",
    "check_hashes",
    "check_path",
    "hash_files",
    "is_added",
    "list_files",
    "naming",
]

MANIFEST = "manifest.json"
# Weights, plain text and pictures; nothing that a loader would unpickle or run. Beside a model, libraries
# look for more files by their names, such as the configuration of an adapter.
PLACES: Mapping[str, tuple[str, ...]] = {
    ".": ("README.md", "head.safetensors"),
    "model": ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    "adapter": ("adapter_config.json", "adapter_model.safetensors"),
    "processor": ("*.json", "*.txt", "*.model", "*.jinja"),
    "processor/additional_chat_templates": ("*.jinja",),
    "plots": ("*.png", "*.svg"),
}
# What a clone of a Hub repository and `huggingface_hub` add to a folder, and what macOS and Windows add
# anywhere in it ("._" begins a file of macOS on other file systems). Nothing reads or hashes these files.
HOST_PATHS = (".git", ".gitattributes", ".cache/huggingface")
SYSTEM_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini")
SYSTEM_PREFIX = "._"
# A bundle has some thirty files; what is listed before a folder is refused is bounded.
MOST_FILES = 1000
WEIGHTS = ".safetensors"
LARGE = ("model/model", "adapter/adapter_model")
# Of a file other than the weights of a model; a tokenizer of 250,000 words has 33 MiB, a head far less.
MOST_BYTES = 64 * 2**20
HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """What the manifest records of a file.

    Attributes:
        sha256: in hex.
        bytes: its size.
    """

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or not HEX.issuperset(self.sha256):
            raise ConfigError(f"sha256 must be 64 hexadecimal digits; received {self.sha256[:80]!r}")
        if self.bytes < 0:
            raise ConfigError(f"bytes must not be negative; received {self.bytes}")


@contextmanager
def naming(root: Path | str) -> Iterator[None]:
    """Raise any failure of the block as a `BundleError` of one short line that names the bundle.

    Any: what is read is untrusted, and the libraries that read it raise what they like. A missing extra is no
    fault of the bundle and stays what it is.
    """
    try:
        yield
    except MissingExtraError:
        raise
    except BaseException as error:
        # Of libraries in Rust, such as tokenizers; the class cannot be imported.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = _reason(error)
        named = reason if reason.startswith(str(root)) else f"{root}: {reason}"
        raise BundleError(shortened(named)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, PrefrmError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or ''} cannot be read: {error.strerror}".strip()
    return f"it cannot be loaded ({type(error).__name__}: {error})"


def hash_files(folder: Path) -> dict[str, FileRecord]:
    """The record of each file of a bundle but the manifest, by its path inside the folder."""
    return {
        path: FileRecord(sha256=hash_file(folder / path), bytes=size)
        for path, size in list_files(folder).items()
    }


def check_folder(root: Path, files: Mapping[str, FileRecord]) -> None:
    """Compare the names and sizes of the files in a folder with those that the manifest lists.

    Raises:
        ConfigError: it names the first file that is missing, of another size, not listed or not a regular
            file of the folder.
    """
    found = list_files(root)
    for path, record in files.items():
        if path not in found:
            raise ConfigError(f"{path} is listed in {MANIFEST} and is missing")
        if found[path] != record.bytes:
            raise ConfigError(
                f"{path} was altered: it has {found[path]} bytes instead of the {record.bytes} of {MANIFEST}"
            )
        if not path.startswith(LARGE) and record.bytes > MOST_BYTES:
            raise ConfigError(f"{path} has {record.bytes} bytes; {MOST_BYTES} are allowed")
    if extra := sorted(found.keys() - files.keys()):
        raise ConfigError(f"{extra[0]} is not listed in {MANIFEST}; remove it")


def check_hashes(root: Path, files: Mapping[str, FileRecord], *, weights: bool) -> None:
    """Raise `ConfigError` that names the first file whose sha256 is another one.

    Args:
        root: the folder, of which `check_folder` has found all files.
        files: as the manifest lists them.
        weights: whether those of weights are read, which are large, or all others.
    """
    for path, record in files.items():
        if path.endswith(WEIGHTS) == weights and hash_file(root / path) != record.sha256:
            raise ConfigError(f"{path} was altered: its sha256 is not the one in {MANIFEST}")


def check_path(path: str) -> None:
    """Raise `ConfigError` if a bundle may not hold a file of that path, relative to its folder."""
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts or "\\" in path or ":" in path or str(place) != path:
        raise ConfigError(f"{path[:200]!r} is outside the folder of the bundle")
    # Plots may lie in folders of their own.
    patterns = PLACES.get("plots" if place.parts[0] == "plots" else str(place.parent), ())
    if place.name.startswith(".") or not any(place.match(pattern) for pattern in patterns):
        allowed = ", ".join(patterns) or f"the folders {', '.join(place for place in PLACES if place != '.')}"
        raise ConfigError(f"{path[:200]!r} is refused: there, a bundle holds only {allowed}")


def is_added(path: str) -> bool:
    """Whether a host or an operating system adds a file of that path, relative to the bundle's folder."""
    place = PurePosixPath(path)
    if place.name in SYSTEM_NAMES or place.name.startswith(SYSTEM_PREFIX):
        return True
    return any(place.is_relative_to(host) for host in HOST_PATHS)


def list_files(root: Path) -> dict[str, int]:
    """The size of each file in the folder but the manifest and what hosts add, by its path inside it.

    Raises:
        ConfigError: something is neither a folder nor a regular file, or a link leads out of the folder.
    """
    homes = _homes(root)
    sizes: dict[str, int] = {}
    for seen, entry in enumerate(_entries(root)):
        path = Path(entry.path).relative_to(root).as_posix()
        if seen == MOST_FILES:
            raise ConfigError(f"it has more than {MOST_FILES} files; a bundle has fewer")
        if entry.is_symlink() and not any(Path(entry.path).resolve().is_relative_to(home) for home in homes):
            raise ConfigError(f"{path} is a link out of the folder; put the file itself there")
        found = entry.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(f"{path} is not a regular file; remove it")
        sizes[path] = found.st_size
    return sizes


def _entries(root: Path) -> Iterator[os.DirEntry[str]]:
    """What is in the folder and the folders inside it, links not followed, but the manifest and additions."""
    folders = [root]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = Path(entry.path).relative_to(root).as_posix()
                if is_added(path) or path == MANIFEST:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                else:
                    yield entry


def _homes(root: Path) -> list[Path]:
    """The folders in which a bundle's files may lie: its own and, in the Hub's cache, that of the blobs."""
    real = root.resolve()
    return [real, real.parent.parent / "blobs"] if in_hub_cache(root) else [real]
