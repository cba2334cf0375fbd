"""Where a published checkpoint lies: a file, a folder, or a repository of the Hub."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefrm.errors import ConfigError
from prefrm.hub import HubRepository, is_hub
from prefrm.media import URL

__all__ = ["Source", "open_source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files of a published checkpoint on this machine.

    Attributes:
        name: `hf://org/name`, or the name of the file or folder, without the folders above it.
        path: of the file or the folder.
        revision: the Hub's commit, or None.
    """

    name: str
    path: Path
    revision: str | None = None

    @property
    def folder(self) -> Path:
        """The folder itself, or that of the file."""
        return self.path if self.path.is_dir() else self.path.parent

    def find(self, names: Sequence[str]) -> Path:
        """The file that was named, or the first of `names` in the folder. Raises `ConfigError`."""
        if self.path.is_file():
            return self.path
        for name in names:
            if (self.path / name).is_file():
                return self.path / name
        raise ConfigError(f"{self.path} has no {' and no '.join(names)}; name the file itself")


def open_source(text: str, patterns: Sequence[str]) -> Source:
    """What `text` names: `hf://org/name[@revision]`, which is downloaded, or a file or folder.

    Args:
        text: as a person gave it.
        patterns: of the files that are downloaded from the Hub, such as `*.json`.

    Raises:
        BundleError: the Hub has no such repository or cannot be reached.
        ConfigError: there is no such file or folder.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    if is_hub(text):
        repository = HubRepository.parse(text, "model")
        folder = repository.download_matching(patterns)
        return Source(name=f"hf://{repository.name}", path=folder, revision=folder.name)
    path = Path(text)
    if URL.match(text):
        raise ConfigError(
            f"{text} is not on the Hub, from which alone prefrm downloads; download it and name the file"
        )
    if not path.exists():
        raise ConfigError(f"{text} is not a file, not a folder and not hf://org/name; download it first")
    return Source(name=Path(os.path.abspath(path)).name, path=path)
