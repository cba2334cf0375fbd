"""HPSv2 and 2.1 (tgxs002/HPSv2): OpenCLIP's ViT-H-14, whose weights become those of `CLIPModel`."""

from typing import Any

from transformers import CLIPConfig

from prefrm.errors import ConfigError
from prefrm.imports.dual import similarity
from prefrm.imports.importing import Imported, ImportRequest
from prefrm.imports.keys import Rule, move, renamed, split, transpose
from prefrm.imports.parts import (
    CLIP_MEAN,
    CLIP_STD,
    TOKENIZERS,
    folder_with,
    layer_count,
    read_tokenizer,
    shape_of,
    side_from_positions,
)
from prefrm.imports.reading import Checkpoint, read_checkpoint
from prefrm.manifest import DualSpec, ImageFit, TextReading

__all__ = ["build_hpsv2"]

HEADS = 16
"""Of both towers of ViT-H-14; the image tower's are 80 wide, so its width does not tell."""
NORM_EPS = 1e-5
ACTIVATION = "gelu"
"""Not the "quick_gelu" of OpenAI's own CLIP."""
END = "<|endoftext|>"


def build_hpsv2(request: ImportRequest) -> Imported:
    """Its training logit: exp(logit_scale) * cosine. Images are letterboxed, as in `hpsv2.score`."""
    checkpoint = read_checkpoint(request.source, request.published.files)
    tokenizer = read_tokenizer(folder_with(request, *TOKENIZERS))
    if (end := tokenizer.token_to_id(END)) is None:
        raise ConfigError(f"the tokenizer of {request.base} has no {END}; take that of a CLIP")
    config = _config(checkpoint, end)
    spec = DualSpec(
        base_model=request.published.name,
        score="similarity",
        image=ImageFit(side=config.vision_config.image_size, fit="letterbox", mean=CLIP_MEAN, std=CLIP_STD),
        text=TextReading(tokens=config.text_config.max_position_embeddings, clean="html"),
    )
    weights = Checkpoint(
        name=checkpoint.name, tensors=renamed(checkpoint, _rules()), sha256=checkpoint.sha256
    )
    return similarity(config, spec, weights, tokenizer)


def _config(checkpoint: Checkpoint, end: int) -> Any:
    """The configuration by the shapes of the weights; heads, activation and eps leave no trace in these."""
    vocabulary, text_width = shape_of(checkpoint, "token_embedding.weight", 2)
    width, _, patch, _ = shape_of(checkpoint, "visual.conv1.weight", 4)
    common = {"num_attention_heads": HEADS, "hidden_act": ACTIVATION, "layer_norm_eps": NORM_EPS}
    text = {
        "hidden_size": text_width,
        "intermediate_size": shape_of(checkpoint, "transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": layer_count(checkpoint, "transformer.resblocks."),
        "max_position_embeddings": shape_of(checkpoint, "positional_embedding", 2)[0],
        "vocab_size": vocabulary,
        "eos_token_id": end,
    }
    vision = {
        "hidden_size": width,
        "intermediate_size": shape_of(checkpoint, "visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
        "num_hidden_layers": layer_count(checkpoint, "visual.transformer.resblocks."),
        "image_size": side_from_positions(shape_of(checkpoint, "visual.positional_embedding", 2)[0], patch),
        "patch_size": patch,
    }
    return CLIPConfig(
        text_config=text | common,
        vision_config=vision | common,
        projection_dim=shape_of(checkpoint, "text_projection", 2)[1],
    )


def _rules() -> list[Rule]:
    """From OpenCLIP's names to those of `CLIPModel`."""
    return [
        move("logit_scale", "logit_scale"),
        move(r"token_embedding\.weight", "text_model.embeddings.token_embedding.weight"),
        move("positional_embedding", "text_model.embeddings.position_embedding.weight"),
        move(r"ln_final\.(weight|bias)", r"text_model.final_layer_norm.\1"),
        transpose("text_projection", "text_projection.weight"),
        move(r"visual\.class_embedding", "vision_model.embeddings.class_embedding"),
        move(r"visual\.conv1\.weight", "vision_model.embeddings.patch_embedding.weight"),
        move(r"visual\.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
        move(r"visual\.ln_pre\.(weight|bias)", r"vision_model.pre_layrnorm.\1"),
        move(r"visual\.ln_post\.(weight|bias)", r"vision_model.post_layernorm.\1"),
        transpose(r"visual\.proj", "visual_projection.weight"),
        *_blocks(r"visual\.transformer", "vision_model"),
        *_blocks("transformer", "text_model"),
    ]


def _blocks(published: str, tower: str) -> list[Rule]:
    block, layer = rf"{published}\.resblocks\.(\d+)\.", rf"{tower}.encoder.layers.\1."
    return [
        move(block + r"ln_([12])\.(weight|bias)", layer + r"layer_norm\2.\3"),
        split(
            block + r"attn\.in_proj_(weight|bias)", *(layer + rf"self_attn.{name}_proj.\2" for name in "qkv")
        ),
        move(block + r"attn\.out_proj\.(weight|bias)", layer + r"self_attn.out_proj.\2"),
        move(block + r"mlp\.c_fc\.(weight|bias)", layer + r"mlp.fc1.\2"),
        move(block + r"mlp\.c_proj\.(weight|bias)", layer + r"mlp.fc2.\2"),
    ]
