"""ImageReward (THUDM/ImageReward): BLIP's text encoder attends to an image; an MLP reads its first state."""

from typing import Any

from transformers import BlipConfig

from prefrm.imports.importing import Imported, ImportRequest
from prefrm.imports.keys import drop, move, renamed
from prefrm.imports.parts import (
    CLIP_MEAN,
    CLIP_STD,
    TOKENIZERS,
    affine,
    folder_with,
    layer_count,
    read_tokenizer,
    shape_of,
    side_from_positions,
)
from prefrm.imports.reading import Checkpoint, read_checkpoint
from prefrm.judge.dual import DualJudge, TextTokenizer, build_towers, fill_towers
from prefrm.manifest import DualSpec, ImageFit, TextReading

__all__ = ["build_imagereward"]

WORD_PIECES = 35
VISION_HEADS, TEXT_HEADS = 16, 12
"""No shape tells them, and the default of `BlipTextConfig` is 8."""
VISION_EPS, TEXT_EPS = 1e-6, 1e-12
WORDS = "blip.text_encoder.embeddings.word_embeddings.weight"
RULES = (
    drop(r"blip\.text_encoder\.embeddings\.position_ids"),
    drop(r"blip\.(vision|text)_proj\.(weight|bias)"),
    drop(r"mlp\.layers\.[02467]\.(weight|bias)"),
    move(r"blip\.text_encoder\.(.+)", r"text_encoder.\1"),
    move(r"blip\.visual_encoder\.cls_token", "vision_model.embeddings.class_embedding"),
    move(r"blip\.visual_encoder\.pos_embed", "vision_model.embeddings.position_embedding"),
    move(
        r"blip\.visual_encoder\.patch_embed\.proj\.(weight|bias)",
        r"vision_model.embeddings.patch_embedding.\1",
    ),
    move(r"blip\.visual_encoder\.norm\.(weight|bias)", r"vision_model.post_layernorm.\1"),
    *(
        move(
            rf"blip\.visual_encoder\.blocks\.(\d+)\.{published}\.(weight|bias)",
            rf"vision_model.encoder.layers.\1.{name}.\2",
        )
        for published, name in (
            ("norm1", "layer_norm1"),
            (r"attn\.qkv", "self_attn.qkv"),
            (r"attn\.proj", "self_attn.projection"),
            ("norm2", "layer_norm2"),
            (r"mlp\.fc1", "mlp.fc1"),
            (r"mlp\.fc2", "mlp.fc2"),
        )
    ),
)


def build_imagereward(request: ImportRequest) -> Imported:
    """Its raw reward, whose differences its loss makes log-odds.

    Published scores are (raw - 0.16717) / 1.03334.
    """
    checkpoint = read_checkpoint(request.source, request.published.files)
    config = _config(checkpoint)
    spec = DualSpec(
        base_model=request.published.name,
        score="fusion",
        image=ImageFit(
            side=config.vision_config.image_size, fit="crop", center="even", mean=CLIP_MEAN, std=CLIP_STD
        ),
        text=TextReading(tokens=WORD_PIECES),
    )
    towers = fill_towers(build_towers(config, spec.score), renamed(checkpoint, RULES), checkpoint.name)
    assert spec.text is not None
    judge = DualJudge(
        towers,
        affine(checkpoint, "mlp.layers.", config.text_config.hidden_size),
        TextTokenizer(read_tokenizer(folder_with(request, *TOKENIZERS)), spec.text),
        spec,
        checkpoint.digest,
    )
    return Imported(judge=judge, sha256=checkpoint.sha256)


def _config(checkpoint: Checkpoint) -> Any:
    """The configuration by the shapes of the weights, and what leaves no trace in these."""
    vocabulary, text_width = shape_of(checkpoint, WORDS, 2)
    width, _, patch, _ = shape_of(checkpoint, "blip.visual_encoder.patch_embed.proj.weight", 4)
    text, vision = "blip.text_encoder.", "blip.visual_encoder."
    text_config = {
        "vocab_size": vocabulary,
        "hidden_size": text_width,
        "encoder_hidden_size": width,
        "intermediate_size": shape_of(checkpoint, f"{text}encoder.layer.0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": layer_count(checkpoint, f"{text}encoder.layer."),
        "num_attention_heads": TEXT_HEADS,
        "max_position_embeddings": shape_of(checkpoint, f"{text}embeddings.position_embeddings.weight", 2)[0],
        "hidden_act": "gelu",
        "layer_norm_eps": TEXT_EPS,
        # By this, the layers have cross-attention.
        "is_decoder": True,
    }
    vision_config = {
        "hidden_size": width,
        "intermediate_size": shape_of(checkpoint, f"{vision}blocks.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": layer_count(checkpoint, f"{vision}blocks."),
        "num_attention_heads": VISION_HEADS,
        "image_size": side_from_positions(shape_of(checkpoint, f"{vision}pos_embed", 3)[1], patch),
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": VISION_EPS,
    }
    return BlipConfig(text_config=text_config, vision_config=vision_config)
