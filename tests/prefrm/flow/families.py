"""Tiny pipelines of diffusers with random weights, one for each family, that need no text encoder.

The prompts' embeddings are random and depend on the prompt alone; everything else is the family's own code.
"""

import zlib
from collections.abc import Callable, Sequence
from inspect import signature
from typing import Any

import diffusers
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

__all__ = ["FAMILIES", "SIZE", "make"]

WIDTH, TOKENS = 16, 3
SIZE = {"stable_diffusion_3": 8, "flux": 16, "sana": 64, "lumina2": 64, "z_image": 32, "qwen_image": 16}
"""Pixels along each side of the images of a family: small, and allowed by its pipeline."""


def embedding(prompt: str, *shape: int) -> Tensor:
    """Standard normal numbers that depend on the prompt alone."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(prompt.encode())))


def length(prompt: str) -> int:
    """Tokens of a prompt where families differ by it: of "b" one more than of "a" and "c"."""
    return TOKENS - sum(prompt.encode()) % 2


def embedded(prompts: Any, repeats: int, *shape: int) -> Tensor:
    """[B * repeats, *shape]."""
    prompts = [prompts] if isinstance(prompts, str) else prompts
    return torch.stack([embedding(prompt, *shape) for prompt in prompts]).repeat_interleave(repeats, 0)


def vae(channels: int) -> diffusers.AutoencoderTiny:
    """Keeps the size, in three or more channels."""
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,),
        decoder_block_out_channels=(8,),
        num_encoder_blocks=(1,),
        num_decoder_blocks=(1,),
        latent_channels=channels,
    )


def built(
    pipeline: type[Any], transformer: Any, scheduler: Any, encode: Callable[..., Any], vae: Any = None
) -> Any:
    """A pipeline without tokenizers and text encoders, which encodes prompts by `encode`."""
    absent = [name for name in signature(pipeline).parameters if name.startswith(("text_enc", "tokenizer"))]
    pipe = pipeline(transformer=transformer, scheduler=scheduler, vae=vae, **dict.fromkeys(absent))
    pipe.encode_prompt = encode
    return pipe


def euler(**settings: Any) -> diffusers.FlowMatchEulerDiscreteScheduler:
    return diffusers.FlowMatchEulerDiscreteScheduler(**settings)


def stable_diffusion_3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=WIDTH,
        pos_embed_max_size=4,
    )

    def encode(prompt: Any, *args: Any, num_images_per_prompt: int = 1, **kwargs: Any) -> Any:
        without = kwargs.get("negative_prompt") or ["" for _ in prompt]
        return tuple(
            embedded(texts, num_images_per_prompt, *shape).to(transformer.dtype)
            for shape in ((TOKENS, WIDTH), (WIDTH,))
            for texts in (prompt, without)
        )

    return built(diffusers.StableDiffusion3Pipeline, transformer, euler(shift=3.0), encode, vae(3))


def flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=12,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=True,
    )

    def encode(prompt: Any, *args: Any, num_images_per_prompt: int = 1, **kwargs: Any) -> Any:
        tokens = embedded(prompt, num_images_per_prompt, TOKENS, WIDTH)
        return tokens, embedded(prompt, num_images_per_prompt, WIDTH), torch.zeros(TOKENS, 3)

    return built(diffusers.FluxPipeline, transformer, euler(use_dynamic_shifting=True), encode)


def masked(prompt: Any, guided: bool, *args: Any, num_images_per_prompt: int = 1, **kwargs: Any) -> Any:
    """As Sana and Lumina 2 encode: embeddings and masks of the prompts and of none."""
    without = ["" for _ in prompt] if guided else prompt
    made: list[Tensor] = []
    for texts in (prompt, without):
        tokens = embedded(texts, num_images_per_prompt, TOKENS, WIDTH)
        made += [tokens, torch.ones(tokens.shape[:2], dtype=torch.bool)]
    return tuple(made)


def sana() -> Any:
    transformer = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=2,
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return built(diffusers.SanaPipeline, transformer, scheduler, masked)


def lumina2() -> Any:
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(32, 16, 16),
        cap_feat_dim=WIDTH,
    )
    return built(diffusers.Lumina2Pipeline, transformer, euler(), masked)


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[4, 2, 2],
        axes_lens=[64, 16, 16],
    )

    def encode(prompt: Any, *args: Any, do_classifier_free_guidance: bool = True, **kwargs: Any) -> Any:
        given = [embedding(text, length(text), WIDTH) for text in prompt]
        without = [embedding("", TOKENS, WIDTH) for _ in prompt] if do_classifier_free_guidance else []
        return given, without

    return built(diffusers.ZImagePipeline, transformer, euler(shift=3.0), encode)


def qwen_image() -> Any:
    transformer = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(2, 2, 4),
    )

    def encode(prompt: Any, *args: Any, num_images_per_prompt: int = 1, **kwargs: Any) -> Any:
        texts = [prompt] if isinstance(prompt, str) else prompt
        ones = [torch.ones(length(text), dtype=torch.long) for text in texts]
        tokens = [embedding(text, length(text), WIDTH) for text in texts]
        padded, mask = (
            pad_sequence(rows, batch_first=True).repeat_interleave(num_images_per_prompt, 0)
            for rows in (tokens, ones)
        )
        # As the pipeline's own: no mask where nothing is padded.
        return padded, None if mask.all() else mask

    return built(diffusers.QwenImagePipeline, transformer, euler(use_dynamic_shifting=True), encode)


FAMILIES: Sequence[Callable[[], Any]] = (stable_diffusion_3, flux, sana, lumina2, z_image, qwen_image)


def make(family: Callable[[], Any], dtype: torch.dtype = torch.float32) -> Any:
    """A pipeline with weights that depend on nothing, and are large enough that every input matters."""
    torch.manual_seed(0)
    pipe = family()
    with torch.no_grad():
        for parameter in pipe.transformer.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1))
    if dtype != torch.float32:
        pipe.transformer.to(dtype)
    return pipe
