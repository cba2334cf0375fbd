"""From a published checkpoint to a bundle: what is refused, by which message, and what is recorded."""

import importlib
import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from prefrm.bundle import load_dual_bundle, read_manifest
from prefrm.cli import run
from prefrm.errors import BundleError, ConfigError
from prefrm.eval import with_calibration
from prefrm.files import hash_file
from prefrm.imports import PUBLISHED, find_published
from prefrm.imports.importing import import_judge
from prefrm.imports.keys import drop, move, renamed, split, transpose
from prefrm.imports.reading import Checkpoint, read_checkpoint
from prefrm.imports.sources import Source
from tests.hub import running_hub
from tests.prefrm.imports.checkpoints import save_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def checkpoint(**tensors: torch.Tensor) -> Checkpoint:
    return Checkpoint(name="x.pt", tensors=tensors, sha256={"x.pt": "0" * 64})


def source(path: Path) -> Source:
    return Source(name=path.name, path=path)


def test_every_row_names_a_function():
    for judge in PUBLISHED.values():
        module, _, function = judge.builder.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_a_bundle_records_what_was_read(clip: Path, tmp_path: Path):
    manifest = import_judge("pickscore", str(clip), tmp_path / "b")
    origin = manifest.origin
    assert origin is not None and manifest == read_manifest(tmp_path / "b")
    assert origin.judge == "pickscore" and origin.source == clip.name and origin.revision is None
    assert origin.sha256 == {path.name: hash_file(path) for path in clip.iterdir()} and origin.base is None
    assert (
        "dual encoder (similarity) pickscore, at the temperature of its training loss" in manifest.describe()
    )
    assert load_dual_bundle(tmp_path / "b", "cpu").manifest == manifest


def test_the_card_names_licence_and_source_and_is_kept_up_to_date(clip: Path, tmp_path: Path):
    import_judge("clipscore", str(clip), tmp_path / "b")
    card = (tmp_path / "b" / "README.md").read_text()
    _, header, text = card.split("---\n")
    assert yaml.safe_load(header)["license"] == "mit" and f"- source: {clip.name}\n" in text
    assert "mean nothing before a calibration" in text and "temperature 2" in with_calibration(
        card, "temperature 2"
    )


def test_the_command_imports_and_names_the_licence(clip: Path, tmp_path: Path, capsys):
    assert run(["import", "pickscore", str(clip), "--out", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'b'}: dual encoder") and "MIT" in printed.err
    assert run(["import", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PUBLISHED)


def test_a_repository_of_the_hub_is_recorded_by_its_commit(clip: Path, tmp_path: Path):
    with running_hub(tmp_path / "cache") as hub:
        commit = hub.commit("org/clip", clip)
        origin = import_judge("clipscore", "hf://org/clip", tmp_path / "b").origin
        assert origin is not None and not origin.is_log_odds
        assert (origin.source, origin.revision) == ("hf://org/clip", commit)
        origin = import_judge("pickscore", str(clip), tmp_path / "d", base="hf://org/clip").origin
        assert origin is not None and (origin.base, origin.base_revision) == ("hf://org/clip", commit)
        with pytest.raises(BundleError, match="the Hub has no such model"):
            import_judge("clipscore", "hf://org/nothing", tmp_path / "c")


def test_other_files_are_not_replaced_and_nothing_is_read_before(tmp_path: Path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("words")
    with pytest.raises(BundleError, match="choose another folder"):
        import_judge("pickscore", "nowhere", tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope", "x", "--out", "b"], "no published judge 'nope'; there are: pickscore"),
        (["pickscore"], "--out FOLDER"),
        (["pickscore", "nowhere", "--out", "b"], "nowhere is not a file"),
        (["pickscore", ".", "--out", "b", "--template", "t.txt"], "pickscore takes no template"),
        (["hpsv3", "hf://org/large", "--out", "b"], "give --template FILE"),
        (["hpsv3", "hf://org/large", "--out", "b", "--template", "t.txt"], "t.txt cannot be read"),
        (["pickscore", ".", "--out", "b", "--uncertainty", "ignore"], "pickscore has no such choice"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["import", *arguments]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_current_folder_has_a_name(clip: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(clip)
    origin = import_judge("pickscore", ".", tmp_path / "b").origin
    assert origin is not None and origin.source == clip.name


def test_a_named_file_has_its_tokenizer_beside_it(clip: Path, tmp_path: Path):
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((clip / name).read_bytes())
    source = str(tmp_path / "model.safetensors")
    with pytest.raises(
        ConfigError, match=r"has no tokenizer.json .*; name a folder that has the whole model"
    ):
        import_judge("clipscore", source, tmp_path / "b")
    (tmp_path / "tokenizer.json").write_bytes((clip / "tokenizer.json").read_bytes())
    assert import_judge("clipscore", source, tmp_path / "b").spec.base_model == "clipscore"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_implementation": "somebody/kernels"}, "attn_implementation must be one of"),
        ({"auto_map": {"AutoConfig": "x.Y"}}, "auto_map is refused"),
        ({"text_config": {"num_hidden_layers": 400}}, "num_hidden_layers must be at most"),
        ({"text_config": 3}, "is not usable"),
        ({"model_type": "siglip"}, "supported model types: clip"),
    ],
)
def test_a_configuration_is_checked_before_it_is_obeyed(
    clip: Path, tmp_path: Path, change: dict, message: str
):
    for path in clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ConfigError, match=f"config.json.* {message}"):
        import_judge("pickscore", str(tmp_path), tmp_path / "b")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_broken_json_names_its_file(clip: Path, tmp_path: Path, name: str):
    for path in clip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text("{")
    with pytest.raises(ConfigError, match=f"{name}: it is not valid JSON"):
        import_judge("pickscore", str(tmp_path), tmp_path / "b")


def test_a_key_too_few_or_too_many_is_refused_by_its_name(clip: Path, tmp_path: Path):
    weights = load_file(clip / "model.safetensors")
    gone, extra = "visual_projection.weight", "head.weight"
    for changed, name in (
        ({key: tensor for key, tensor in weights.items() if key != gone}, f"1 missing .{gone}"),
        (weights | {extra: torch.zeros(2)}, f"1 unexpected .{extra}"),
        (weights | {gone: torch.zeros(3, 32)}, gone + r" is \[3, 32\] instead of \[8, 32\]"),
    ):
        save_file(changed, tmp_path / "model.safetensors")
        for file in clip.glob("*.json"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
        with pytest.raises(ConfigError, match=name):
            import_judge("pickscore", str(tmp_path), tmp_path / "b")


def test_rules_rename_split_transpose_and_drop():
    found = renamed(
        checkpoint(
            a1=torch.arange(6.0).reshape(6, 1), b=torch.ones(2, 3), c=torch.zeros(1), d=torch.zeros(1)
        ),
        [split(r"a(\d)", r"\1.q", r"\1.k"), transpose("b", "w"), move("c", "e"), drop("d")],
    )
    assert {name: list(tensor.shape) for name, tensor in found.items()} == {
        "1.q": [3, 1],
        "1.k": [3, 1],
        "w": [3, 2],
        "e": [1],
    }
    assert found["1.k"].flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], "x.pt has 2 unknown weights .a, b"),
        ([split(r"[ab]", "p", "q")], r"a is \[5\], which has not 2 equal parts"),
        ([move(r"[ab]", "p")], "b and another key both are p"),
    ],
)
def test_a_key_without_a_place_is_refused(rules: list, message: str):
    with pytest.raises(ConfigError, match=message):
        renamed(checkpoint(a=torch.zeros(5), b=torch.zeros(5)), rules)


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_of_tensors_is_read_with_its_wrapper(archive: bool, tmp_path: Path):
    path = tmp_path / "x.pt"
    torch.save({"epoch": 3, "state_dict": {"a": torch.ones(2)}}, path, _use_new_zipfile_serialization=archive)
    found = read_checkpoint(source(path))
    assert torch.equal(found.tensors["a"], torch.ones(2)) and found.sha256 == {"x.pt": hash_file(path)}


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path):
    witness = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return Path.touch, (witness,)

    torch.save({"a": Attack()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Attack()}))
    for name in ("zip.pt", "plain.pt"):
        with pytest.raises(ConfigError, match=rf"{name} is (refused|truncated)"):
            read_checkpoint(source(tmp_path / name))
    assert not witness.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), "b": 3}, "other things than tensors by name, such as 'b'"),
        ({"a": torch.ones(1), 7: torch.ones(1)}, "other things than tensors by name, such as '7'"),
        ([1], "holds a list"),
    ],
)
def test_a_pickle_of_other_things_is_refused(content: object, message: str, tmp_path: Path):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(ConfigError, match=message):
        read_checkpoint(source(tmp_path / "x.bin"))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02]a."])
def test_a_damaged_pickle_is_refused(content: bytes, tmp_path: Path):
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"x.pt is (refused|truncated)"):
        read_checkpoint(source(tmp_path / "x.pt"))


def test_shards_are_read_by_their_index(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{")
    with pytest.raises(ConfigError, match=r"index.json: it is not valid JSON"):
        read_checkpoint(source(tmp_path))
    index.write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    with pytest.raises(ConfigError, match=r"'two.safetensors', which is not a file beside it"):
        read_checkpoint(source(tmp_path))
    save_file({"b": torch.ones(2)}, tmp_path / "two.safetensors")
    found = read_checkpoint(source(tmp_path))
    assert set(found.tensors) == {"a", "b"} == {*found.tensors} and len(found.sha256) == 2
    assert len(found.digest) == 64 != replace(found, sha256={}).digest


def test_an_unknown_judge_is_named():
    with pytest.raises(ConfigError, match="no published judge 'x'"):
        find_published("x")
