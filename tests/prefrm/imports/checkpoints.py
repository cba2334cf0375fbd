"""Checkpoints of the published key layouts, with tiny sizes and random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertTokenizer, CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

SIDE = 28
Weights = dict[str, torch.Tensor]


def clip_tokenizer() -> CLIPTokenizer:
    """Byte-level with no merges but one; start and end are the last two of 514 tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "re", "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=[("r", "e")])


def randomize(model: torch.nn.Module, seed: int = 0) -> None:
    """Weights large enough that every part of the model changes its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            norm = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * noise if norm else 0.2 * noise)


def clip_config(**changes: Any) -> CLIPConfig:
    """Two layers of each tower."""
    tokenizer = clip_tokenizer()
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 14,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=8, **changes)


def save_clip(folder: Path) -> Path:
    """A repository as PickScore's: model, tokenizer and image processor of `transformers`."""
    model = CLIPModel(clip_config())
    randomize(model)
    with torch.no_grad():
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    ).save_pretrained(folder)
    return folder


def noise(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> Weights:
    """Random tensors; the scales of norms are around 1."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        is_scale = name.endswith("weight") and len(shape) == 1
        found[name] = float(is_scale) + 0.3 * torch.randn(shape, generator=generator)
    return found


def linear_shapes(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def openclip_weights() -> Weights:
    """As OpenCLIP names the weights of ViT-H-14, in 2 layers of each tower."""
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "positional_embedding": (77, 16),
        "token_embedding.weight": (len(clip_tokenizer()), 16),
        "text_projection": (16, 8),
        "visual.class_embedding": (32,),
        "visual.positional_embedding": (5, 32),
        "visual.proj": (32, 8),
        "visual.conv1.weight": (32, 3, 14, 14),
        **norm_shapes("visual.ln_pre", 32),
        **norm_shapes("visual.ln_post", 32),
        **norm_shapes("ln_final", 16),
    }
    for tower, width in (("", 16), ("visual.", 32)):
        for n in range(2):
            block = f"{tower}transformer.resblocks.{n}."
            shapes |= {
                **norm_shapes(f"{block}ln_1", width),
                **norm_shapes(f"{block}ln_2", width),
                f"{block}attn.in_proj_weight": (3 * width, width),
                f"{block}attn.in_proj_bias": (3 * width,),
                **linear_shapes(f"{block}attn.out_proj", width, width),
                **linear_shapes(f"{block}mlp.c_fc", 2 * width, width),
                **linear_shapes(f"{block}mlp.c_proj", width, 2 * width),
            }
    return noise(shapes) | {"logit_scale": torch.tensor(3.0)}


def bert_tokenizer() -> BertTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab={token: n for n, token in enumerate(tokens)})


def imagereward_weights() -> Weights:
    """As ImageReward.pt names them, in 2 layers of each encoder."""
    text, vision = "blip.text_encoder.", "blip.visual_encoder."
    shapes: dict[str, tuple[int, ...]] = {
        f"{vision}cls_token": (1, 1, 32),
        f"{vision}pos_embed": (1, 5, 32),
        f"{vision}patch_embed.proj.weight": (32, 3, 14, 14),
        f"{vision}patch_embed.proj.bias": (32,),
        **norm_shapes(f"{vision}norm", 32),
        f"{text}embeddings.word_embeddings.weight": (len(bert_tokenizer()) + 2, 24),
        f"{text}embeddings.position_embeddings.weight": (40, 24),
        **norm_shapes(f"{text}embeddings.LayerNorm", 24),
        **linear_shapes("blip.vision_proj", 8, 32),
        **linear_shapes("blip.text_proj", 8, 24),
    }
    for n in range(2):
        block, layer = f"{vision}blocks.{n}.", f"{text}encoder.layer.{n}."
        shapes |= {
            **norm_shapes(f"{block}norm1", 32),
            **norm_shapes(f"{block}norm2", 32),
            **linear_shapes(f"{block}attn.qkv", 96, 32),
            **linear_shapes(f"{block}attn.proj", 32, 32),
            **linear_shapes(f"{block}mlp.fc1", 64, 32),
            **linear_shapes(f"{block}mlp.fc2", 32, 64),
            **linear_shapes(f"{layer}intermediate.dense", 48, 24),
            **linear_shapes(f"{layer}output.dense", 24, 48),
            **norm_shapes(f"{layer}output.LayerNorm", 24),
        }
        for kind, inputs in (("attention", 24), ("crossattention", 32)):
            shapes |= {
                **linear_shapes(f"{layer}{kind}.self.query", 24, 24),
                **linear_shapes(f"{layer}{kind}.self.key", 24, inputs),
                **linear_shapes(f"{layer}{kind}.self.value", 24, inputs),
                **linear_shapes(f"{layer}{kind}.output.dense", 24, 24),
                **norm_shapes(f"{layer}{kind}.output.LayerNorm", 24),
            }
    positions = torch.arange(40)[None]
    return noise(shapes | mlp_shapes("mlp.layers.", 24)) | {f"{text}embeddings.position_ids": positions}


def mlp_shapes(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    """Five layers; the places between them are dropouts."""
    sides = (width, 12, 10, 8, 6, 1)
    return {
        name: shape
        for n, inputs, outputs in zip((0, 2, 4, 6, 7), sides, sides[1:], strict=False)
        for name, shape in linear_shapes(f"{prefix}{n}", outputs, inputs).items()
    }


def save_siglip(folder: Path) -> Path:
    """A repository as SigLIP's: model, image processor, and a tokenizer that ends texts with </s>."""
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": {"content": "</s>"}}
    return _save_siglip(folder, unigram_tokenizer(), settings)


def save_siglip2(folder: Path) -> Path:
    """A repository as that of a SigLIP 2 of one resolution: the same with Gemma's tokenizer."""
    settings = {"tokenizer_class": "GemmaTokenizer", "pad_token": "<pad>", "padding_side": "right"}
    return _save_siglip(folder, gemma_tokenizer(), settings)


def _save_siglip(folder: Path, tokenizer: Tokenizer, settings: dict[str, Any]) -> Path:
    text = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": 64,
        "projection_size": 32,
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": 14,
    }
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def unigram_tokenizer() -> Tokenizer:
    """SentencePiece's model as the library `tokenizers` has it."""
    letters = [("▁", -1.0), *((letter, -2.0) for letter in "abcdefghijklmnopqrstuvwxyz!")]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("</s>", 0.0), *letters], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def gemma_tokenizer() -> Tokenizer:
    """Pairs of bytes, upper case and punctuation too; it ends texts with <eos>."""
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyzAR,!", "re"]
    vocab = {token: n for n, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("r", "e")], unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    return tokenizer
