"""The constraints of `make test-lowest` follow from pyproject.toml, and its environment holds to them."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from tests.floors import floors

PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")


def test_each_floor_is_a_constraint() -> None:
    text = """
[project]
dependencies = ["numpy>=1.26", "tritonclient[grpc,http]>=2.60"]
[project.optional-dependencies]
data = ["pyarrow>=21"]
train = ["prefrm[data]", "trl>=1.16", "uvloop>=0.21; sys_platform != 'win32'"]
dev = ["ruff>=0.11", "types-PyYAML"]
"""
    assert floors(text) == [
        "numpy==1.26", "pyarrow==21", "tritonclient==2.60", "trl==1.16", "uvloop==0.21"
    ]  # fmt: skip


def test_no_installed_version_is_below_its_floor() -> None:
    for line in floors(PYPROJECT):
        name, floor = line.split("==")
        try:
            installed = version(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is not installed")
        numbers = [tuple(int(part) for part in text.split("+")[0].split(".")) for text in (installed, floor)]
        assert numbers[0] >= numbers[1], f"{name} {installed} is below {floor}"
