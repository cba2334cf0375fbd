"""Control tokens that a judge adds to its base model, to be read there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AddedToken, AutoTokenizer

__all__ = ["add_rows", "add_tokens"]


def add_tokens(tokenizer: Any, tokens: Sequence[str]) -> list[int]:
    """Add control tokens to a tokenizer; returns the ids of those that it did not know."""
    new = [token for token in tokens if token not in tokenizer.get_vocab()]
    # `normalized` would let a normalizer rewrite the spelling before it is found.
    added = [AddedToken(token, special=True, normalized=False) for token in new]
    tokenizer.add_tokens(added, special_tokens=True)
    ids: list[int] = tokenizer.convert_tokens_to_ids(new)
    return ids


def add_rows(backbone: Any, folder: Path, tokens: Sequence[str]) -> None:
    """Give the tokens that the tokenizer in `folder` lacks rows in the embeddings: the mean of all others.

    Every machine finds the same rows, so an adapter needs none of its own.

    Args:
        backbone: of the base model in `folder`, on the CPU.
        folder: of the base model.
        tokens: as of `add_tokens`.
    """
    if not tokens:
        return
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    known = len(tokenizer)
    if not (ids := add_tokens(tokenizer, tokens)):
        return
    embeddings = backbone.get_input_embeddings
    if max(ids) >= len(embeddings().weight):
        backbone.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    for layer in (embeddings(), backbone.get_output_embeddings()):
        with torch.no_grad():
            layer.weight[ids] = layer.weight[:known].float().mean(dim=0).to(layer.weight.dtype)
