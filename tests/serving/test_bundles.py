"""Which bundles a command line and a folder name."""

from types import SimpleNamespace

import pytest

from prefrm.errors import BundleError, ConfigError
from serving.bundles import BundleShelf, EngineOptions, NamedBundle, name_bundle


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [("{}", "judge", "1"), ("a={}", "a", "1"), ("a:3={}", "a", "3"), ("a-b.c:12={}", "a-b.c", "12")],
)
def test_a_bundle_has_a_name_and_a_version(tmp_path, text, name, version):
    assert name_bundle(text.format(tmp_path), "judge") == NamedBundle(
        name=name, version=version, folder=tmp_path
    )


def test_a_folder_may_have_an_equals_sign(tmp_path):
    folder = tmp_path / "lr=1"
    folder.mkdir()
    assert name_bundle(str(folder), "judge").folder == folder
    assert name_bundle(f"a={folder}", "judge").name == "a"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BundleError, match="nothing is no folder"):
        name_bundle(f"a={tmp_path / 'nothing'}", "judge")


def test_a_repository_has_bundles_by_name_and_version(tmp_path, monkeypatch):
    manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64)
    monkeypatch.setattr("serving.bundles.inspect_bundle", lambda folder: manifest)
    for folder in ("a", "b/1", "b/20", "b/old", "c/1/deep"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "manifest.json").write_text("{}")
    shelf = BundleShelf([], tmp_path, EngineOptions())
    assert [(one.name, one.version) for one in shelf.bundles()] == [("a", "1"), ("b", "1"), ("b", "20")]
    assert shelf.check() == ["a: a judge", "b: a judge", "b: a judge"]
    with pytest.raises(BundleError, match="there are a, b"):
        shelf.load("../a")


def test_a_repository_is_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        BundleShelf([], tmp_path / "nowhere", EngineOptions())
