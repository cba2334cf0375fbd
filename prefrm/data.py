"""Preference groups in Python: from a dataset folder or from the Hub, and a folder pushed to the Hub.

A pushed dataset is the folder that `prefrm data build` wrote: one parquet file for each split, which
`datasets.load_dataset` reads as well, and `dataset.json`. Loaded again, it has the same fingerprint.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from prefrm.display import markdown_table
from prefrm.errors import DatasetError
from prefrm.hub import HubRepository, is_hub
from prefrm.records import (
    DatasetInfo,
    PreferenceGroup,
    count_groups,
    fingerprint,
    read_groups,
    read_info,
    split_file,
    write_info,
)

__all__ = ["LoadedGroups", "dataset_folder", "load_groups", "push_dataset"]

INFO = "dataset.json"
CARD = "README.md"
# Licences that the Hub knows by this name, in small letters; it refuses a card with an unknown one.
HUB_LICENCES = ("Apache-2.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "CC0-1.0", "MIT")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedGroups:
    """The preference groups of a split, read from the disk each time they are iterated over.

    Attributes:
        folder: of the dataset; in the Hub's cache, it is named by the commit.
        split: its name.
    """

    folder: Path
    split: str

    def __iter__(self) -> Iterator[PreferenceGroup]:
        return read_groups(self.folder, self.split)

    def __len__(self) -> int:
        return count_groups(self.folder, self.split)

    def fingerprint(self) -> str:
        """The sha256 over the content of all groups; reads them all."""
        return fingerprint(self)


def dataset_folder(source: Path | str, splits: Sequence[str] | None = None) -> Path:
    """The folder of a dataset: `source` itself, or that of `hf://org/name[@revision]` in the Hub's cache.

    All files are of one commit, which names the folder.

    Args:
        source: a folder that `prefrm data build` wrote, or the name of one that `push_dataset` pushed.
        splits: those that are downloaded, of which the dataset may lack all but the first; all by default.

    Raises:
        DatasetError: the Hub has no such dataset, or not the first of the splits, or cannot be reached. A
            folder is not looked at.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    if not is_hub(source):
        return Path(source)
    repository = HubRepository.parse(source, "dataset")
    advice = f"build one from it: prefrm data build table --set source={repository}"
    folder = repository.file(INFO, absent=f"it is not a dataset of prefrm; {advice}").parent
    found = list(read_info(folder).fingerprints)
    wanted = found if splits is None else [split for split in splits if split in found]
    if splits and splits[0] not in found:
        raise DatasetError(f"{repository} has no split {splits[0]!r}; it has {', '.join(found)}")
    # Of the same commit, should the branch move.
    commit = replace(repository, revision=folder.name)
    return commit.download([INFO, *(f"{split}.parquet" for split in wanted)])


def load_groups(source: Path | str, split: str = "train", *, revision: str | None = None) -> LoadedGroups:
    """The groups of a split of a dataset folder or of `hf://org/name[@revision]`.

    Of a dataset on the Hub, only that split is downloaded, into the Hub's cache.

    Args:
        source: a folder that `prefrm data build` wrote, or the name of one that `push_dataset` pushed.
        split: train, validation or test.
        revision: branch, tag or commit; for the Hub alone, where `source` names none.

    Raises:
        DatasetError: there is no such folder, dataset or split, or the Hub cannot be reached.
        MissingExtraError: pyarrow or `huggingface_hub` is not installed.
    """
    if not is_hub(source):
        if revision is not None:
            raise DatasetError(f"{source} is a folder, which has no revision {revision!r}; leave it out")
        split_file(source, split)
        return LoadedGroups(folder=Path(source), split=split)
    repository = HubRepository.parse(source, "dataset", revision)
    return LoadedGroups(folder=dataset_folder(str(repository), [split]), split=split)


def push_dataset(folder: Path | str, name: str, *, private: bool = False) -> HubRepository:
    """Upload a dataset folder, after its splits are checked; a dataset that the branch held is replaced.

    Absolute paths in the options are shortened to their last part: they name folders of this machine.

    Args:
        name: `org/name`, or `org/name@branch`.
        private: whether only its owners may see it.

    Returns:
        The repository at the new commit.

    Raises:
        DatasetError: it is not a dataset folder, a split is not what `dataset.json` says, the Hub refuses the
            upload, or the repository holds something else.
        MissingExtraError: pyarrow or `huggingface_hub` is not installed.
    """
    root, repository = Path(folder), HubRepository.parse(name, "dataset")
    info = read_info(root)
    for split, recorded in info.fingerprints.items():
        if fingerprint(read_groups(root, split)) != recorded:
            raise DatasetError(
                f"{split_file(root, split)} does not match its fingerprint in {root / INFO}; "
                "build the dataset again"
            )
    files: dict[str, Path | bytes] = {
        INFO: _info_bytes(_without_folders(info)),
        CARD: _card(info, replace(repository, revision=None)).encode(),
    }
    files |= {f"{split}.parquet": split_file(root, split) for split in info.fingerprints}
    return repository.upload(files, mark=INFO, message="Upload preference groups", private=private)


def _without_folders(info: DatasetInfo) -> DatasetInfo:
    options: Mapping[str, Any] = {name: _shown(value) for name, value in info.options.items()}
    apart_from: dict[str, str] = {}
    for path, mark in info.apart_from.items():
        apart_from[_unused(str(_shown(path)), apart_from)] = mark
    return replace(info, options=options, apart_from=apart_from)


def _unused(name: str, used: Mapping[str, str]) -> str:
    """The name, or with the first number from 2 on that makes it another than those used: "hpdv2 (2)"."""
    numbered = (name if n == 1 else f"{name} ({n})" for n in count(1))
    return next(each for each in numbered if each not in used)


def _shown(value: object) -> object:
    is_path = isinstance(value, str | Path) and Path(value).is_absolute()
    return Path(str(value)).name if is_path else value


def _info_bytes(info: DatasetInfo) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_info(folder, info)
        return (Path(folder) / INFO).read_bytes()


def _card(info: DatasetInfo, repository: HubRepository) -> str:
    """The README.md of the dataset, with the metadata by which `datasets` finds the splits."""
    licence = [f"license: {info.licence.lower()}"] if info.licence in HUB_LICENCES else []
    paths = [
        line for split in info.fingerprints for line in (f"  - split: {split}", f"    path: {split}.parquet")
    ]
    counts = markdown_table(
        ["split", "groups", "images", "strict comparisons", "ties"],
        [[split, *map(str, (n.groups, n.candidates, n.strict, n.ties))] for split, n in info.splits.items()],
    )
    lines = [
        *(
            "---",
            *licence,
            "tags:",
            "- prefrm",
            "configs:",
            "- config_name: default",
            "  data_files:",
            *paths,
            "---",
        ),
        *("", f"# Preference groups of `{info.recipe}`", ""),
        "Prompts, images that answer them, and comparisons of these images. Made with `prefrm data build`.",
        *("", f"- licence: {info.licence or 'not stated'}", f"- source: {info.source or 'not stated'}", ""),
        *(counts, "", "```python", "from prefrm.data import load_groups", ""),
        *(f'groups = load_groups("{repository}", "{next(iter(info.fingerprints))}")', "```", ""),
    ]
    return "\n".join(lines)
