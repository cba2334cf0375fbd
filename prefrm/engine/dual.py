"""The local scorer of a dual encoder: K image encodes and one of the prompt for a group of K.

A "fusion" reads the prompt K times instead, each time with an image.

Images go through the cache and the passes of `prefrm.engine.encoder`. On a CPU an image is encoded by itself,
so what else is in a call changes no bit of a group's matrix; elsewhere passes hold `PASS_IMAGES`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from PIL import Image

from prefrm.bundle import load_dual_bundle
from prefrm.differentiable import DifferentiableScorer
from prefrm.engine.cache import DEFAULT_CACHE_BYTES, EncodedImage, FeatureCache
from prefrm.engine.cost import PIXELS_PER_TOKEN, PROMPT_BYTES
from prefrm.engine.encoder import Encoder, PreparedImage
from prefrm.engine.gradient import LockedGradient
from prefrm.engine.pass_sizes import is_out_of_memory
from prefrm.engine.plan import GroupPlan, plan_group, runs_within
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import MediaError, OutOfMemoryError, RecordError
from prefrm.judge import ImageInput
from prefrm.judge.dual import DifferentiableDual, DualJudge
from prefrm.judge.dual.pictures import prepare_image
from prefrm.media import DEFAULT_LIMITS, ImageLimits, probe
from prefrm.protocol import judge_identity
from prefrm.winmatrix import CalibrationMap, Group, Inputs, WinMatrix, check_groups

__all__ = ["DualEngine", "DualTower"]

PASS_IMAGES = 32
"""Images of a pass on an accelerator, and images that a text encoder attends to at once."""
TOGETHER = 256
"""Images of groups that are encoded before any of these groups is finished."""


class DualEngine:
    """Scores groups with a dual encoder on this machine; satisfies `prefrm.winmatrix.Scorer`.

    Args:
        judge: in evaluation mode, or it is put there.
        calibration: of the differences of utilities; None leaves them as they are.
        cache_bytes: size of the LRU cache of image features, in bytes.
        images: how many images are encoded at once; None is a number for the device.
        deterministic: whether passes are filled up to `images`, so that what else is in one changes no bit of
            a matrix. On a CPU, where a pass has one image, they always are.
        limits: what an encoded image may be.
        digest: of the bundle that the judge comes from; "" if there is none.

    The judge must not change while an engine has it: image features are kept.

    Attributes:
        pass_sizes: how many images are encoded at once, as a text.
        on_pass, pixels_per_token, prepared_bytes: as of `prefrm.engine.Engine`.
    """

    def __init__(
        self,
        judge: DualJudge,
        *,
        calibration: CalibrationMap | None = None,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        images: int | None = None,
        deterministic: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
        digest: str = "",
    ) -> None:
        self.judge = judge.eval()
        self.calibration = calibration
        self.digest = digest
        self.cache = FeatureCache(cache_bytes)
        self.on_pass: Callable[[], None] | None = None
        self.pixels_per_token = PIXELS_PER_TOKEN
        on_cpu = judge.device.type == "cpu"
        at_once = images or (1 if on_cpu else PASS_IMAGES)
        self.pass_sizes = "one image" if at_once == 1 else f"{at_once} images"
        side = judge.spec.image.side
        self.prepared_bytes = 3 * side * side * torch.float32.itemsize
        self._tokens = (side // _patch(judge)) ** 2
        self._limits = limits
        self._encode = Encoder(
            DualTower(judge), self.cache, at_once, deterministic or on_cpu, limits, self._before_pass
        )
        self._lock = RLock()

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        deterministic: bool = False,
        limits: ImageLimits = DEFAULT_LIMITS,
        calibrated: bool = True,
    ) -> "DualEngine":
        """The engine of a bundle, with the calibration that its manifest records, if any.

        Args:
            path: a folder, or `hf://org/name[@revision]`; other arguments are as in the class and in
                `Judge.from_base`.
            calibrated: False leaves the log-odds as the judge gives them.

        Raises:
            BundleError, ConfigError: as `prefrm.bundle.load_dual_bundle`.
        """
        bundle = load_dual_bundle(path, device, dtype)
        recorded = bundle.manifest.calibration if calibrated else None
        return cls(
            bundle.judge,
            calibration=None if recorded is None else recorded.map,
            cache_bytes=cache_bytes,
            deterministic=deterministic,
            limits=limits,
            digest=bundle.manifest.digest,
        )

    def identity(self) -> str:
        """The digest of the judge's bundle."""
        return judge_identity(self.digest)

    def inputs(self) -> Inputs:
        """Images alone."""
        return Inputs()

    def cost(self, group: Group) -> int:
        """Image and text tokens that are encoded, at least 1, and the time of decoding in the same unit."""
        infos = [info for image in group.encoded if image and (info := self._pixels(image)) is not None]
        decoding = sum(infos) // PIXELS_PER_TOKEN
        text = self.judge.spec.text
        prompt = 0 if text is None else min(text.tokens, group.text_bytes // PROMPT_BYTES)
        # A text encoder that attends to images reads the prompt once for each.
        prompts = len(infos) if self.judge.spec.score == "fusion" else 1
        return max(1, len(infos) * self._tokens + prompts * prompt + decoding)

    def prepare(self, image: bytes) -> PreparedImage:
        """Decode and resize an image ahead of `score`, as `prefrm.engine.Engine.prepare`."""
        return self._encode.prepare(image)

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order.

        A candidate that is missing, unreadable or without a finite utility costs its own pairs, a prompt that
        cannot be read those of its group; `WinMatrix.errors` says why.

        Raises:
            OutOfMemoryError: the device ran out of memory; fewer groups may fit.
            RecordError: the argument is not a list of groups.
        """
        found = check_groups(groups, replace(self.inputs(), context=True))
        planned = [(group.prompt, plan_group(group)) for group in found]
        images: RefCounted[EncodedImage] = RefCounted(key for _, plan in planned for key in plan.images)
        matrices: list[WinMatrix] = []
        try:
            with self._lock, torch.inference_mode():
                for run in runs_within([(one, len(one[1].images)) for one in planned], TOGETHER):
                    matrices += self._score(run, images)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(f"the device ran out of memory with {self.pass_sizes} at once") from error
        return matrices

    def differentiable(self, *, batch: int = 4) -> DifferentiableScorer:
        """The gradient of this judge's utilities in pixels, with its calibration; it shares the weights.

        Either waits while the other works. `batch` and the errors of a call are as in
        `prefrm.judge.dual.DifferentiableDual`, and `OutOfMemoryError` as in `score`.
        """
        scorer = DifferentiableDual(self.judge, calibration=self.calibration, batch=batch)
        return LockedGradient(scorer, self._lock, batch)

    def _before_pass(self) -> None:
        if self.on_pass is not None:
            self.on_pass()

    def _pixels(self, image: bytes) -> int | None:
        try:
            return probe(image, self._limits).decoded_pixels
        except MediaError:
            return None

    def _score(
        self, planned: Sequence[tuple[str, GroupPlan]], images: RefCounted[EncodedImage]
    ) -> list[WinMatrix]:
        distinct = {key: data for _, plan in planned for key, data in plan.images.items()}
        found, unread = self._encode(distinct, images)
        matrices = []
        for prompt, plan in planned:
            readable = {key: found[key] for key in plan.images if key in found}
            for key, encoded in readable.items():
                images.use(key, encoded)
            reasons = {key: unread[key] for key in plan.images if key in unread}
            utilities: dict[str, float] = {}
            try:
                if plan.context:
                    raise RecordError("this judge reads no context images; leave them out")
                utilities = self._utilities(prompt, readable)
            except RecordError as error:
                reasons |= dict.fromkeys(readable, str(error))
            matrices.append(self._matrix(plan, utilities, reasons))
        return matrices

    def _utilities(self, prompt: str, images: Mapping[str, EncodedImage]) -> dict[str, float]:
        """By the digests of images; in the order of these, whatever that of the candidates is."""
        if not images:
            return {}
        self._before_pass()
        text = self.judge.encode_text(prompt)
        features = torch.stack([image.features for image in images.values()])
        parts = [self.judge.utilities(part, text) for part in features.split(PASS_IMAGES)]
        return dict(zip(images, torch.cat(parts).tolist(), strict=True))

    def _matrix(
        self, plan: GroupPlan, utilities: Mapping[str, float], reasons: Mapping[str, str]
    ) -> WinMatrix:
        broken = {key: f"its utility is {u}" for key, u in utilities.items() if not math.isfinite(u)}
        reasons = {**reasons, **broken}
        pairs = plan.pairs([key for key in utilities if key not in broken])
        return WinMatrix.from_order_logits(
            plan.spread({(a, b): utilities[a] - utilities[b] for a, b in pairs}),
            errors=[
                "the candidate is missing" if key is None else reasons.get(key, "") for key in plan.places
            ],
            order_free=True,
            calibration=self.calibration,
        )


class DualTower:
    """The image encoder of a dual encoder, as a `prefrm.engine.encoder.ImageTower`."""

    unit_patches = 1

    def __init__(self, judge: DualJudge) -> None:
        self._judge = judge

    @property
    def device(self) -> torch.device:
        """Of the judge."""
        return self._judge.device

    def prepare_image(self, image: Image.Image) -> ImageInput:
        """One unit: the square of pixels."""
        return ImageInput(pixels=prepare_image(image, self._judge.spec.image)[None], grid=(), ids=[])

    def shrink(self, image: Image.Image) -> Image.Image | None:
        """None: the square is small."""
        return None

    def encode(self, images: Sequence[ImageInput], fill: int) -> Mapping[ImageInput, torch.Tensor]:
        """As in the protocol; padding is black."""
        pixels = torch.cat([image.pixels for image in images])
        if fill:
            pixels = torch.cat([pixels, pixels.new_zeros(fill, *pixels.shape[1:])])
        return dict(zip(images, self._judge.encode_images(pixels)[: len(images)], strict=True))


def _patch(judge: DualJudge) -> int:
    config: Any = getattr(judge.model.config, "vision_config", judge.model.config)
    return int(config.patch_size)
