"""Bundles on the Hub, through the real `huggingface_hub` and a hub on loopback."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import prefrm
from prefrm.bundle import (
    MANIFEST,
    CalibrationRecord,
    amend_bundle,
    bundle_folder,
    load_bundle,
    push_bundle,
    read_manifest,
    write_bundle,
)
from prefrm.cli import run
from prefrm.client import connect
from prefrm.data import push_dataset
from prefrm.errors import BundleError, ConfigError
from prefrm.eval import evaluate_splits, find_splits
from prefrm.judge import Judge
from prefrm.records import (
    Comparison,
    DatasetInfo,
    PreferenceGroup,
    fingerprint,
    read_groups,
    write_groups,
    write_info,
)
from prefrm.winmatrix import Group
from serving.bundles import BundleShelf, EngineOptions, name_bundle
from serving.running import background
from serving.server import JudgeServer
from tests.hub import Hub, files_in, running_hub
from tests.prefrm.judge.comparing import noise_verdicts

CALIBRATION = CalibrationRecord(
    name="temperature", parameters={"temperature": 1.7}, split="validation", pairs=200
)
NAME = "some-org/judge"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "cache") as hub:
        yield hub


@pytest.fixture
def groups(png: Callable) -> list[PreferenceGroup]:
    return [
        PreferenceGroup(
            id=f"g{n}",
            prompt=f"p{n}",
            candidates=(png(n), png(n + 10), png(n + 20)),
            comparisons=(Comparison.preferred(0, 1), Comparison.preferred(2, 0)),
        )
        for n in range(3)
    ]


def push_groups(groups: list[PreferenceGroup], folder: Path, *held_out: str) -> str:
    """Push a dataset whose splits have these groups; returns its name."""
    splits = ("train", *sorted(held_out, reverse=True))
    for split in splits:
        write_groups([replace(group, id=f"{split} {group.id}") for group in groups], folder, split)
    prints = {split: fingerprint(read_groups(folder, split)) for split in splits}
    write_info(folder, DatasetInfo(recipe="pairs", options={}, fingerprints=prints))
    return push_dataset(folder, "some-org/preferences").name


def write(folder: Path, judge: Judge) -> Path:
    write_bundle(folder, judge, calibration=CALIBRATION, data_fingerprint="f", metrics={}, card="# A judge\n")
    return folder


@pytest.fixture
def bundle(judge: Judge, tmp_path: Path) -> Path:
    return write(tmp_path / "bundle", judge)


def test_a_pushed_bundle_is_the_same_judge(hub: Hub, bundle: Path, judge: Judge, png, capsys) -> None:
    (bundle / ".DS_Store").write_bytes(b"of a system")
    assert run(["push", str(bundle), NAME]) == 0
    manifest = read_manifest(bundle)
    line = capsys.readouterr().out
    assert line.startswith(f"hf://{NAME}@") and line.endswith(f": {manifest.describe()}\n")
    loaded = prefrm.Judge.from_pretrained(NAME, device="cpu")
    assert torch.equal(noise_verdicts(loaded, png), noise_verdicts(judge, png))
    assert set(hub.pulled) == {MANIFEST, *manifest.files}
    with prefrm.open_scorer(f"hf://{NAME}", engine={"device": "cpu"}) as engine:
        assert engine.calibration == CALIBRATION.map


def test_a_push_replaces_the_earlier_bundle_whose_commit_stays(hub: Hub, bundle: Path) -> None:
    amend_bundle(bundle, calibration=None, metrics={}, card="#", plots={"a.png": b"\x89PNG\r\n\x1a\n"})
    first, before = push_bundle(bundle, NAME), read_manifest(bundle)
    after = amend_bundle(bundle, calibration=CALIBRATION, metrics={}, card="# A judge\n")
    second = push_bundle(bundle, NAME)
    assert load_bundle(f"hf://{NAME}", "cpu").manifest == after
    assert load_bundle(str(first), "cpu").manifest == before
    found = hub.find(NAME, str(second.revision))
    assert found is not None
    assert files_in(found[1]) == sorted([".gitattributes", MANIFEST, *after.files])
    assert push_bundle(bundle, f"{NAME}@v2").revision == second.revision
    assert read_manifest(bundle_folder(f"hf://{NAME}@v2")) == after


def test_only_what_the_manifest_lists_is_downloaded(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "repository")
    (tmp_path / "repository" / "pytorch_model.bin").write_bytes(b"a pickle")
    hub.commit(NAME, tmp_path / "repository")
    load_bundle(f"hf://{NAME}", "cpu")
    assert "pytorch_model.bin" not in hub.pulled


def test_a_file_that_was_altered_on_the_hub_is_refused(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "repository")
    head = tmp_path / "repository" / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"!")
    hub.commit(NAME, tmp_path / "repository")
    with pytest.raises(BundleError, match=r"head\.safetensors was altered"):
        load_bundle(f"hf://{NAME}", "cpu")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("hf://some-org/absent", "the Hub has no such model, or it is private; check the name, or log in"),
        ("hf://some-org/other@v9", "it has no branch, tag or commit v9"),
        ("hf://some-org/other", "it has no manifest.json: it is not a bundle of prefrm"),
        ("hf://some-org", "must be hf://org/name or hf://org/name@revision"),
        ("hf://some-org/../other", "must be hf://org/name or hf://org/name@revision"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line(
    hub: Hub, tmp_path: Path, name: str, reason: str, png, capsys
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"weights")
    hub.commit("some-org/other", tmp_path / "other")
    images = [tmp_path / "a.png", tmp_path / "b.png"]
    for n, image in enumerate(images):
        image.write_bytes(png(n))
    assert run(["score", name, *map(str, images), "--prompt", "p"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"prefrm: {name}") and reason in line
    assert hub.pulled == []


def test_tokens(hub: Hub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_bundle(bundle, NAME, private=True)
    for token, done, reason in (
        (
            "",
            lambda: bundle_folder(f"hf://{NAME}"),
            "the Hub has no such model, or it is private; .*HF_TOKEN$",
        ),
        (
            "hf_of_another",
            lambda: push_bundle(bundle, "some-org/second"),
            r"refused the request \(status 401\); log in",
        ),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(BundleError, match=reason):
            done()


def test_an_unreachable_hub_is_said_in_one_line(tmp_path: Path) -> None:
    with running_hub(tmp_path / "cache"), pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(BundleError, match=r"^hf://some-org/judge: the Hub cannot be reached, .*\)$"):
            bundle_folder(f"hf://{NAME}")


def test_nothing_else_is_overwritten(hub: Hub, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"weights")
    sha = hub.commit("some-org/other", tmp_path / "other")
    with pytest.raises(BundleError, match=r"holds model\.safetensors and no manifest\.json"):
        push_bundle(bundle, "some-org/other")
    with pytest.raises(BundleError, match="exists and is public"):
        push_bundle(bundle, "some-org/other", private=True)
    assert hub.find("some-org/other", "main") == (sha, tmp_path / "other")


def test_an_adapter_on_a_folder_of_this_machine_is_not_pushed(
    hub: Hub, adapted: Judge, tmp_path: Path, png
) -> None:
    write(tmp_path / "b", adapted)
    with pytest.raises(BundleError, match=r"push a merged bundle: prefrm export .* --to merged"):
        push_bundle(tmp_path / "b", NAME)
    assert not hub.knows(NAME)


def test_a_judge_in_memory_is_pushed_with_what_is_given(hub: Hub, judge: Judge, png) -> None:
    pushed = judge.push_to_hub(NAME, card="# Mine\n", private=True)
    assert hub.private == {NAME}
    assert (bundle_folder(pushed) / "README.md").read_text() == "# Mine\n"
    assert load_bundle(pushed, "cpu").manifest.calibration is None
    commit = pushed.partition("@")[2]
    loaded = Judge.from_pretrained(NAME, revision=commit, device="cpu")
    assert torch.equal(noise_verdicts(loaded, png), noise_verdicts(judge, png))


def test_a_judge_is_loaded_from_a_folder(bundle: Path, judge: Judge, png) -> None:
    loaded = Judge.from_pretrained(bundle, device="cpu")
    assert torch.equal(noise_verdicts(loaded, png), noise_verdicts(judge, png))
    with pytest.raises(ConfigError, match="is a folder, which has no revision 'main'"):
        Judge.from_pretrained(bundle, revision="main")


def test_commands_take_the_name(hub: Hub, bundle: Path, tmp_path: Path, png: Callable, capsys) -> None:
    commit = push_bundle(bundle, NAME)
    images = [png(n) for n in range(3)]
    for n, image in enumerate(images):
        (tmp_path / f"{n}.png").write_bytes(image)
    paths = [str(tmp_path / f"{n}.png") for n in range(2)]
    assert run(["score", f"hf://{NAME}", *paths, "--prompt", "p", "--device", "cpu", "--json"]) == 0
    group = PreferenceGroup(
        id="g", prompt="p", candidates=tuple(images), comparisons=(Comparison.preferred(0, 1),)
    )
    for split in ("train", "validation"):
        write_groups([replace(group, id=split)], tmp_path / "data", split)
    data, out = str(tmp_path / "data"), tmp_path / "labels"
    assert run(["label", f"hf://{NAME}@main", data, "--out", str(out), "--device", "cpu"]) == 0
    assert name_bundle(f"mine:2=hf://{NAME}", "judge").folder == bundle_folder(str(commit))
    assert run(["calibrate", f"hf://{NAME}", data]) == 2
    assert "is on the Hub and cannot be changed in place; give --out FOLDER" in capsys.readouterr().err
    mine = tmp_path / "mine"
    assert run(["calibrate", f"hf://{NAME}", data, "--out", str(mine), "--device", "cpu"]) == 0
    assert f"{mine}: " in capsys.readouterr().err
    assert load_bundle(mine, "cpu").manifest.calibration != CALIBRATION
    assert read_manifest(bundle_folder(f"hf://{NAME}")) == read_manifest(bundle)


def test_a_judge_and_a_dataset_of_the_hub_are_evaluated(
    hub: Hub, bundle: Path, groups: list[PreferenceGroup], tmp_path: Path, capsys
) -> None:
    push_bundle(bundle, NAME)
    source = f"hf://{push_groups(groups, tmp_path / 'data', 'test', 'validation')}"
    hub.pulled.clear()
    out = tmp_path / "report"
    told = ["--device", "cpu", "--json"]
    assert run(["eval", f"hf://{NAME}@main", source, "--out", str(out), *told]) == 0
    remote = json.loads(capsys.readouterr().out)
    # Of the dataset, the split that is measured and the one that thresholds are tuned on.
    assert {name for name in hub.pulled if name.endswith(("parquet", "dataset.json"))} == {
        "dataset.json",
        "test.parquet",
        "validation.parquet",
    }
    splits = find_splits(tmp_path / "data", "test")
    here = evaluate_splits(prefrm.Engine.from_bundle(bundle, device="cpu"), tmp_path / "data", splits)
    assert remote["metrics"]["comparisons"] == 6
    assert remote["metrics"]["log_loss"] == here.evaluation.metrics.log_loss
    assert run(["eval", f"hf://{NAME}", source, "--split", "dev", "--out", str(out), *told]) == 2
    assert f"{source} has no split 'dev'; it has train, validation, test" in capsys.readouterr().err


def test_a_judge_of_the_hub_is_exported(hub: Hub, adapted: Judge, tmp_path: Path) -> None:
    bundle = write(tmp_path / "bundle", adapted)
    # `push` refuses an adapter whose base model is on this machine alone.
    hub.commit(NAME, bundle)
    assert run(["export", f"hf://{NAME}", "--to", "merged", "--out", str(tmp_path / "merged")]) == 0
    assert (read_manifest(bundle).weights, read_manifest(tmp_path / "merged").weights) == ("adapter", "model")
    assert load_bundle(tmp_path / "merged", "cpu").manifest.calibration == CALIBRATION
    assert run(["export", f"hf://{NAME}@main", "--to", "triton", "--out", str(tmp_path / "triton")]) == 0
    written = next((tmp_path / "triton").rglob(MANIFEST)).parent
    assert read_manifest(written) == read_manifest(bundle)


def test_a_judge_of_the_hub_is_served(hub: Hub, bundle: Path, png: Callable, tmp_path: Path) -> None:
    push_bundle(bundle, NAME)
    shelf = BundleShelf([name_bundle(f"mine:2=hf://{NAME}@main", "judge")], None, EngineOptions(device="cpu"))
    (model,) = shelf.load_all()
    group = Group(prompt="p", candidates=(png(0), png(1), png(2)))
    with background(JudgeServer(model.scorer, model.info)) as at, connect(at.grpc_url) as remote:
        assert read_manifest(bundle).digest in remote.identity()
        (served,) = remote.score([group])
    with prefrm.open_scorer(bundle, engine={"device": "cpu"}) as local:
        (expected,) = local.score([group])
    assert (served.p == expected.p).all()


def test_groups_of_the_hub_are_labelled_and_calibrate_a_judge(
    hub: Hub, bundle: Path, groups: list[PreferenceGroup], tmp_path: Path, capsys
) -> None:
    source = f"hf://{push_groups(groups, tmp_path / 'data', 'validation')}"
    out = tmp_path / "labels"
    assert run(["label", str(bundle), source, "--out", str(out), "--device", "cpu"]) == 0
    assert f"{len(groups)} groups, " in capsys.readouterr().out
    told = ["--out", str(tmp_path / "mine"), "--device", "cpu", "--json"]
    assert run(["calibrate", str(bundle), source, *told]) == 0
    assert json.loads(capsys.readouterr().out)["split"] == "validation"


def test_the_cache_is_not_amended(hub: Hub, bundle: Path) -> None:
    folder = bundle_folder(str(push_bundle(bundle, NAME)))
    with pytest.raises(BundleError, match="in the cache of the Hub, which must not change"):
        amend_bundle(folder, calibration=None, metrics={}, card="#")
