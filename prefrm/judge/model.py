"""The judge: a vision-language backbone and a head that compares two images for a prompt.

One pair, one presentation order, one number. Reading both orders, batching and matrices belong to
`prefrm.engine`; saving and loading belong to `prefrm.bundle`.

Shapes: B pairs, N images, L positions, P patches of all images, C numbers of a patch, T tokens of
an image, D hidden.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from prefrm.errors import ConfigError
from prefrm.judge.backbones import BaseModel, Family, family_of, find_base, load_backbone
from prefrm.judge.heads import VerdictHead
from prefrm.judge.processor import ImageInput, JudgeBatch, JudgeProcessor
from prefrm.judge.spec import JudgeSpec
from prefrm.prompts import get_template

__all__ = ["Judge", "resolve_device", "resolve_dtype"]


class Judge(nn.Module):
    """Says by how much the image shown first is preferred to the one shown second.

    Attributes:
        backbone: the `transformers` model; it may be replaced by a PEFT model around it.
        head: the readout.
        processor: prepares what `forward` takes.
        spec: the choices that made this judge.
        base: the base model's folder and revision.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: VerdictHead,
        processor: JudgeProcessor,
        spec: JudgeSpec,
        base: BaseModel,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.processor = processor
        self.spec = spec
        self.base = base

    @classmethod
    def from_base(
        cls, spec: JudgeSpec, device: torch.device | str = "auto", dtype: torch.dtype | str = "auto"
    ) -> "Judge":
        """An untrained judge on its base model, in evaluation mode.

        Args:
            spec: the base model and the choices.
            device: "auto" is the first accelerator, or the CPU without one.
            dtype: of the backbone; "auto" is bfloat16 on an accelerator and float32 on the CPU. The
                head is float32 always.

        Raises:
            ConfigError: the base model is not to be found, or is of no supported family, or cannot be
                quantized, or the device is not there.
            MissingExtraError: the base model is to be quantized and bitsandbytes is not installed.
        """
        device = resolve_device(device)
        base = find_base(spec)
        backbone = load_backbone(base.folder, dtype=resolve_dtype(dtype, device), quantize=spec.quantize)
        # PEFT writes this name into an adapter; the hub's id says more than a folder of its cache.
        backbone.name_or_path = spec.base_model
        processor = JudgeProcessor.load(base.folder, backbone.config, spec, get_template(spec.template))
        return cls(backbone, VerdictHead(), processor, spec, base).to(device).eval()

    @property
    def model(self) -> Any:
        """The `transformers` model itself, whether or not `backbone` is wrapped; adapters act inside it."""
        wrapped: Any = self.backbone
        return wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped

    @property
    def family(self) -> Family:
        """The facts of the backbone's model family."""
        return family_of(self.model.config)

    @property
    def device(self) -> torch.device:
        """Where the head is; inputs are moved there."""
        return self.head.log_scale.device

    def forward(self, batch: JudgeBatch) -> torch.Tensor:
        """Log-odds [B], float32, that the image shown first is preferred."""
        return self.compare(batch, self.encode(batch.distinct_images))

    def encode(self, images: Sequence[ImageInput]) -> dict[ImageInput, torch.Tensor]:
        """Run the vision tower once over all of `images`: features [T, D] for each."""
        pixels_PC = torch.cat([image.pixels_PC for image in images]).to(self.device)
        grid_N3 = torch.tensor([image.grid for image in images], device=self.device)
        return dict(zip(images, self.family.encode(self.model, pixels_PC, grid_N3), strict=True))

    def compare(self, batch: JudgeBatch, features: Mapping[ImageInput, torch.Tensor]) -> torch.Tensor:
        """Log-odds [B], float32, from features that `encode` made earlier."""
        batch = batch.to(self.device)
        embeds_BLD = self.model.get_input_embeddings()(batch.ids_BL)
        images_ND = torch.cat([features[image] for pair in batch.images for image in pair])
        placeholder_BL1 = (batch.ids_BL == self.processor.layout.image_token_id)[..., None]
        embeds_BLD = embeds_BLD.masked_scatter(placeholder_BL1, images_ND.to(embeds_BLD.dtype))
        hidden_BLD = self.family.read(self.model, embeds_BLD, batch.mask_BL, batch.positions_3BL)
        last_B = batch.mask_BL.sum(dim=1) - 1
        first, second = self.processor.layout.answers
        rows = self.model.get_output_embeddings().weight
        hidden_BD = hidden_BLD[torch.arange(len(batch), device=self.device), last_B]
        log_odds_B: torch.Tensor = self.head(hidden_BD, rows[first], rows[second])
        return log_odds_B


def resolve_device(device: torch.device | str) -> torch.device:
    """A device that is there; "auto" is the first accelerator, or the CPU without one.

    Raises:
        ConfigError: this machine, or this build of torch, has no such device.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        # torch without CUDA answers a CUDA device with an AssertionError.
        except (AssertionError, RuntimeError) as error:
            reason = str(error).strip().split("\n", 1)[0]
            raise ConfigError(
                f"device {str(device)!r} cannot be used ({reason}); give auto, cpu or cuda:0"
            ) from error
    if torch.accelerator.is_available():
        return torch.device(torch.accelerator.current_accelerator() or "cpu")
    return torch.device("cpu")


def resolve_dtype(dtype: torch.dtype | str, device: torch.device) -> torch.dtype:
    """A floating-point type by its name; "auto" is bfloat16 on an accelerator and float32 on the CPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype must be auto, float32, bfloat16 or float16; received {dtype!r}")
    return found
