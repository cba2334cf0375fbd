"""Published judges in plain torch, written from their descriptions, on their own names of weights.

Shapes: B images, L positions, D hidden.
"""

import math
from collections.abc import Mapping

import torch
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

Weights = Mapping[str, torch.Tensor]
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def affine(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def norm(w: Weights, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, causal: bool = False
) -> torch.Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)


def openclip_tower(
    w: Weights, prefix: str, x: torch.Tensor, *, causal: bool, heads: int = 16
) -> torch.Tensor:
    """OpenCLIP's residual blocks: pre-norm, one matrix for queries, keys and values, exact GELU."""
    for n in range(2):
        block = f"{prefix}transformer.resblocks.{n}."
        y = norm(w, f"{block}ln_1", x, 1e-5)
        q, k, v = linear(y, w[f"{block}attn.in_proj_weight"], w[f"{block}attn.in_proj_bias"]).chunk(3, -1)
        x = x + affine(w, f"{block}attn.out_proj", attend(q, k, v, heads, causal))
        y = gelu(affine(w, f"{block}mlp.c_fc", norm(w, f"{block}ln_2", x, 1e-5)))
        x = x + affine(w, f"{block}mlp.c_proj", y)
    return x


def openclip_image(w: Weights, pixels: torch.Tensor) -> torch.Tensor:
    """Embeddings [B, D] of pixels that are normalized."""
    kernel = w["visual.conv1.weight"]
    patches = torch.conv2d(pixels, kernel, stride=kernel.shape[-1]).flatten(2).mT
    first = w["visual.class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches], dim=1) + w["visual.positional_embedding"]
    x = openclip_tower(w, "visual.", norm(w, "visual.ln_pre", x, 1e-5), causal=False)
    return norm(w, "visual.ln_post", x[:, 0], 1e-5) @ w["visual.proj"]


def openclip_text(w: Weights, ids: torch.Tensor) -> torch.Tensor:
    """Embedding [D] of tokens, which end with the largest id and are padded with 0."""
    x = w["token_embedding.weight"][ids] + w["positional_embedding"]
    x = norm(w, "ln_final", openclip_tower(w, "", x[None], causal=True), 1e-5)
    return x[0, ids.argmax()] @ w["text_projection"]


def imagereward(w: Weights, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Raw rewards [B]: the ViT of timm, BERT with cross-attention, and five layers without activation."""
    v, kernel = "blip.visual_encoder.", w["blip.visual_encoder.patch_embed.proj.weight"]
    bias = w[f"{v}patch_embed.proj.bias"]
    patches = torch.conv2d(pixels, kernel, bias, stride=kernel.shape[-1]).flatten(2).mT
    x = torch.cat([w[f"{v}cls_token"].expand(len(pixels), 1, -1), patches], dim=1) + w[f"{v}pos_embed"]
    for n in range(2):
        q, k, u = affine(w, f"{v}blocks.{n}.attn.qkv", norm(w, f"{v}blocks.{n}.norm1", x, 1e-6)).chunk(3, -1)
        x = x + affine(w, f"{v}blocks.{n}.attn.proj", attend(q, k, u, 16))
        y = gelu(affine(w, f"{v}blocks.{n}.mlp.fc1", norm(w, f"{v}blocks.{n}.norm2", x, 1e-6)))
        x = x + affine(w, f"{v}blocks.{n}.mlp.fc2", y)
    seen = norm(w, f"{v}norm", x, 1e-6)
    t = "blip.text_encoder.embeddings."
    x = w[f"{t}word_embeddings.weight"][ids] + w[f"{t}position_embeddings.weight"][: len(ids)]
    x = norm(w, f"{t}LayerNorm", x, 1e-12).expand(len(pixels), -1, -1)
    for n in range(2):
        layer = f"blip.text_encoder.encoder.layer.{n}."
        for kind, source, shown in (("attention", None, mask), ("crossattention", seen, None)):
            name, read = f"{layer}{kind}.", x if source is None else source
            q, k, u = (
                affine(w, f"{name}self.{part}", y).unflatten(-1, (12, -1)).transpose(1, 2)
                for part, y in (("query", x), ("key", read), ("value", read))
            )
            scores = q @ k.mT / math.sqrt(q.shape[-1])
            scores = scores if shown is None else scores.masked_fill(~shown, -math.inf)
            y = (scores.softmax(-1) @ u).transpose(1, 2).flatten(2)
            x = norm(w, f"{name}output.LayerNorm", x + affine(w, f"{name}output.dense", y), 1e-12)
        y = affine(w, f"{layer}output.dense", gelu(affine(w, f"{layer}intermediate.dense", x)))
        x = norm(w, f"{layer}output.LayerNorm", x + y, 1e-12)
    return mlp(w, "mlp.layers.", x[:, 0])


def mlp(w: Weights, prefix: str, x: torch.Tensor) -> torch.Tensor:
    for n in (0, 2, 4, 6, 7):
        x = affine(w, f"{prefix}{n}", x)
    return x[:, 0]
