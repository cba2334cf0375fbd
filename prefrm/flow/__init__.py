"""Flow policies: train any flow-matching pipeline of `diffusers` with any scorer.

A published method is a row of settings (`METHODS`) over pieces that all rows share. The names below are
imported when they are first used: methods and settings need no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefrm.flow.gradients import DifferentiableScorer
    from prefrm.flow.kernels import transition
    from prefrm.flow.likelihood import Terms
    from prefrm.flow.methods import METHODS, method
    from prefrm.flow.objectives import sample_losses
    from prefrm.flow.settings import Method, with_settings

__all__ = [
    "METHODS",
    "DifferentiableScorer",
    "Method",
    "Terms",
    "method",
    "sample_losses",
    "transition",
    "with_settings",
]

_MODULES = {
    "METHODS": "prefrm.flow.methods",
    "DifferentiableScorer": "prefrm.flow.gradients",
    "Method": "prefrm.flow.settings",
    "Terms": "prefrm.flow.likelihood",
    "method": "prefrm.flow.methods",
    "sample_losses": "prefrm.flow.objectives",
    "transition": "prefrm.flow.kernels",
    "with_settings": "prefrm.flow.settings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
