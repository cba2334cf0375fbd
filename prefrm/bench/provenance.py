"""The versions of what was measured."""

import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["prefrm_version", "versions"]

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def versions(*packages: str) -> dict[str, str]:
    """By package; one that is not installed is left out."""
    found = {}
    for package in packages:
        try:
            found[package] = prefrm_version() if package == "prefrm" else version(package)
        except PackageNotFoundError:
            continue
    return found


def prefrm_version() -> str:
    """Also of a checkout that is not installed."""
    try:
        return version("prefrm")
    except PackageNotFoundError:
        project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
        return str(project["version"])
