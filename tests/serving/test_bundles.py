"""Which bundles a command line and a folder name."""

from types import SimpleNamespace

import numpy as np
import pytest

from prefrm.access.tokens import TokenFile
from prefrm.errors import BundleError, ConfigError
from prefrm.protocol import BUNDLE_PARAMETER
from prefrm.scorers import ScorerFile, Source, write_scorer_file
from prefrm.winmatrix import FakeScorer, Group, Inputs
from serving.bundles import BundleShelf, EngineOptions, NamedBundle, name_bundle
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer


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


def test_a_scorer_file_is_served_with_its_members(tmp_path, png):
    """Of members that are served elsewhere: the file's matrices, under the identities of all."""
    images = (png(1), png(2))
    one = FakeScorer(lambda prompt, image: 2.0 * images.index(image))
    other = FakeScorer(lambda prompt, image: -2.0 * images.index(image))
    served = ModelInfo(name="judge", facts={BUNDLE_PARAMETER: "a" * 64})
    path = tmp_path / "ensemble=1.yaml"
    group = Group(prompt="p", candidates=images)
    with background(JudgeServer(one, served)) as here, background(JudgeServer(other, served)) as there:
        members = (Source(scorer=here.grpc_url, weight=3.0), Source(scorer=there.http_url))
        write_scorer_file(ScorerFile(scorers=members), path)
        named = name_bundle(str(path), "both")
        assert (named.name, named.folder) == ("both", path)
        shelf = BundleShelf([named], None, EngineOptions())
        assert shelf.check() == [f"both: mean of {here.grpc_url}, {there.http_url}"]
        (model,) = shelf.load("both")
        assert model.info.facts[BUNDLE_PARAMETER] == f"mean of {'a' * 64} x 3; {'a' * 64} x 1"
        (matrix,) = model.scorer.score([group])
    assert matrix.p[1, 0] == pytest.approx(1 / (1 + np.exp(-1.0)), abs=1e-6)


def test_a_member_that_is_no_bundle_is_found_before_anything_is_loaded(tmp_path):
    path = tmp_path / "ensemble.yaml"
    write_scorer_file(ScorerFile(scorers=(Source(scorer=str(tmp_path / "nothing")),)), path)
    with pytest.raises(BundleError, match="nothing is not a bundle"):
        BundleShelf([name_bundle(f"a={path}", "judge")], None, EngineOptions()).check()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ur=chat+http://localhost:1/v1", r"^chat\+http://localhost:1/v1 is a URL; write it into a .yaml"),
        ("http://localhost:1/v1?model=m", "^http://localhost:1/v1.model=m is a URL; write it into a .yaml"),
        ("ur=ensemble.yaml", "^there is no file ensemble.yaml$"),
    ],
)
def test_what_cannot_be_served_is_said(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=said):
        name_bundle(text, "judge")


def test_a_served_ensemble_has_the_tokens_of_its_members(tmp_path, png, monkeypatch):
    (tmp_path / "tokens").write_text(f"{'t' * 40}\n")
    monkeypatch.setenv("PREFRM_TOKEN_A", "t" * 40)
    guarded = JudgeServer(
        FakeScorer(lambda prompt, image: 0.0), ModelInfo(name="judge"), tokens=TokenFile(tmp_path / "tokens")
    )
    with background(guarded) as addresses:
        member = Source(scorer=addresses.http_url, token_env="PREFRM_TOKEN_A")
        write_scorer_file(ScorerFile(scorers=(member,)), tmp_path / "one.yaml")
        shelf = BundleShelf([name_bundle(str(tmp_path / "one.yaml"), "one")], None, EngineOptions())
        (model,) = shelf.load("one")
        (matrix,) = model.scorer.score([Group(prompt="p", candidates=(png(1), png(2)))])
    assert matrix.valid.all()


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BundleError, match="nothing is no folder"):
        name_bundle(f"a={tmp_path / 'nothing'}", "judge")


def test_a_repository_has_bundles_by_name_and_version(tmp_path, monkeypatch):
    manifest = SimpleNamespace(describe=lambda: "a judge", digest="d" * 64, inputs=Inputs())
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
