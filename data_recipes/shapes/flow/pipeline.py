"""The flow model's parts, and Stable Diffusion 3's pipeline over them.

The transformer is `SD3Transformer2DModel` of toy size. It works on pictures of 32 x 32 pixels themselves,
where a larger model works on an autoencoder's latents; `PixelDecoder` stands in the autoencoder's place and
doubles their size, so that a picture is as large as one that `render` draws. A learnt embedding for each word
of the world stands in the place of the text encoders. Nothing here trains.

Shapes: B prompts, T tokens of a prompt, D width of an embedding, S and H = 2S pixels along each side of a
picture inside and outside the model.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from data_recipes.shapes.checkpoints import store_in_half
from data_recipes.shapes.prompts import PromptError, all_prompts
from data_recipes.shapes.render import CANVAS
from prefrm.errors import missing_extra

try:
    from diffusers import (
        ConfigMixin,
        FlowMatchEulerDiscreteScheduler,
        ModelMixin,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from diffusers.configuration_utils import register_to_config
except ImportError as error:
    raise missing_extra("diffusers", "flow") from error

__all__ = [
    "SIDE",
    "WEIGHTS",
    "PixelDecoder",
    "ShapesFlowPipeline",
    "WordEncoder",
    "load_folder",
    "save",
    "untrained",
]

SIDE = 32
"""Pixels along each side of a picture inside the model; outside it has `CANVAS`, twice as many."""
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""The file of a component's weights."""

PATCH = 4
HEAD_WIDTH = 16
CHANNELS = 3
# Few steps are best spent where the picture is mostly noise: there its layout is decided.
SHIFT = 3.0
# Words and places of a prompt's words start at a like and visible size.
EMBEDDING_RANGE = 0.3


class WordEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A learnt embedding for each word and for each place of a prompt.

    Args:
        words: the words that it knows; the empty place after a prompt's end has an embedding as well.
        length: T, the places.
        width: D.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, words: Sequence[str], length: int, width: int) -> None:
        super().__init__()
        self.ids = {word: n for n, word in enumerate(words, 1)}
        self.length = length
        self.word_embedding = nn.Embedding(len(words) + 1, width)
        self.place_embedding = nn.Embedding(length, width)
        for embedding in (self.word_embedding, self.place_embedding):
            nn.init.normal_(embedding.weight, std=EMBEDDING_RANGE)

    def forward(self, ids_BT: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The prompts' embeddings [B, T, D] and their mean over the places [B, D]."""
        tokens_BTD = self.word_embedding(ids_BT) + self.place_embedding.weight
        return tokens_BTD, tokens_BTD.mean(1)

    def tokenize(self, prompts: Sequence[str]) -> torch.Tensor:
        """Word ids [B, T], 0 after the end; case, extra spaces and a final period do not matter.

        Raises:
            PromptError: a word is not one of the world's, or there are more words than places.
        """
        ids = [self._ids(prompt) for prompt in prompts]
        return torch.tensor(ids, device=self.word_embedding.weight.device)

    def _ids(self, prompt: str) -> list[int]:
        words = prompt.lower().removesuffix(".").split()
        if unknown := [word for word in words if word not in self.ids]:
            raise PromptError(
                f"{unknown[0][:40]!r} in {prompt[:100]!r} is not a word of the shapes world; "
                f"the words are {', '.join(self.ids)}"
            )
        if len(words) > self.length:
            raise PromptError(f"a prompt has at most {self.length} words; {prompt[:100]!r} has {len(words)}")
        return [self.ids[word] for word in words] + [0] * (self.length - len(words))


class PixelDecoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """The decoder of an autoencoder whose latents are pixels: it doubles a picture's size, bicubically.

    Nothing about it is learnt. `block_out_channels` tells the pipeline, as an `AutoencoderKL`'s does, that
    latents have half the side of a picture.

    Args:
        side: S, pixels along each side of the latents.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        side: int = SIDE,
        block_out_channels: Sequence[int] = (CHANNELS, CHANNELS),
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()
        rows_HS = nn.functional.interpolate(
            torch.eye(side)[None, None], size=(2 * side, side), mode="bicubic", align_corners=False
        )[0, 0]
        self.register_buffer("interpolation", rows_HS)

    def decode(self, latents: torch.Tensor, return_dict: bool = False) -> tuple[torch.Tensor]:
        """Pictures [B, 3, 2S, 2S] of latents [B, 3, S, S], in a tuple as the pipeline asks for them."""
        assert not return_dict
        return (self.interpolation @ latents @ self.interpolation.T,)


class ShapesFlowPipeline(StableDiffusion3Pipeline):  # type: ignore[misc]
    """Stable Diffusion 3's pipeline with a `WordEncoder` for all its text encoders, and a `PixelDecoder`."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"
    _optional_components: ClassVar[list[str]] = [
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
        "text_encoder_3",
        "tokenizer_3",
        "image_encoder",
        "feature_extractor",
    ]

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: PixelDecoder,
        text_encoder: WordEncoder,
        tokenizer: None = None,
        text_encoder_2: None = None,
        tokenizer_2: None = None,
        text_encoder_3: None = None,
        tokenizer_3: None = None,
        image_encoder: None = None,
        feature_extractor: None = None,
    ) -> None:
        super().__init__(
            transformer=transformer,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )

    def encode_prompt(
        self,
        prompt: str | Sequence[str] | None = None,
        prompt_2: str | Sequence[str] | None = None,
        prompt_3: str | Sequence[str] | None = None,
        device: torch.device | None = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: str | Sequence[str] | None = None,
        negative_prompt_2: str | Sequence[str] | None = None,
        negative_prompt_3: str | Sequence[str] | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        clip_skip: int | None = None,
        max_sequence_length: int = 256,
        lora_scale: float | None = None,
    ) -> tuple[torch.Tensor | None, ...]:
        """Embeddings of the prompts and the negative prompts, then both pooled, as in the parent class.

        There is one encoder, so `prompt_2`, `prompt_3` and what is for CLIP and T5 are not used.

        Raises:
            PromptError: a word is not one of the world's.
        """
        if prompt_embeds is None:
            prompt_embeds, pooled_prompt_embeds = self._encode(
                [prompt] if isinstance(prompt, str) else prompt or [], num_images_per_prompt
            )
        if do_classifier_free_guidance and negative_prompt_embeds is None:
            prompts = len(prompt_embeds) // num_images_per_prompt
            negative = negative_prompt or ""
            negative_prompt_embeds, negative_pooled_prompt_embeds = self._encode(
                [negative] * prompts if isinstance(negative, str) else negative, num_images_per_prompt
            )
        return prompt_embeds, negative_prompt_embeds, pooled_prompt_embeds, negative_pooled_prompt_embeds

    def _encode(self, prompts: Sequence[str], repeats: int) -> tuple[torch.Tensor, torch.Tensor]:
        tokens_BTD, pooled_BD = self.text_encoder(self.text_encoder.tokenize(prompts))
        return tokens_BTD.repeat_interleave(repeats, 0), pooled_BD.repeat_interleave(repeats, 0)


def untrained(*, width: int, layers: int) -> ShapesFlowPipeline:
    """The pipeline with random weights, drawn from torch's global generator.

    As in the diffusion transformer of arXiv 2212.09748, each block starts as the identity and the predicted
    velocity as 0.
    """
    words = sorted({word for prompt in all_prompts() for word in prompt.text.split()})
    length = max(len(prompt.text.split()) for prompt in all_prompts())
    transformer = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=PATCH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=layers,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=width // HEAD_WIDTH,
        joint_attention_dim=width,
        caption_projection_dim=width,
        pooled_projection_dim=width,
        pos_embed_max_size=SIDE // PATCH,
        qk_norm="rms_norm",
    )
    modulations = [
        norm.linear for block in transformer.transformer_blocks for norm in (block.norm1, block.norm1_context)
    ]
    for linear in (*modulations, transformer.norm_out.linear, transformer.proj_out):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    pipe = ShapesFlowPipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=PixelDecoder(),
        text_encoder=WordEncoder(words, length, width),
    )
    assert pipe.vae_scale_factor * SIDE == CANVAS
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: ShapesFlowPipeline, folder: Path) -> None:
    """Write a folder in diffusers' layout. Weights are stored in half precision."""
    pipe.save_pretrained(folder)
    for weights in folder.glob(f"*/{WEIGHTS}"):
        store_in_half(weights)


def load_folder(folder: Path, **options: Any) -> ShapesFlowPipeline:
    """The pipeline of a folder, without a progress bar; `options` are those of `from_pretrained`."""
    pipe: ShapesFlowPipeline = ShapesFlowPipeline.from_pretrained(folder, **options)
    for part in (pipe.transformer, pipe.text_encoder, pipe.vae):
        for tensor in (*part.parameters(), *part.buffers()):
            # In a mapped file tensors are not aligned, and kernels of the CPU then round differently.
            tensor.data = tensor.data.clone()
    pipe.set_progress_bar_config(disable=True)
    return pipe
