"""What holds for every module: it imports, its public names exist, and nothing reads or writes a pickle."""

import ast
import importlib
import pkgutil
import subprocess
import sys
import tomllib
from collections import Counter
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


def test_every_module_imports_and_its_public_names_exist() -> None:
    wrong = []
    for name in MODULES:
        module = importlib.import_module(name)
        public = list(getattr(module, "__all__", []))
        wrong += [f"{name}.{entry} does not exist" for entry in public if not hasattr(module, entry)]
        wrong += [f"{name}.{entry} is listed twice" for entry, count in Counter(public).items() if count > 1]
    assert wrong == []


# A command is reached by its name on the command line, not by importing it.
LIBRARY = [path for path in SOURCES if path.name != "commands.py"]


def test_public_definitions_are_listed() -> None:
    missing = {str(path.relative_to(ROOT)): unlisted(ast.parse(path.read_text())) for path in LIBRARY}
    assert {path: names for path, names in missing.items() if names} == {}


def unlisted(tree: ast.Module) -> set[str]:
    """The public classes and functions of a module that its `__all__` lacks."""
    listed = next(
        (
            set(ast.literal_eval(node.value))
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ),
        set(),
    )
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    defined = {node.name for node in tree.body if isinstance(node, definitions)}
    return {name for name in defined if not name.startswith("_")} - listed


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


def test_no_pickle_is_read_or_written_but_by_prefrm_import() -> None:
    found = {str(path.relative_to(ROOT)): pickling(ast.parse(path.read_text())) for path in SOURCES}
    only = {"prefrm/imports/reading.py": {"pickle", "torch.load"}}
    assert {path: names for path, names in found.items() if names} == only


def test_prefrm_import_builds_nothing_but_tensors_of_a_pickle() -> None:
    tree = ast.parse((ROOT / "prefrm/imports/reading.py").read_text())
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls and all("weights_only=True" in ast.unparse(call) for call in calls)
    assert "pickle.load" not in ast.unparse(tree)


def pickling(tree: ast.Module) -> set[str]:
    """The modules and functions through which a module reads or writes pickles."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names} & PICKLERS
        elif isinstance(node, ast.ImportFrom):
            names |= {(node.module or "").split(".")[0]} & PICKLERS
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = ast.unparse(node.func)
            names |= {name, name.rsplit(".", 1)[-1]} & PICKLING_CALLS
    return names


@pytest.mark.parametrize("source", ["import dill.source", "from pickle import loads", "torch.load(file)"])
def test_a_pickle_is_found(source: str) -> None:
    assert pickling(ast.parse(source))


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


def test_names_of_the_package_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, prefrm, prefrm.client; prefrm.Group, prefrm.WinMatrix, prefrm.connect; "
        "prefrm.open_scorer; "
        "heavy = {'torch', 'transformers', 'fastapi', 'huggingface_hub', 'pyarrow'} & set(sys.modules); "
        "assert not heavy, heavy; assert set(prefrm.__all__) <= set(dir(prefrm))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    from prefrm.engine import Engine

    assert prefrm.Engine is Engine
    with pytest.raises(AttributeError, match="has no attribute 'absent'"):
        _ = prefrm.absent


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
