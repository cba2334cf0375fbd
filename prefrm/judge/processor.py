"""From a prompt and two images to the tensors that a backbone reads. Runs on the CPU, holds no weights.

An image is prepared once and may then stand in any number of pairs, in either slot.

Shapes: B pairs, L positions, P patches of an image, C numbers of a patch.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoImageProcessor, AutoTokenizer

from prefrm.errors import ConfigError, MediaError, RecordError
from prefrm.judge.backbones import Grid, family_of
from prefrm.judge.spec import JudgeSpec
from prefrm.judge.tokens import TokenLayout
from prefrm.prompts import Template

__all__ = ["ImageInput", "JudgeBatch", "JudgeProcessor", "PairInput"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageInput:
    """A prepared image. Two of them are equal only if they are the same object.

    Attributes:
        pixels_PC: float32, normalized patches.
        grid: patches in time, height and width.
        tokens: how many positions the image takes in a sequence.
    """

    pixels_PC: torch.Tensor
    grid: Grid
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PairInput:
    """A tokenized comparison: int64 ids [L], positions [3, L], and the images in the order shown."""

    ids_L: torch.Tensor
    positions_3L: torch.Tensor
    images: tuple[ImageInput, ImageInput]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgeBatch:
    """Comparisons padded on the right to one length.

    Attention is causal, so no position of a comparison sees the padding after it.

    Attributes:
        ids_BL: int64.
        mask_BL: int64, 1 where a position is real and 0 where it is padding.
        positions_3BL: int64.
        images: each row's two images, in the order shown; an image in several rows is one object.
    """

    ids_BL: torch.Tensor
    mask_BL: torch.Tensor
    positions_3BL: torch.Tensor
    images: tuple[tuple[ImageInput, ImageInput], ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def distinct_images(self) -> list[ImageInput]:
        """Every image of the batch once, in order of first appearance."""
        return list(dict.fromkeys(image for pair in self.images for image in pair))

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> "JudgeBatch":
        """The same batch with its ids, mask and positions on `device`; pixels move when they are encoded."""
        return JudgeBatch(
            ids_BL=self.ids_BL.to(device, non_blocking=non_blocking),
            mask_BL=self.mask_BL.to(device, non_blocking=non_blocking),
            positions_3BL=self.positions_3BL.to(device, non_blocking=non_blocking),
            images=self.images,
        )


class JudgeProcessor:
    """Prepares images and pairs for one base model and one template.

    Composed of the checkpoint's own image processor (its Pillow variant) and tokenizer; it needs
    neither torchvision nor a video processor.

    Args:
        tokenizer: of `transformers`.
        image_processor: of `transformers`.
        config: the backbone's configuration.
        template: the wording.
    """

    def __init__(self, tokenizer: Any, image_processor: Any, config: Any, template: Template) -> None:
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.template = template
        self.layout = TokenLayout(tokenizer, template, config.image_token_id)
        self._family = family_of(config)
        self.max_length = self._family.max_length(config)
        self._merge = self._family.merge(config)

    @classmethod
    def load(cls, folder: Path, config: Any, spec: JudgeSpec, template: Template) -> "JudgeProcessor":
        """From the tokenizer and image-processor files in `folder`, with the pixel budget of `spec`.

        Raises:
            ConfigError: the files are absent or unusable, or the pixel budget is empty.
        """
        try:
            tokenizer = _tokenizer(folder)
            image_processor = _pillow_image_processor(folder, config)
        except (KeyError, OSError, ValueError) as error:
            raise ConfigError(f"{folder} holds no usable tokenizer and image processor: {error}") from error
        family_of(config).pixel_budget(image_processor, spec.min_pixels, spec.max_pixels)
        return cls(tokenizer, image_processor, config, template)

    def save(self, folder: Path) -> None:
        """Write the tokenizer and image-processor files, chat template included."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)

    def prepare_image(self, image: Image.Image) -> ImageInput:
        """Resize into the pixel budget, normalize and cut into patches.

        Raises:
            MediaError: the image cannot be resized into the budget, such as an extreme aspect ratio.
        """
        try:
            pixels_PC, grid = self._family.patches(self.image_processor, image)
        except ValueError as error:
            raise MediaError(f"the image cannot be prepared for this judge: {error}") from error
        return ImageInput(pixels_PC=pixels_PC, grid=grid, tokens=math.prod(grid) // self._merge**2)

    def prepare_pair(self, prompt: str, first: ImageInput, second: ImageInput) -> PairInput:
        """One comparison, `first` shown before `second`.

        Raises:
            RecordError: the prompt is no valid text, or the comparison is longer than the model can read.
        """
        layout = self.layout
        asked = layout.prompt(prompt)
        opening, readout = [*layout.instruction, *asked, *layout.first], layout.readout(asked)
        image = layout.image_token_id
        ids = [*opening, *[image] * first.tokens, *layout.second, *[image] * second.tokens, *readout]
        if len(ids) > self.max_length:
            raise RecordError(
                f"the comparison has {len(ids)} tokens and the model reads {self.max_length}: the prompt has "
                f"{len(prompt)} characters and the images {first.tokens} and {second.tokens} tokens; "
                "shorten the prompt or lower max_pixels"
            )
        parts = (len(opening), first.grid, len(layout.second), second.grid, len(readout))
        return PairInput(
            ids_L=torch.tensor(ids),
            positions_3L=self._family.positions(parts, self._merge),
            images=(first, second),
        )

    def collate(self, pairs: Sequence[PairInput]) -> JudgeBatch:
        """One batch of the pairs, in order."""
        ids = [pair.ids_L for pair in pairs]
        positions_BL3 = pad_sequence([pair.positions_3L.T for pair in pairs], batch_first=True)
        return JudgeBatch(
            ids_BL=pad_sequence(ids, batch_first=True, padding_value=self._pad_id),
            mask_BL=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            positions_3BL=positions_BL3.permute(2, 0, 1),
            images=tuple(pair.images for pair in pairs),
        )

    @property
    def _pad_id(self) -> int:
        # Any id but the image placeholder will do: padding is masked and never read.
        return int(self.layout.answers[0])


def _tokenizer(folder: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    # Older checkpoints keep the chat template that knows images apart from the tokenizer's own.
    older = folder / "chat_template.json"
    if older.is_file():
        tokenizer.chat_template = json.loads(older.read_text(encoding="utf-8"))["chat_template"]
    return tokenizer


def _pillow_image_processor(folder: Path, config: Any) -> Any:
    load: Any = AutoImageProcessor.from_pretrained
    return load(folder, backend="pil", config=config, trust_remote_code=False)
