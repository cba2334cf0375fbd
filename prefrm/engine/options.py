"""The options of an engine, as `Engine`, `DualEngine` and `open_engine` take them by name."""

from typing import Literal, TypedDict

from prefrm.media import ImageLimits

__all__ = ["DualOptions", "JudgeOptions"]


class DualOptions(TypedDict, total=False):
    """Of every engine: described in `DualEngine`."""

    cache_bytes: int
    deterministic: bool
    limits: ImageLimits


class JudgeOptions(DualOptions, total=False):
    """Of the engine of a judge on a backbone: described in `Engine`."""

    tokens: int | None
    pairs: Literal["all"] | int
    compile: bool
