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
        sha256: of each file that was read, weights and settings, by its name; of the base after its name.
        is_log_odds: whether its training loss makes differences of its utilities log-odds, at temperature 1.
        base: as `source`, of what the source lacks; None if it lacked nothing.
        base_revision: as `revision`, of the base.
    """

    judge: str
    source: str
    revision: str | None
    licence: str
    sha256: Mapping[str, str]
    is_log_odds: bool = False
    base: str | None = None
    base_revision: str | None = None
