"""Vision-language backbones: the facts of each model family, and how one is found and loaded.

Everything that differs from family to family is in this package: a file for each group of related families,
and one line for each family in `registry`.
"""

from prefrm.judge.backbones.family import Family
from prefrm.judge.backbones.loading import (
    SHIPPED,
    BaseModel,
    find_base,
    find_shipped,
    hash_base_files,
    load_backbone,
)
from prefrm.judge.backbones.qwen import mrope_positions
from prefrm.judge.backbones.registry import FAMILIES, family_of

__all__ = [
    "FAMILIES",
    "SHIPPED",
    "BaseModel",
    "Family",
    "family_of",
    "find_base",
    "find_shipped",
    "hash_base_files",
    "load_backbone",
    "mrope_positions",
]
