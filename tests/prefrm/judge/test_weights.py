"""A model has exactly the weights of its files; what is missing, reshaped or unexpected is named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from prefrm.errors import ConfigError
from prefrm.judge import Judge, JudgeSpec
from prefrm.judge.weights import load_pretrained, load_weights

Weights = dict[str, torch.Tensor]
DOWN = "model.layers.1.mlp.down_proj.weight"
NORM = "model.layers.0.input_layernorm.weight"


@pytest.fixture
def altered(wide_checkpoint: Path, tmp_path: Path) -> Callable[[Callable[[Weights], Weights]], Path]:
    """Copies the checkpoint with other weights."""

    def alter(change: Callable[[Weights], Weights]) -> Path:
        folder = tmp_path / "altered"
        shutil.copytree(wide_checkpoint, folder)
        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})
        return folder

    return alter


def without(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: t for name, t in weights.items() if not name.startswith(prefix)}


def load(folder: Path, quantize: str | None = None) -> Judge:
    return Judge.from_base(JudgeSpec(base_model=str(folder), quantize=quantize), "cpu")


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_every_kind_of_difference_is_named_as_in_the_file(altered, quantize: str | None, capfd) -> None:
    folder = altered(
        lambda weights: without(DOWN)(weights) | {NORM: torch.ones(3), "v_head.weight": torch.ones(2)}
    )
    with pytest.raises(ConfigError) as caught:
        load(folder, quantize)
    assert str(caught.value) == (
        f"{folder} holds other weights than the model has: 1 missing ({DOWN}); "
        f"1 of another shape ({NORM} is [3] instead of [64]); 1 unexpected (v_head.weight); "
        "save or download it again, whole"
    )
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_a_missing_vision_tower_is_counted(altered) -> None:
    with pytest.raises(ConfigError, match=r"30 missing \(.*visual\.blocks\.0\.attn.* and 27 more\)"):
        load(altered(without("visual.")))


def test_an_output_layer_may_be_absent_only_where_embeddings_are_tied(altered) -> None:
    """`save_pretrained` leaves a tied one out, as the fixture's checkpoint does."""
    folder = altered(lambda weights: weights)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(ConfigError, match=r"1 missing \(lm_head\.weight\)"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_a_file_that_cannot_be_read_is_one_line(altered, content: bytes | None) -> None:
    path = altered(lambda weights: weights) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(
        ConfigError, match=f"{path} is truncated or not a readable safetensors file"
    ) as caught:
        load(path.parent)
    assert str(caught.value).startswith(f"{path} is ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("tokenizer.json", "[]"), ("tokenizer_config.json", "[]"), ("preprocessor_config.json", "[]")],
)
def test_malformed_processor_files_are_one_line(altered, name: str, text: str) -> None:
    folder = altered(lambda weights: weights)
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match="holds no usable tokenizer and image processor: ") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_sharded_checkpoint_without_its_index_is_one_line(altered) -> None:
    folder = altered(lambda weights: weights)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(ConfigError, match="weight_map must name a file for each tensor"):
        load(folder)


def test_a_module_is_filled_with_its_own_weights_only(tmp_path: Path) -> None:
    path = tmp_path / "head.safetensors"
    save_file({"weight": torch.ones(2, 3), "log_scale": torch.ones(())}, path)
    with pytest.raises(ConfigError, match=r"1 missing \(bias\); 1 unexpected \(log_scale\)"):
        load_weights(torch.nn.Linear(3, 2), path)
    save_file({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, path)
    with pytest.raises(ConfigError, match=r"1 of another shape \(weight is \[3, 2\] instead of \[2, 3\]\)"):
        load_weights(torch.nn.Linear(3, 2), path)


def test_a_language_model_that_is_incomplete_is_refused(tmp_path: Path) -> None:
    from data_recipes.shapes.painter import CHECKPOINT

    folder = shutil.copytree(CHECKPOINT, tmp_path / "painter")
    path = folder / "model.safetensors"
    weights = load_file(path)
    lost = sorted(name for name in weights if "layers.0" in name)[0]
    save_file(without(lost)(weights), path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=rf"1 missing \({lost}\)"):
        load_pretrained(AutoModelForCausalLM, folder, dtype=torch.float32)
