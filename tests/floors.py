"""Prints pip constraints that hold every requirement of prefrm to the lowest version that it allows.

`make test-lowest` installs with them. Standard library only: it runs before anything is installed.
"""

import re
import sys
import tomllib
from pathlib import Path

__all__ = ["floors"]

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
# What the tests need is no promise to users.
LEFT_OUT = ("dev",)


def floors(pyproject: str) -> list[str]:
    """`name==version` for each `name>=version` in the dependencies and extras of a pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(entry for name, entries in extras.items() if name not in LEFT_OUT for entry in entries),
    ]
    found = (re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\w.]+)", entry) for entry in wanted)
    return sorted({f"{match[1]}=={match[2]}" for match in found if match})


if __name__ == "__main__":
    # torch is installed beforehand, in a build of the caller's choice.
    chosen = [
        line for line in floors(PYPROJECT.read_text(encoding="utf-8")) if not line.startswith("torch==")
    ]
    print("\n".join([*chosen, *sys.argv[1:]]))
