"""A hostile bundle of a dual encoder is refused with one line in a few seconds."""

import os
import shutil
import time
from pathlib import Path

import pytest

from prefrm.bundle import load_bundle, load_dual_bundle
from prefrm.errors import BundleError
from tests.prefrm.hostile_bundles import Forge, content, manifest, setting
from tests.prefrm.judge.dual import import_tiny

CONFIG = "model/config.json"
SECONDS = 5.0
CASES: dict[str, tuple[str, Forge]] = {
    "ten million layers": ("pickscore", setting(CONFIG, "vision_config.num_hidden_layers", 10**7)),
    "more words than weights": ("pickscore", setting(CONFIG, "text_config.vocab_size", 10**6)),
    "more positions than weights": (
        "pickscore",
        setting(CONFIG, "text_config.max_position_embeddings", 2**26),
    ),
    "a wider projection": ("pickscore", setting(CONFIG, "projection_dim", 2**26)),
    "an image of a million pixels a side": ("pickscore", setting(CONFIG, "vision_config.image_size", 2**20)),
    "patches of one pixel": ("pickscore", setting(CONFIG, "vision_config.patch_size", 1)),
    "another number of heads": ("pickscore", setting(CONFIG, "vision_config.num_attention_heads", 5)),
    "code": ("pickscore", setting(CONFIG, "auto_map", {"AutoModel": "x.Y"})),
    "kernels": ("pickscore", setting(CONFIG, "attn_implementation", "somebody/kernels")),
    "a model on a backbone": ("pickscore", setting(CONFIG, "model_type", "qwen2_vl")),
    "an unknown activation": ("pickscore", setting(CONFIG, "text_config.hidden_act", "boom")),
    "a score that the model has not": ("pickscore", manifest(spec__score="fusion")),
    "no text": ("pickscore", manifest(spec__text=None)),
    "another side": ("pickscore", manifest(spec__image__side=56)),
    "a filter that there is not": ("pickscore", manifest(spec__image__resample=99)),
    "a standard deviation of 0": ("pickscore", manifest(spec__image__std=[0.0, 1.0, 1.0])),
    "two channels": ("pickscore", manifest(spec__image__mean=[0.0, 1.0])),
    "more tokens than positions": ("pickscore", manifest(spec__text__tokens=78)),
    "no room for tokens": ("pickscore", manifest(spec__text__tokens=1)),
    "padding beyond the words": ("pickscore", manifest(spec__text__pad_id=10**6)),
    "an adapter": ("pickscore", manifest(weights="adapter")),
    "a token beyond the words": ("pickscore", setting("processor/tokenizer.json", "model.vocab.z", 10**5)),
    "a tokenizer of nothing": ("pickscore", content("processor/tokenizer.json", "{}")),
    "a tokenizer that is not JSON": ("pickscore", content("processor/tokenizer.json", "[")),
    "weights of nothing": ("pickscore", content("model/model.safetensors", b"")),
    "a head of nothing": ("imagereward", content("head.safetensors", b"")),
    "a pickle": ("pickscore", content("model/pytorch_model.bin", b"x")),
    "heads that do not fit": ("imagereward", setting(CONFIG, "text_config.num_attention_heads", 5)),
}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    names = {name for name, _ in CASES.values()}
    return {name: import_tiny(name, tmp_path_factory.mktemp(name)) for name in names}


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_bundle_is_refused_with_one_line(
    case: str, bundles: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, change = CASES[case]
    folder = shutil.copytree(bundles[name], tmp_path / "bundle", copy_function=os.link)
    load_dual_bundle(folder, "cpu")
    change(folder)
    started = time.monotonic()
    with pytest.raises(BundleError) as caught:
        load_dual_bundle(folder, "cpu")
    assert time.monotonic() - started < SECONDS
    message = str(caught.value)
    assert message.isprintable() and str(folder) in message and len(message) <= 500
    assert capfd.readouterr() == ("", "")


def test_each_loader_names_the_other_kind(bundles: dict[str, Path]) -> None:
    with pytest.raises(BundleError, match="holds a dual encoder"):
        load_bundle(bundles["pickscore"], "cpu")
