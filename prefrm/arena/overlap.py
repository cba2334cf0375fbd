"""The leak guard: which prompts of a set are among those that a model, or its judge, was trained on.

Prompts are equal as in datasets, whatever their letter case and spacing (`prefrm.records.prompt_key`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prefrm.arena.prompts import read_prompts
from prefrm.arena.values import ArenaPrompt
from prefrm.data import dataset_folder
from prefrm.records import SPLITS, prompt_key
from prefrm.records import read_prompts as read_dataset_prompts

__all__ = ["Overlap", "find_overlap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """The prompts of a set that are in a training set.

    Attributes:
        source: of the training set, as it was named.
        trained: number of different prompts there.
        ids: of the prompts that are in both, in the order of the set.
    """

    source: str
    trained: int
    ids: tuple[str, ...]


def find_overlap(prompts: Iterable[ArenaPrompt], source: Path | str) -> Overlap:
    """The prompts that are in a training set.

    Args:
        prompts: of a set.
        source: a dataset of preferences, all of whose splits count: its folder or hf://org/name; or any file
            of prompts that `read_prompts` takes, such as the one that a policy was trained with.

    Raises:
        ConfigError, DatasetError: the source cannot be read.
    """
    keys = set(map(prompt_key, _texts(source)))
    ids = tuple(prompt.id for prompt in prompts if prompt_key(prompt.text) in keys)
    return Overlap(source=str(source), trained=len(keys), ids=ids)


def _texts(source: Path | str) -> Iterator[str]:
    folder = dataset_folder(source)
    splits = [split for split in SPLITS if (folder / f"{split}.parquet").is_file()]
    if not splits:
        yield from (prompt.text for prompt in read_prompts(folder).prompts)
    for split in splits:
        yield from read_dataset_prompts(folder, split)
