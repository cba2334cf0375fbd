"""Control tokens that a judge adds to its base model."""

import shutil
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText

from prefrm.judge.backbones import load_backbone
from tests.prefrm.judge.families import build_tokenizer

TOKEN = "<|Reward|>"
KNOWN = len(build_tokenizer())


def embeddings(folder: Path, *tokens: str) -> torch.Tensor:
    return load_backbone(folder, dtype=torch.float32, tokens=tokens).get_input_embeddings().weight.detach()


def test_a_new_token_has_the_mean_of_all_others(tiny_checkpoint: Path):
    before, after = embeddings(tiny_checkpoint), embeddings(tiny_checkpoint, TOKEN)
    assert len(before) == KNOWN and torch.equal(after[:KNOWN], before)
    torch.testing.assert_close(after[KNOWN:], before.mean(dim=0, keepdim=True))


def test_a_token_of_the_base_model_stays_as_it_is(tiny_checkpoint: Path):
    assert torch.equal(embeddings(tiny_checkpoint, "<|im_end|>"), embeddings(tiny_checkpoint))


def test_a_padded_vocabulary_has_a_row_already(tiny_checkpoint: Path, tmp_path: Path):
    """As of published models; what the row held was never trained."""
    shutil.copytree(tiny_checkpoint, tmp_path / "padded")
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint)
    model.resize_token_embeddings(KNOWN + 20, mean_resizing=False)
    model.save_pretrained(tmp_path / "padded")
    before, after = embeddings(tmp_path / "padded"), embeddings(tmp_path / "padded", TOKEN)
    assert len(after) == KNOWN + 20
    torch.testing.assert_close(after[KNOWN], before[:KNOWN].mean(dim=0))
    after[KNOWN] = before[KNOWN]
    assert torch.equal(after, before)
