"""Where an imported judge comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["ImportRecord"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRecord:
    """What `prefrm import` read.

    Attributes:
        judge: its name in `prefrm.imports.PUBLISHED`.
        source: `hf://org/name`, or the name of a file or a folder.
        revision: the Hub's commit, or None for files of this machine.
        licence: of the weights, as far as it is known.
        sha256: of each file of weights, by its name.
    """

    judge: str
    source: str
    revision: str | None
    licence: str
    sha256: Mapping[str, str]
