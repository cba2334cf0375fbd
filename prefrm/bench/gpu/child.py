"""A part in a process of its own: calls the `measure` of a module and keeps what it yields.

measure(device, **options) -> Iterator of what was measured so far, each with all that came before
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

from prefrm.bench.gpu.results import write_measured
from prefrm.errors import MissingExtraError

__all__ = ["PACKAGE_MISSING", "main"]

PACKAGE_MISSING = 3
"""Exit status of a part for which a package is not installed; the last line of its output names it."""


def main() -> int:
    """Measure a part."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("module")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--options", type=json.loads, default={})
    parser.add_argument("--into", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        module = importlib.import_module(arguments.module)
        for measured in module.measure(arguments.device, **arguments.options):
            write_measured(arguments.into, measured)
    except (MissingExtraError, ModuleNotFoundError) as error:
        print(error, file=sys.stderr)
        return PACKAGE_MISSING
    return 0


if __name__ == "__main__":
    sys.exit(main())
