"""Bundles: what was written is what is loaded, and anything else is refused by the name of the file."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image

from prefrm.bundle import (
    MANIFEST,
    CalibrationRecord,
    Manifest,
    amend_bundle,
    load_bundle,
    read_manifest,
    standalone,
    write_bundle,
)
from prefrm.engine import Engine
from prefrm.errors import BundleError, ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.winmatrix import Group, TrainingInputs
from tests.prefrm.hostile_bundles import forged
from tests.prefrm.judge.comparing import noise_verdicts

CALIBRATION = CalibrationRecord(
    name="temperature", parameters={"temperature": 1.7}, split="validation", pairs=200
)


def write(folder: Path, judge: Judge, **changes) -> Manifest:
    settings = {
        "calibration": CALIBRATION,
        "data_fingerprint": "f" * 64,
        "metrics": {"pair_accuracy": 0.8, "by_skill": {"counting": [0.7, 0.9]}},
        "card": "# A judge\n",
    }
    return write_bundle(folder, judge, **{**settings, **changes})


@pytest.fixture
def bundle(judge: Judge, tmp_path: Path) -> Path:
    write(tmp_path / "bundle", judge)
    return tmp_path / "bundle"


def test_an_adapter_comes_back_to_the_last_bit(adapted: Judge, tmp_path: Path, png):
    before = noise_verdicts(adapted, png)
    manifest = write(tmp_path / "b", adapted)
    loaded = load_bundle(tmp_path / "b", "cpu")
    assert manifest.weights == "adapter" and not (tmp_path / "b" / "model").exists()
    assert isinstance(loaded.judge.backbone, PeftModel)
    assert loaded.manifest == manifest == read_manifest(tmp_path / "b")
    assert torch.equal(noise_verdicts(loaded.judge, png), before)
    assert not any(p.requires_grad for p in loaded.judge.backbone.parameters())


def test_a_merged_bundle_stands_alone_and_leaves_the_judge_as_it_was(adapted: Judge, tmp_path: Path, png):
    base = Path(adapted.spec.base_model)
    before = noise_verdicts(adapted, png)
    manifest = write(tmp_path / "b", standalone(adapted))
    assert torch.equal(noise_verdicts(adapted, png), before)
    assert isinstance(adapted.backbone, PeftModel)
    assert manifest.weights == "model" and not (tmp_path / "b" / "adapter").exists()
    hidden = base.rename(base.with_name("hidden"))
    try:
        loaded = load_bundle(tmp_path / "b", "cpu").judge
    finally:
        hidden.rename(base)
    torch.testing.assert_close(noise_verdicts(loaded, png), before, atol=1e-4, rtol=0)
    write(tmp_path / "again", loaded)
    again = load_bundle(tmp_path / "again", "cpu")
    assert torch.equal(noise_verdicts(again.judge, png), noise_verdicts(loaded, png))
    assert again.manifest.base_sha256 == manifest.base_sha256


def test_a_judge_without_an_adapter_is_written_whole(judge: Judge, bundle: Path, png):
    assert torch.equal(noise_verdicts(load_bundle(bundle, "cpu").judge, png), noise_verdicts(judge, png))
    assert load_bundle(bundle, "cpu", "bfloat16").judge.model.dtype == torch.bfloat16


def test_the_manifest_says_what_the_bundle_is(judge: Judge, bundle: Path):
    manifest = read_manifest(bundle)
    assert manifest.spec == judge.spec
    assert manifest.template == judge.processor.template
    assert manifest.calibration == CALIBRATION
    assert manifest.data_fingerprint == "f" * 64
    assert manifest.metrics == {"pair_accuracy": 0.8, "by_skill": {"counting": [0.7, 0.9]}}
    assert set(manifest.versions) == {"prefrm", "torch", "transformers", "peft", "python"}
    assert (bundle / "README.md").read_text() == "# A judge\n"
    assert set(manifest.files) == {
        path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()
    } - {MANIFEST}
    assert "calibrated (temperature 1.7, from 200 pairs of validation)" in manifest.describe()


@pytest.mark.parametrize("is_file", [True, False])
def test_a_bundle_holds_the_text_of_its_template(judge: Judge, tmp_path: Path, png, is_file: bool):
    """Of a file, which may be gone, or of a configuration."""
    file = tmp_path / "rank.txt"
    text = "{context}\n{image}{image}Better: {prompt}?\nBy {criterion}\n{answer}No.{space}\n1\n2\n"
    file.write_text(text)
    named = f"file:{file}" if is_file else text
    asked = Judge.from_base(replace(judge.spec, attention="joint", template=named), "cpu")
    manifest = write(tmp_path / "b", asked)
    file.unlink()
    assert manifest.spec.template == manifest.template.id
    assert manifest.template.id == "file:rank.txt" if is_file else manifest.template.id.startswith("text:")
    loaded = load_bundle(tmp_path / "b", "cpu").judge
    assert loaded.processor.template == asked.processor.template
    assert torch.equal(noise_verdicts(loaded, png), noise_verdicts(asked, png))


@pytest.mark.parametrize("kind", [{"kind": "video", "frames": 2, "frame_rate": 0.5}, {"kind": "text"}])
def test_a_bundle_comes_back_with_its_kind(judge: Judge, tmp_path: Path, kind: dict):
    asked = Judge.from_base(JudgeSpec(base_model=judge.spec.base_model, **kind), "cpu")
    write(tmp_path / "b", asked)
    loaded = load_bundle(tmp_path / "b", "cpu").judge
    assert loaded.spec == asked.spec
    trees = [one.processor.trial_tree("a cat", [Image.new("RGB", (32, 32))] * 2) for one in (asked, loaded)]
    with torch.inference_mode():
        found, expected = (
            one(one.processor.collate([(tree, [(0, 1)])]))
            for one, tree in zip((asked, loaded), trees, strict=True)
        )
    assert torch.equal(found, expected)


def test_a_bundle_records_what_its_training_groups_had(judge: Judge, tmp_path: Path, png, caplog):
    """A group unlike them is answered, with a warning; loading a bundle, which tries it out, gives none."""
    trained = TrainingInputs(least_context=1, most_context=1, criteria=("hue", "size"), no_criterion=False)
    fits_edits = Judge.from_base(replace(judge.spec, template="fit-late-v1"), "cpu")
    manifest = write(tmp_path / "b", fits_edits, training_inputs=trained)
    assert json.loads((tmp_path / "b" / MANIFEST).read_text())["format_version"] == 7
    assert read_manifest(tmp_path / "b") == manifest and manifest.training_inputs == trained
    assert "trained with 1 context image and criterion 'hue' or 'size'" in manifest.describe()
    engine = Engine.from_bundle(tmp_path / "b", device="cpu")
    edit = Group(prompt="a cat", candidates=(png(0), png(1)), context=(png(2),), criterion="hue")
    engine.score([edit, replace(edit, criterion="size")])
    assert not caplog.records
    matrices = engine.score([replace(edit, context=(), criterion=name) for name in ("hue", "mood", "")])
    assert all(matrix.valid.all() for matrix in matrices)
    assert [record.getMessage().partition("; ")[0] for record in caplog.records] == [
        f"judge {manifest.digest[:12]}: a group has no context image, and all in its training data had 1 "
        "context image",
        f"judge {manifest.digest[:12]}: a group has another criterion, and all in its training data had "
        "criterion 'hue' or 'size'",
        f"judge {manifest.digest[:12]}: a group has no criterion, and all in its training data had criterion "
        "'hue' or 'size'",
    ]


def test_a_bundle_without_that_record_is_one_of_the_version_before(bundle: Path):
    """Such as an import: what wrote and read version 6 has the same bytes and the same digest."""
    raw = json.loads((bundle / MANIFEST).read_text())
    assert raw["format_version"] == 6 and "training_inputs" not in raw
    assert (bundle / MANIFEST).read_text() == forged(raw)


def test_an_uncalibrated_bundle_says_so(judge: Judge, tmp_path: Path):
    manifest = write(tmp_path / "b", judge, calibration=None)
    assert load_bundle(tmp_path / "b", "cpu").manifest.calibration is None
    assert " of images (" in manifest.describe() and "uncalibrated" in manifest.describe()


def test_no_file_of_a_bundle_is_a_pickle(adapted: Judge, tmp_path: Path):
    for judge in (adapted, standalone(adapted)):
        write(tmp_path / "b", judge)
        kinds = {path.suffix for path in (tmp_path / "b").rglob("*") if path.is_file()}
        assert kinds == {".safetensors", ".json", ".jinja", ".md"}


def test_one_altered_byte_in_any_file_is_refused_by_its_name(adapted: Judge, tmp_path: Path):
    manifest = write(tmp_path / "b", adapted)
    for name in [*manifest.files, MANIFEST]:
        path = tmp_path / "b" / name
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        with pytest.raises(BundleError, match=name):
            load_bundle(tmp_path / "b", "cpu")
        path.write_bytes(data)
    load_bundle(tmp_path / "b", "cpu")


@pytest.mark.parametrize("cut", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(bundle: Path, cut: float):
    for name in ("model/model.safetensors", MANIFEST):
        data = (bundle / name).read_bytes()
        (bundle / name).write_bytes(data[: int(len(data) * cut)])
        with pytest.raises(BundleError, match=name):
            load_bundle(bundle, "cpu")
        (bundle / name).write_bytes(data)


def test_a_missing_file_is_named(bundle: Path):
    (bundle / "head.safetensors").unlink()
    with pytest.raises(BundleError, match=r"head\.safetensors is listed in manifest\.json and is missing"):
        load_bundle(bundle, "cpu")


def test_a_file_that_is_not_listed_is_named(bundle: Path):
    (bundle / "model" / "adapter_config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"model/adapter_config\.json is not listed"):
        load_bundle(bundle, "cpu")


def test_a_manifest_with_a_changed_number_is_refused(bundle: Path):
    text = (bundle / MANIFEST).read_text()
    assert '"temperature": 1.7' in text
    (bundle / MANIFEST).write_text(text.replace('"temperature": 1.7', '"temperature": 9.7'))
    with pytest.raises(BundleError, match="was altered"):
        read_manifest(bundle)


@pytest.mark.parametrize(
    "path", ["../outside.json", "/etc/passwd.json", "model/../../x.json", "..\\x.json", "C:x.json"]
)
def test_a_path_outside_the_folder_is_refused(bundle: Path, path: str):
    with pytest.raises(BundleError, match="outside the folder"):
        Manifest.from_json(listing(bundle, path))


@pytest.mark.parametrize(
    "path",
    [
        "model/adapter_config.json",
        "model/pytorch_model.bin",
        "training_args.pt",
        "x.py",
        "data.pkl",
        "noending",
    ],
)
def test_a_pickle_is_refused_even_if_it_is_listed(bundle: Path, path: str):
    with pytest.raises(BundleError, match="a bundle holds only"):
        Manifest.from_json(listing(bundle, path))


def listing(bundle: Path, path: str) -> str:
    """A manifest of the right digest that lists one more path."""
    raw = json.loads((bundle / MANIFEST).read_text())
    raw["files"][path] = {"sha256": "0" * 64, "bytes": 1}
    return forged(raw)


def recorded(name: str = "temperature", **parameters: float) -> dict:
    """A calibration as the manifest holds it."""
    return {"name": name, "parameters": parameters, "split": "validation", "pairs": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 4}, "format version is 4 and this prefrm reads 6 and 7"),
        ({"format_version": None}, "format version is None"),
        ({"spec": {"base_model": "x", "head": "nope"}}, "head must be one of verdict"),
        ({"calibration": recorded(temperature=-1.0)}, "temperature must be positive"),
        ({"calibration": recorded("isotonic")}, "calibration must be one of temperature, power"),
        ({"calibration": recorded("power", temperature=1.0)}, "other parameters"),
        ({"files": []}, r"files must be a section with keys, received \[\]"),
        ({"unknown": 1}, "unknown key unknown"),
        ({"template": {}}, r"missing key template\.id"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(bundle: Path, change: dict, message: str):
    raw = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**raw, **change}))
    with pytest.raises(BundleError, match=message):
        read_manifest(bundle)


def test_weights_of_an_unknown_kind_are_refused(bundle: Path):
    raw = json.loads((bundle / MANIFEST).read_text())
    with pytest.raises(BundleError, match="weights must be one of model, adapter, received 'tea'"):
        Manifest.from_json(forged(raw | {"weights": "tea"}))


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "{}", "\x00"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="malformed"):
        read_manifest(tmp_path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path):
    with pytest.raises(BundleError, match="is not a bundle"):
        load_bundle(tmp_path / "absent", "cpu")


def test_an_adapter_refuses_a_base_model_with_other_weights(
    adapted: Judge, tiny_checkpoint: Path, tmp_path: Path
):
    write(tmp_path / "b", adapted)
    weights = tiny_checkpoint / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(BundleError, match="the adapter was trained on"):
            load_bundle(tmp_path / "b", "cpu")
    finally:
        weights.write_bytes(data)


def test_an_adapter_without_its_base_model_is_refused(adapted: Judge, tmp_path: Path):
    base = shutil.copytree(adapted.spec.base_model, tmp_path / "base")
    adapted.spec = replace(adapted.spec, base_model=str(base))
    write(tmp_path / "b", adapted)
    shutil.rmtree(base)
    with pytest.raises(BundleError, match=f"needs the base model in the folder {base}"):
        load_bundle(tmp_path / "b", "cpu")


def test_an_adapter_on_a_hub_model_finds_the_commit_it_was_trained_on(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch, png
):
    hub, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    repository = hub / "models--some-org--tiny"
    shutil.copytree(tiny_checkpoint, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    judge = Judge.from_base(JudgeSpec(base_model="some-org/tiny"), "cpu")
    judge.backbone = get_peft_model(judge.backbone, LoraConfig(r=2, target_modules=judge.family.lora_targets))
    assert write(tmp_path / "b", judge).base_revision == commit
    adapter = json.loads((tmp_path / "b" / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "some-org/tiny"
    (repository / "refs" / "main").write_text("f" * 40)
    assert torch.equal(
        noise_verdicts(load_bundle(tmp_path / "b", "cpu").judge, png), noise_verdicts(judge.eval(), png)
    )


def test_writing_replaces_a_bundle_and_nothing_else(judge: Judge, bundle: Path, tmp_path: Path):
    with torch.no_grad():
        judge.head.log_scale.fill_(0.5)
    write(bundle, judge, card="second")
    assert (bundle / "README.md").read_text() == "second"
    assert load_bundle(bundle, "cpu").judge.head.log_scale.item() == 0.5
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.md").write_text("years of work")
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write(other, judge)
    assert (other / "chapter.md").read_text() == "years of work"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "thesis"]


@pytest.mark.parametrize("file", ["notes.txt", "model/chapter.md", "plots/figure.png"])
def test_a_bundle_with_somebody_elses_file_is_not_replaced(judge: Judge, bundle: Path, file: str):
    (bundle / file).parent.mkdir(exist_ok=True)
    (bundle / file).write_text("years of work")
    with pytest.raises(BundleError, match=f"holds {file}, which is not part of the bundle"):
        write(bundle, judge)
    assert (bundle / file).read_text() == "years of work"


def test_a_folder_with_a_manifest_of_something_else_is_not_replaced(judge: Judge, tmp_path: Path):
    other = tmp_path / "extension"
    other.mkdir()
    (other / MANIFEST).write_text('{"name": "a browser extension"}')
    with pytest.raises(BundleError, match="exists and is no bundle"):
        write(other, judge)
    assert json.loads((other / MANIFEST).read_text()) == {"name": "a browser extension"}


def test_an_adapter_on_a_bundles_own_weights_is_only_written_merged(adapted: Judge, tmp_path: Path, png):
    write(tmp_path / "first", standalone(adapted))
    judge = load_bundle(tmp_path / "first", "cpu").judge
    lora = LoraConfig(r=2, target_modules=judge.family.lora_targets, init_lora_weights=False)
    judge.backbone = get_peft_model(judge.backbone, lora).eval()
    with pytest.raises(BundleError, match="standalone"):
        write(tmp_path / "second", judge)
    write(tmp_path / "second", standalone(judge))
    loaded = load_bundle(tmp_path / "second", "cpu").judge
    torch.testing.assert_close(noise_verdicts(loaded, png), noise_verdicts(judge, png), atol=1e-4, rtol=0)


def test_an_adapter_finds_a_base_model_that_was_named_from_another_folder(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch, png
):
    monkeypatch.chdir(tiny_checkpoint.parent)
    judge = Judge.from_base(JudgeSpec(base_model=tiny_checkpoint.name), "cpu")
    lora = LoraConfig(r=2, target_modules=judge.family.lora_targets, init_lora_weights=False)
    judge.backbone = get_peft_model(judge.backbone, lora).eval()
    assert write(tmp_path / "b", judge).spec.base_model == str(tiny_checkpoint)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(noise_verdicts(load_bundle("b", "cpu").judge, png), noise_verdicts(judge, png))


def test_amending_changes_what_is_said_and_not_what_is_judged(judge: Judge, tmp_path: Path, png):
    folder = tmp_path / "b"
    before = write(folder, judge, calibration=None, metrics={}, plots={"old.png": png(0)})
    after = amend_bundle(
        folder, calibration=CALIBRATION, metrics={"accuracy": 0.9}, card="# Now\n", plots={"new.png": png(1)}
    )
    loaded = load_bundle(folder, "cpu")
    assert loaded.manifest == after != before
    assert after.calibration == CALIBRATION and after.metrics == {"accuracy": 0.9}
    assert (folder / "README.md").read_text() == "# Now\n"
    assert [path.name for path in (folder / "plots").iterdir()] == ["new.png"]
    assert (folder / "plots" / "new.png").read_bytes() == png(1)
    assert torch.equal(noise_verdicts(loaded.judge, png), noise_verdicts(judge, png))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize(
    "change",
    [{"metrics": {"accuracy": float("nan")}}, {"plots": {"x.py": b""}}, {"plots": {"../../x.png": b""}}],
)
def test_an_amendment_that_is_refused_leaves_the_bundle_as_it_was(bundle: Path, tmp_path: Path, change: dict):
    before = read_manifest(bundle)
    with pytest.raises(BundleError):
        amend_bundle(bundle, **{"calibration": None, "metrics": {}, "card": "new", **change})
    assert load_bundle(bundle, "cpu").manifest == before
    assert (bundle / "README.md").read_text() == "# A judge\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_altered_bundle_is_not_amended(bundle: Path):
    (bundle / "head.safetensors").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"head\.safetensors was altered"):
        amend_bundle(bundle, calibration=None, metrics={}, card="new")


def test_a_failed_write_leaves_the_old_bundle_and_no_rubbish(judge: Judge, bundle: Path, tmp_path: Path):
    before = read_manifest(bundle)
    del judge.processor.image_processor
    with pytest.raises(AttributeError):
        write(bundle, judge)
    assert load_bundle(bundle, "cpu").manifest == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("metrics", [{"accuracy": float("nan")}, {"accuracy": object()}])
def test_metrics_that_are_no_json_are_refused(judge: Judge, tmp_path: Path, metrics: dict):
    with pytest.raises(BundleError, match="metrics cannot be written as JSON"):
        write(tmp_path / "b", judge, metrics=metrics)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "fields",
    [{"parameters": {"temperature": 0.0}}, {"parameters": {"temperature": float("nan")}}, {"pairs": 0}],
)
def test_a_calibration_that_cannot_be_is_refused(fields: dict):
    with pytest.raises(ConfigError):
        CalibrationRecord(**recorded(temperature=1.0) | fields)
