"""A bundle in a clone of a Hub repository: what hosts and systems add is ignored, the rest is refused."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from prefrm.bundle import amend_bundle, load_bundle, merge_bundle, read_manifest, verify_files, write_bundle
from prefrm.errors import BundleError
from prefrm.judge import Judge

ADDED = [
    ".gitattributes",
    ".git/HEAD",
    ".cache/huggingface/download/model/model.safetensors.metadata",
    ".cache/huggingface/.gitignore",
    ".DS_Store",
    "model/.DS_Store",
    "._README.md",
    "model/._model.safetensors",
    "plots/Thumbs.db",
    "desktop.ini",
]
FOREIGN = [
    ".gitignore",
    ".cache/other/model.safetensors",
    ".env",
    "model/.git/HEAD",
    "model/.gitattributes",
    "git/HEAD",
    "model/pytorch_model.bin",
    "DS_Store",
]


@pytest.fixture
def bundle(judge: Judge, tmp_path: Path) -> Path:
    write(tmp_path / "bundle", judge)
    return tmp_path / "bundle"


def write(folder: Path, judge: Judge) -> None:
    write_bundle(folder, judge, calibration=None, data_fingerprint="f" * 64, metrics={}, card="# A judge\n")


def put(folder: Path, path: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text("added")


def test_what_hosts_and_systems_add_is_ignored(bundle: Path) -> None:
    for path in ADDED:
        put(bundle, path)
    assert load_bundle(bundle, "cpu").manifest == read_manifest(bundle)


@pytest.mark.parametrize("path", FOREIGN)
def test_any_other_file_is_refused(bundle: Path, path: str) -> None:
    put(bundle, path)
    with pytest.raises(BundleError, match=rf"{path} is not listed in manifest\.json; remove it"):
        verify_files(bundle, read_manifest(bundle))


def rewrite(bundle: Path, judge: Judge) -> None:
    write(bundle, judge)


def amend(bundle: Path, judge: Judge) -> None:
    amend_bundle(bundle, calibration=None, metrics={"accuracy": 0.9}, card="# Now\n")


@pytest.mark.parametrize("change", [rewrite, amend])
def test_a_clone_stays_a_clone(judge: Judge, bundle: Path, change: Callable[[Path, Judge], None]) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", "-C", str(bundle), *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout

    (bundle / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    git("init", "--quiet")
    git("add", "manifest.json", "README.md")
    git("commit", "--quiet", "--message", "A judge")
    put(bundle, ".DS_Store")
    change(bundle, judge)
    assert (bundle / ".gitattributes").read_text() == "*.safetensors filter=lfs\n"
    git("fsck", "--strict")
    git("add", "manifest.json", "README.md")
    git("commit", "--quiet", "--allow-empty", "--message", "The same judge")
    assert git("log", "--format=%s").splitlines() == ["The same judge", "A judge"]
    assert [path.name for path in bundle.parent.iterdir() if path.name.startswith(".")] == []
    verify_files(bundle, read_manifest(bundle))


def test_a_foreign_file_in_a_clone_is_not_lost(judge: Judge, bundle: Path) -> None:
    put(bundle, ".git/HEAD")
    put(bundle, "notes.txt")
    with pytest.raises(BundleError, match=r"holds notes\.txt, which is not part of the bundle"):
        write(bundle, judge)
    assert (bundle / "notes.txt").is_file() and (bundle / ".git" / "HEAD").is_file()


def test_what_systems_add_is_not_merged(adapted: Judge, tmp_path: Path) -> None:
    write(tmp_path / "adapter", adapted)
    put(tmp_path / "adapter", "plots/.DS_Store")
    merged = merge_bundle(tmp_path / "adapter", tmp_path / "merged")
    verify_files(tmp_path / "merged", merged)
    assert not [path for path in merged.files if path.endswith(".DS_Store")]
