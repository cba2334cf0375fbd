"""The command `prefrm`: thin commands over the library, one line for each mistake.

Heavy libraries are imported inside the commands, so that `prefrm --help` is quick.
"""

from prefrm.cli.program import app, main, run

__all__ = ["app", "main", "run"]
