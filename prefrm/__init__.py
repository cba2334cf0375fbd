"""Vision-language preference judges: training, a batched engine, a server, rewards.

The names below are imported when they are first used: `import prefrm` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefrm.client import connect
    from prefrm.engine import Engine
    from prefrm.judge import Judge
    from prefrm.scorers import open_scorer
    from prefrm.winmatrix import Group, WinMatrix

__all__ = ["Engine", "Group", "Judge", "WinMatrix", "connect", "open_scorer"]

_MODULES = {
    "Engine": "prefrm.engine",
    "Group": "prefrm.winmatrix",
    "Judge": "prefrm.judge",
    "WinMatrix": "prefrm.winmatrix",
    "connect": "prefrm.client",
    "open_scorer": "prefrm.scorers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
