"""Flow policies: train any flow-matching pipeline of `diffusers` with any scorer.

A published method is a row of settings (`METHODS`) over pieces that all rows share; `import prefrm.flow`
needs no torch, which the pieces in its modules do.
"""

from prefrm.flow.methods import METHODS, method
from prefrm.flow.settings import Method, with_settings

__all__ = ["METHODS", "Method", "method", "with_settings"]
