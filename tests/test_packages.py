"""What holds for every module: it imports, its public names exist, and nothing reads or writes a pickle."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import data_recipes
import prefrm
import serving

ROOT = Path(__file__).parent.parent
PACKAGES = (prefrm, serving, data_recipes)
MODULES = sorted(
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
)
SOURCES = sorted(path for package in PACKAGES for path in Path(package.__path__[0]).rglob("*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_its_public_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", [])
    assert [entry for entry in public if not hasattr(module, entry)] == []
    assert list(public) == list(dict.fromkeys(public))


# A command is reached by its name on the command line, not by importing it.
LIBRARY = [path for path in SOURCES if path.name != "commands.py"]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_definitions_are_listed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    listed = next(
        (
            set(ast.literal_eval(node.value))
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ),
        set(),
    )
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    }
    assert defined <= listed


PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# torch.load and torch.save are pickles; so are object collectives.
PICKLING_CALLS = {
    "torch.load",
    "torch.save",
    "np.load",
    "np.save",
    "all_gather_object",
    "broadcast_object_list",
    "gather_object",
    "gather_for_metrics",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_pickle_is_read_or_written(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name.split(".")[0] for alias in node.names} & PICKLERS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in PICKLERS
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in PICKLING_CALLS and name.rsplit(".", 1)[-1] not in PICKLING_CALLS


def test_shipped_files_hold_no_pickle() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [
        name for name in tracked if Path(name).suffix in {".bin", ".pt", ".pth", ".pkl", ".npy", ".npz"}
    ] == []


def test_the_command_line_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, prefrm.cli; heavy = {'torch', 'transformers', 'trl', 'datasets', 'matplotlib', 'scipy', "
        "'fastapi'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("extra", "package", "version"),
    [
        ("judge", "torch", "2.8.0"),  # has no torch.optim.Muon
        ("train", "trl", "1.5.1"),  # a missing reward counts as 0 in a group's baseline
        ("train", "trl", "1.6.0"),  # fails the tests of the reward functions
    ],
)
def test_a_version_that_would_go_wrong_is_refused(extra: str, package: str, version: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {r.name: r for r in map(Requirement, project["optional-dependencies"][extra])}[package]
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    (pinned,) = [next(iter(pin.specifier)).version for pin in pins if pin.name == package]
    assert wanted.specifier.contains(pinned)
    assert not wanted.specifier.contains(version)
