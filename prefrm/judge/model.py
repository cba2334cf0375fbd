"""The judge: a vision-language backbone and a head that compares images for a prompt.

One presentation order, one outcome for each comparison. Reading both orders, batching and matrices belong
to `prefrm.engine`; saving and loading belong to `prefrm.bundle`.

Shapes: B rows, L positions, A axes of a position, T tokens of a packed batch or of an image, N comparisons
or tokens of all images, R readouts, P positions of a readout, V depths of image features, D hidden.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prefrm.errors import ConfigError
from prefrm.hub import HubRepository
from prefrm.judge.attention import Attend, segment_attention, use_attend
from prefrm.judge.backbones import BaseModel, Family, family_of, find_base, load_backbone
from prefrm.judge.batch import JudgeBatch
from prefrm.judge.heads import AnswerHead, Head, MlpHead, ScalarHead, build_head
from prefrm.judge.images import ImageInput
from prefrm.judge.labels import label_log_probs
from prefrm.judge.losses import preference_loss
from prefrm.judge.processor import JudgeProcessor
from prefrm.judge.transfers import to_device
from prefrm.judge.windows import use_windows
from prefrm.manifest.spec import JudgeSpec
from prefrm.prompts import get_template
from prefrm.quiet import quiet

__all__ = ["Judge", "resolve_device", "resolve_dtype"]


class Judge(nn.Module):
    """Compares two images for a prompt: which is preferred, and by what log-odds.

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
        head: Head,
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
        use_attend(self.model)
        use_windows(self.model.get_submodule(self.family.vision_tower))

    @classmethod
    @quiet()
    def from_base(
        cls,
        spec: JudgeSpec,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        *,
        base: BaseModel | None = None,
    ) -> "Judge":
        """An untrained judge on its base model, in evaluation mode.

        Args:
            spec: the base model and the choices.
            device: "auto" is the first accelerator, or the CPU without one.
            dtype: of the backbone; "auto" is bfloat16 on an accelerator and float32 on the CPU. The
                head is float32 always.
            base: the base model, where `find_base(spec)` has found it already.

        Raises:
            ConfigError: the base model cannot be found, is incomplete, is not of a supported family, or
                cannot be quantized, or the device is not there.
            MissingExtraError: the base model is to be quantized and bitsandbytes is not installed.
        """
        device = resolve_device(device)
        base = find_base(spec) if base is None else base
        backbone = load_backbone(
            base.folder, dtype=resolve_dtype(dtype, device), quantize=spec.quantize, tokens=spec.readouts
        )
        # PEFT writes this name into an adapter; the hub's id says more than a folder of its cache.
        backbone.name_or_path = spec.base_model
        template = get_template(spec.template, spec.kind)
        spec.check_template(template)
        # A bundle names the file of a template, and not where it was.
        spec = replace(spec, template=template.id)
        processor = JudgeProcessor.load(base.folder, backbone.config, spec, template)
        head = build_head(spec, backbone.get_output_embeddings().in_features, template)
        return cls(backbone, head, processor, spec, base).to(device).eval()

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
    ) -> "Judge":
        """The judge of a bundle: a folder, or a repository of the Hub.

        `prefrm.engine.Engine.from_bundle` also applies the calibration that the bundle records.

        Args:
            name: a folder, `org/name`, or `hf://org/name[@revision]`.
            revision: branch, tag or commit of the repository.
            device: as in `from_base`.
            dtype: as in `from_base`.

        Raises:
            BundleError, ConfigError, MissingExtraError: as `prefrm.bundle.load_bundle`.
        """
        # A bundle is made of judges; it is imported by those who want one.
        from prefrm.bundle import load_bundle

        if Path(name).is_dir():
            if revision is not None:
                raise ConfigError(f"{name} is a folder, which has no revision {revision!r}; leave it out")
            return load_bundle(name, device, dtype).judge
        repository = HubRepository.parse(name, "model", revision)
        return load_bundle(str(repository), device, dtype).judge

    def push_to_hub(self, name: str, **contents: Any) -> str:
        """Upload the judge as a bundle; returns the `hf://` name of the new commit.

        Args:
            name: `org/name`, or `org/name@branch`.
            contents: what the bundle records, and whether it is private: as in `prefrm.bundle.push_judge`. A
                bundle with everything that it records already is uploaded by `prefrm.bundle.push_bundle`.

        Raises:
            BundleError, MissingExtraError: as `prefrm.bundle.push_judge`.
        """
        from prefrm.bundle import push_judge

        return str(push_judge(self, name, **contents))

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
        """The outcomes of the batch's comparisons, as in `prefrm.judge.heads`: log-odds [N], for example."""
        return self.outcomes(self.read(self.hidden(batch)), batch.pairs_N2)

    def hidden(
        self, batch: JudgeBatch, known: Mapping[ImageInput, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """The last hidden states [R, P, D] of the batch's readouts, after the final norm.

        Args:
            batch: of any groups.
            known: features of images that are encoded already, as `encode` gives them.
        """
        features = dict(known or {})
        features |= self.encode([image for image in batch.distinct_images if image not in features])
        batch = batch.to(self.device)
        embeds_1TD, features_VND, where_1T = self.embed(
            batch.ids_T[None], [features[image] for image in batch.images]
        )
        hidden_1TD = self.decode(
            embeds_1TD, batch.positions_AT[:, None], features_VND, where_1T, segment_attention(batch)
        )
        return hidden_1TD[0, batch.reads_RP]

    def encode(self, images: Sequence[ImageInput], fill: int = 0) -> dict[ImageInput, torch.Tensor]:
        """Run the vision tower once over all of `images`: features [V, T, D] for each.

        Args:
            images: of any shapes.
            fill: number of patches or tiles of padding, which give the pass a fixed size.
        """
        # Of texts without a context there are none.
        return dict(zip(images, self.family.encode(self.model, images, fill), strict=True)) if images else {}

    def embed(
        self, ids_BL: torch.Tensor, features: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings [B, L, D] of rows of tokens, with the features of images in the place of their tokens.

        Args:
            ids_BL: int64; an image's tokens are placeholders.
            features: [V, T, D] of each image, in the order of their tokens.

        Returns:
            The embeddings; the features of all images [V, N, D]; and where they stand, bool [B, L].
        """
        embeds_BLD = self.model.get_input_embeddings()(ids_BL)
        features_VND = torch.cat([*features] or [embeds_BLD[:1, :0]], dim=1).to(embeds_BLD.dtype)
        where_BL = ids_BL == self.processor.layout.image_token_id
        return embeds_BLD.masked_scatter(where_BL[..., None], features_VND[0]), features_VND, where_BL

    def decode(
        self,
        embeds_BLD: torch.Tensor,
        positions_ABL: torch.Tensor,
        features_VND: torch.Tensor,
        where_BL: torch.Tensor,
        attend: Attend,
    ) -> torch.Tensor:
        """The last hidden states [B, L, D], after the final norm, from what `embed` gives.

        `attend` is the attention of every layer.
        """
        return self.family.read(self.model, embeds_BLD, positions_ABL, features_VND, where_BL, attend)

    def read(self, hidden_RPD: torch.Tensor) -> torch.Tensor:
        """Readings [R, ...] of last hidden states: the head's, or log-probabilities of the answers [R, A]."""
        weight_VD = self.model.get_output_embeddings().weight
        layout = self.processor.layout
        if self._reads_labels:
            return label_log_probs(hidden_RPD, weight_VD, layout.labels)
        answers = to_device(layout.answers, hidden_RPD.device)
        return self.head.read(hidden_RPD[:, -1], weight_VD[answers])

    @property
    def _reads_labels(self) -> bool:
        """Whether the readings are log-probabilities among the whole vocabulary, which take longer."""
        if not (labels := self.processor.layout.labels).branches:
            return False
        return not (self.spec.is_pairwise and labels.is_plain) or self.spec.min_label_mass is not None

    def label_mass(self, readings: torch.Tensor, pairs_N2: torch.Tensor) -> torch.Tensor | None:
        """Probability [N] of all answers together, the smaller of two readouts; None if it is not read."""
        if not self._reads_labels:
            return None
        mass_R = readings.logsumexp(dim=-1).exp()
        return mass_R[pairs_N2.to(readings.device)].amin(dim=1)

    def outcomes(self, readings: torch.Tensor, pairs_N2: torch.Tensor) -> torch.Tensor:
        """The outcomes of comparisons between `readings`, as of `forward`; pairs are as in a `JudgeBatch`."""
        first, second = pairs_N2.to(readings.device).chunk(2, dim=1)
        return self.head.compare(*(_of_candidates(readings, places_NQ) for places_NQ in (first, second)))

    def utilities(self, readings: torch.Tensor, pairs_N2: torch.Tensor) -> torch.Tensor:
        """Utilities [N] of the first candidates of comparisons, of a head that has utilities."""
        assert isinstance(self.head, ScalarHead | MlpHead | AnswerHead)
        first, _ = pairs_N2.to(readings.device).chunk(2, dim=1)
        return self.head.utilities(_of_candidates(readings, first))

    def loss(
        self, outcomes: torch.Tensor, p_N: torch.Tensor, weight_N: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss that trains this judge's head, as in `prefrm.judge.losses`."""
        return preference_loss(outcomes, p_N, weight_N)


def _of_candidates(readings: torch.Tensor, places_NQ: torch.Tensor) -> torch.Tensor:
    """Readings of candidates: [N, ...], or [N, Q, ...] of several readouts."""
    return readings[places_NQ[:, 0] if places_NQ.shape[1] == 1 else places_NQ]


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
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def resolve_dtype(dtype: torch.dtype | str, device: torch.device) -> torch.dtype:
    """A floating-point type by its name; "auto" is bfloat16 on an accelerator and float32 on the CPU."""
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    found = dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigError(f"dtype must be auto, float32, bfloat16 or float16; received {dtype!r}")
    return found
