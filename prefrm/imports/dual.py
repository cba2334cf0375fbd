"""Builders of judges that are published as `CLIPModel` or `SiglipModel`, or a head on one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from prefrm.errors import ConfigError
from prefrm.files import hash_file
from prefrm.imports.importing import Imported, ImportRequest
from prefrm.imports.keys import drop, move, renamed
from prefrm.imports.parts import (
    PREPROCESSOR,
    TOKENIZERS,
    affine,
    crop_fit,
    folder_with,
    read_tokenizer,
    stretch_fit,
)
from prefrm.imports.reading import Checkpoint, read_checkpoint, read_config
from prefrm.judge.dual import DualJudge, TextTokenizer, build_towers, fill_towers
from prefrm.manifest import DualSpec, TextReading
from prefrm.manifest.contents import read_object

__all__ = ["build_aesthetic", "build_clipscore", "build_pickscore", "build_siglip", "similarity"]

GREATEST_ID = 2
"""An `eos_token_id` by which `transformers` reads a text at its greatest id, as OpenAI's code does."""
# Numbers 0, 1, 2, ... that older versions of `transformers` stored beside the weights.
AS_THEY_ARE = (drop(r".*\.position_ids"), move(r"(.+)", r"\1"))
IMAGE_SIDE_OF_CLIP = (
    drop(r"text_model\..*|text_projection\.weight|logit_scale|.*\.position_ids"),
    move(r"(.+)", r"\1"),
)


def build_pickscore(request: ImportRequest) -> Imported:
    """PickScore (yuvalkirstain/PickScore): a softmax over candidates of exp(logit_scale) * cosine."""
    return _build_clip(request)


def build_clipscore(request: ImportRequest) -> Imported:
    """CLIP of `transformers`: exp(logit_scale) * cosine, its own logit; CLIPScore is 2.5 * max(cosine, 0)."""
    return _build_clip(request)


def _build_clip(request: ImportRequest) -> Imported:
    checkpoint = read_checkpoint(request.source)
    config = read_config(request.source.folder, ["clip"], checkpoint.limits)
    spec = DualSpec(
        base_model=request.published.name,
        score="similarity",
        image=crop_fit(folder_with(request, PREPROCESSOR)),
        text=TextReading(tokens=config.text_config.max_position_embeddings),
    )
    tokenizer = read_tokenizer(folder_with(request, *TOKENIZERS))
    _check_end(config.text_config.eos_token_id, tokenizer.encode("").ids[-1])
    imported = similarity(config, spec, checkpoint, tokenizer)
    path = request.source.folder / "config.json"
    return replace(imported, sha256={**imported.sha256, path.name: hash_file(path)})


def _check_end(configured: Any, end: int) -> None:
    """Raise `ConfigError` unless a text is read at its end."""
    if configured not in (GREATEST_ID, end):
        raise ConfigError(
            f"the text encoder reads at the token {configured!r} (eos_token_id), and the tokenizer ends a "
            f"text with {end}; take the configuration and the tokenizer of this judge"
        )


def build_siglip(request: ImportRequest) -> Imported:
    """SigLIP, and SigLIP 2 of one resolution: exp(logit_scale) * cosine; the bias cancels in differences.

    A text is padded to the length with which the model was trained, which attends to the padding. SigLIP's
    tokenizer of `transformers` lowers the case and removes punctuation before SentencePiece; SigLIP 2 was
    trained with lower case.
    """
    folder = request.source.folder
    checkpoint = read_checkpoint(request.source)
    config = read_config(folder, ["siglip"], checkpoint.limits)
    settings = read_object(folder / "tokenizer_config.json")
    tokenizer = read_tokenizer(folder)
    is_first = settings.get("tokenizer_class") == "SiglipTokenizer"
    if is_first:
        # Instead of SentencePiece's compiled table, which is NFKC and some control characters.
        tokenizer.normalizer = normalizers.NFKC()
    reading = TextReading(
        tokens=config.text_config.max_position_embeddings,
        pad_id=_pad_id(folder, settings, tokenizer),
        clean="canonical" if is_first else "lower",
    )
    spec = DualSpec(
        base_model=request.published.name, score="similarity", image=stretch_fit(folder), text=reading
    )
    return similarity(config, spec, checkpoint, tokenizer)


def _pad_id(folder: Path, settings: dict[str, Any], tokenizer: Any) -> int:
    token = settings.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if found is None:
        raise ConfigError(f"{folder / 'tokenizer_config.json'}: pad_token {token!r} is not in the vocabulary")
    return found


def similarity(config: Any, spec: DualSpec, checkpoint: Checkpoint, tokenizer: Any) -> Imported:
    """A model of `transformers` that compares a text with an image, from weights under its own names."""
    assert spec.text is not None
    towers = fill_towers(build_towers(config, spec.score), renamed(checkpoint, AS_THEY_ARE), checkpoint.name)
    judge = DualJudge(towers, None, TextTokenizer(tokenizer, spec.text), spec, checkpoint.digest)
    return Imported(judge=judge, sha256=checkpoint.sha256)


def build_aesthetic(request: ImportRequest) -> Imported:
    """LAION's predictor (christophschuhmann/improved-aesthetic-predictor): an MLP on CLIP ViT-L/14.

    Its layers have no nonlinearity between them. The image encoder is the base's. Images were prepared by
    OpenAI's code, with torchvision's center crop.
    """
    base = request.base
    head, towers = read_checkpoint(request.source), read_checkpoint(base)
    renamed(head, [move(r"(layers\.[02467]\.(?:weight|bias))", r"\1")])
    whole = read_config(base.folder, ["clip"], towers.limits)
    config = whole.vision_config
    config.projection_dim = whole.projection_dim
    spec = DualSpec(
        base_model=request.published.name,
        score="aesthetic",
        image=replace(crop_fit(base.folder), center="even"),
        text=None,
    )
    filled = fill_towers(
        build_towers(config, spec.score), renamed(towers, IMAGE_SIDE_OF_CLIP), f"{base.name}: {towers.name}"
    )
    sha256 = {**head.sha256, **{f"{base.name}/{name}": one for name, one in towers.sha256.items()}}
    both = replace(head, sha256=sha256)
    judge = DualJudge(filled, affine(head, "layers.", config.projection_dim), None, spec, both.digest)
    return Imported(judge=judge, sha256=sha256)
