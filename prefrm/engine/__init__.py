"""The engine: win matrices from a judge on this machine. Needs torch."""

from prefrm.errors import missing_extra

try:
    import torch  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "torch", "judge") from error

from prefrm.engine.cache import DEFAULT_CACHE_BYTES, FeatureCache
from prefrm.engine.dual import DualEngine
from prefrm.engine.engine import Engine
from prefrm.engine.opening import open_engine
from prefrm.engine.pass_sizes import DEFAULT_TOKENS, is_out_of_memory
from prefrm.engine.yes_no import YesNoEngine

__all__ = [
    "DEFAULT_CACHE_BYTES",
    "DEFAULT_TOKENS",
    "DualEngine",
    "Engine",
    "FeatureCache",
    "YesNoEngine",
    "is_out_of_memory",
    "open_engine",
]
