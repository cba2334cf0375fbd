"""A hostile bundle is refused with one line in a few seconds, whatever it holds."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model

from prefrm.bundle import load_bundle, write_bundle
from prefrm.cli import run
from prefrm.errors import BundleError
from prefrm.judge import Judge, JudgeSpec
from prefrm.judge.backbones import FAMILIES
from prefrm.manifest.contents import MODEL_TYPES, check_checkpoint
from tests.prefrm.hostile_bundles import ADAPTERS, MODELS, Forge, content

# The longest that any of them may take.
SECONDS = 5.0
CASES = [("model", name) for name in MODELS] + [("adapter", name) for name in ADAPTERS]


@pytest.fixture(scope="module")
def bundles(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A valid bundle of each kind."""
    root = tmp_path_factory.mktemp("valid")
    for kind in ("model", "adapter"):
        judge = Judge.from_base(JudgeSpec(base_model=str(tiny_checkpoint)), "cpu")
        if kind == "adapter":
            lora = LoraConfig(r=2, target_modules=judge.family.lora_targets, init_lora_weights=False)
            judge.backbone = get_peft_model(judge.backbone, lora)
        write_bundle(
            root / kind, judge, calibration=None, data_fingerprint="f", metrics={}, card="# A judge\n"
        )
    return {kind: root / kind for kind in ("model", "adapter")}


@pytest.fixture
def forge(bundles: dict[str, Path], tmp_path: Path):
    """Makes a hostile copy of a bundle."""

    def make(kind: str, change: Forge) -> Path:
        folder = shutil.copytree(bundles[kind], tmp_path / "bundle", copy_function=os.link)
        change(folder)
        return folder

    return make


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[name for _, name in CASES])
def test_a_hostile_bundle_is_refused_with_one_line(
    forge, kind: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = forge(kind, (MODELS if kind == "model" else ADAPTERS)[name])
    started = time.monotonic()
    with pytest.raises(BundleError) as caught:
        load_bundle(folder, "cpu")
    assert time.monotonic() - started < SECONDS
    message = str(caught.value)
    assert message.isprintable() and str(folder) in message and len(message) <= 500
    assert capfd.readouterr() == ("", "")


# One for each place where a bundle is refused: schema, files, contents, and the libraries.
SHOWN = [
    ("model", "spec__attention='isolated'"),
    ("model", "escapes in a value"),
    ("model", "manifest is a FIFO"),
    ("model", "model/ is a link to a folder"),
    ("model", "ten million layers"),
    ("model", "vocab_size beyond the weights"),
    ("model", "a tokenizer of nothing"),
    ("adapter", "a catastrophic expression"),
]
COMMANDS = {
    "score": ["--prompt", "p", "{image}", "{image}"],
    "serve": ["--http-port=0", "--grpc-port=0", "--metrics-port=0"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("kind", "name"), SHOWN, ids=[name for _, name in SHOWN])
def test_a_command_says_one_line(
    forge, png, kind: str, name: str, command: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = forge(kind, (MODELS if kind == "model" else ADAPTERS)[name])
    (tmp_path / "image.png").write_bytes(png(1))
    options = [option.format(image=tmp_path / "image.png") for option in COMMANDS[command]]
    assert run([command, str(folder), *options]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("prefrm: ") and err.endswith("\n")
    assert err.removesuffix("\n").isprintable()


def test_no_chat_template_of_a_bundle_runs(forge) -> None:
    loop = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    load_bundle(forge("model", content("processor/chat_template.jinja", loop)), "cpu")


def test_a_snapshot_in_the_cache_of_the_hub_is_links(bundles: dict[str, Path], tmp_path: Path) -> None:
    snapshot = shutil.copytree(bundles["model"], tmp_path / "snapshots" / "0123")
    (tmp_path / "blobs").mkdir()
    for n, path in enumerate([path for path in snapshot.rglob("*") if path.is_file()]):
        path.rename(tmp_path / "blobs" / str(n))
        path.symlink_to(tmp_path / "blobs" / str(n))
    load_bundle(snapshot, "cpu")


def test_the_types_that_are_checked_are_those_of_the_families() -> None:
    assert set(MODEL_TYPES) == set(FAMILIES)


def test_what_a_published_checkpoint_names_beside_it_does_not_come_into_a_bundle(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    for name in ("tokenizer_config.json", "preprocessor_config.json"):
        settings = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps(settings | {"auto_map": {"AutoProcessor": "processing.Own"}}))
    judge = Judge.from_base(JudgeSpec(base_model=str(base)), "cpu")
    judge.processor.tokenizer.init_kwargs["vocab_file"] = "/home/somebody/vocab.json"
    write_bundle(
        tmp_path / "b", judge, calibration=None, data_fingerprint="f", metrics={}, card="# A judge\n"
    )
    load_bundle(tmp_path / "b", "cpu")


def test_a_configuration_as_published_is_taken(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """With the keys that older versions of `transformers` wrote, whatever their defaults mean."""
    base = shutil.copytree(tiny_checkpoint, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    older = {
        "_attn_implementation_autoset": True,
        "chunk_size_feed_forward": 0,
        "no_repeat_ngram_size": 0,
        "perceiver_config": {"model_type": "vllama3", "id2label": {"0": "LABEL_0"}, "pruned_heads": {}},
        "rope_theta": 500_000_000,
        "torch_dtype": "bfloat16",
    }
    (base / "config.json").write_text(json.dumps(config | older))
    check_checkpoint(base)
