"""A dual encoder as a judge: each image is encoded once, and has a utility for a prompt.

Shapes: B images, S side of a square image, T image tokens, D hidden or embedding, L tokens of a text.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear, normalize

from prefrm.errors import ConfigError
from prefrm.judge.dual.texts import TextTokenizer
from prefrm.manifest import DualSpec

__all__ = ["DualJudge"]

NO_TEXT = torch.empty(0)


class DualJudge(nn.Module):
    """Utilities of images for a prompt, in nats, higher is better.

    Args:
        towers: the encoders, of `build_towers`, with weights.
        head: the affine map of "aesthetic" and "fusion", in float32; None for "similarity".
        tokenizer: None for "aesthetic".
        spec: what the judge is.
        weights_sha256: one hash, in hex, over the files of weights that were imported.

    Raises:
        ConfigError: the specification does not fit the encoders.
    """

    def __init__(
        self,
        towers: Any,
        head: nn.Linear | None,
        tokenizer: TextTokenizer | None,
        spec: DualSpec,
        weights_sha256: str,
    ) -> None:
        super().__init__()
        self.model = towers
        self.head = head
        self.tokenizer = tokenizer
        self.spec = spec
        self.weights_sha256 = weights_sha256
        self._check_sizes()
        # Of a rounded parameter, the exponential would be another one.
        self._scale = float(towers.logit_scale.detach().double().exp()) if spec.score == "similarity" else 1.0
        if not math.isfinite(self._scale):
            raise ConfigError("logit_scale is too large: its exponential is not a number")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Of the encoders."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    def encode_images(self, pixels_B3SS: torch.Tensor) -> torch.Tensor:
        """Image features: normalized embeddings [B, D], or hidden states [B, T, D] for "fusion".

        Args:
            pixels_B3SS: as `prefrm.judge.dual.pictures` prepares them.
        """
        pixels_B3SS = pixels_B3SS.to(self.device, self.dtype)
        if self.spec.score == "fusion":
            states_BTD: torch.Tensor = self.model.vision_model(pixels_B3SS).last_hidden_state
            return states_BTD
        if self.spec.score == "aesthetic":
            return normalize(_wide(self.model(pixels_B3SS).image_embeds), dim=-1)
        return normalize(_wide(self.model.get_image_features(pixels_B3SS).pooler_output), dim=-1)

    def encode_text(self, prompt: str) -> torch.Tensor:
        """What `utilities` takes of a prompt: an embedding [D], for "fusion" tokens [L], for others nothing.

        Raises:
            RecordError: the prompt is not valid text.
        """
        if self.tokenizer is None:
            return NO_TEXT
        ids_L = self.tokenizer(prompt).to(self.device)
        if self.spec.score == "fusion":
            return ids_L
        return normalize(_wide(self.model.get_text_features(ids_L[None]).pooler_output[0]), dim=-1)

    def utilities(self, images_B: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """Utilities [B] in float32 at least, of images by their features and of a prompt by `encode_text`."""
        if self.spec.score == "similarity":
            return self._scale * (images_B @ text)
        assert self.head is not None
        if self.spec.score == "fusion":
            images_B = self.model.text_encoder(
                input_ids=text.expand(len(images_B), -1), encoder_hidden_states=images_B
            ).last_hidden_state[:, 0]
        x_BD = _wide(images_B)
        utilities_B: torch.Tensor = linear(x_BD, self.head.weight.to(x_BD), self.head.bias.to(x_BD))[:, 0]
        return utilities_B

    def _check_sizes(self) -> None:
        config = self.model.config
        vision = getattr(config, "vision_config", config)
        if vision.image_size != self.spec.image.side:
            raise ConfigError(
                f"the image encoder reads {vision.image_size} pixels a side, and the judge has "
                f"{self.spec.image.side}"
            )
        if self.spec.text is None or self.tokenizer is None:
            return
        if self.tokenizer.size > config.text_config.vocab_size:
            raise ConfigError(
                f"the tokenizer has {self.tokenizer.size} tokens, and the text encoder "
                f"{config.text_config.vocab_size}; take the tokenizer of this judge"
            )
        if self.spec.text.tokens > config.text_config.max_position_embeddings:
            raise ConfigError(
                f"the text encoder reads {config.text_config.max_position_embeddings} tokens, and the judge "
                f"has {self.spec.text.tokens}"
            )


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 at least, in which everything after the encoders is computed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
