"""The local scorer of a dual encoder: K image encodes and one of the prompt for a group of K.

A "fusion" reads the prompt K times instead, each time with an image.

Images go through the cache and the passes of `prefrm.engine.encoder`. On a CPU an image is encoded by itself,
so what else is in a call changes no bit of a group's matrix; elsewhere passes hold `PASS_IMAGES`.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any, Unpack

import torch

from prefrm.bundle import load_dual_bundle
from prefrm.chunks import runs_within
from prefrm.differentiable import DifferentiableScorer
from prefrm.engine.cache import DEFAULT_CACHE_BYTES, EncodedContent, FeatureCache
from prefrm.engine.cost import PIXELS_PER_TOKEN, PROMPT_BYTES
from prefrm.engine.encoder import Encoder, PreparedContent
from prefrm.engine.gradient import LockedGradient
from prefrm.engine.options import DualOptions
from prefrm.engine.pass_sizes import is_out_of_memory
from prefrm.engine.plan import GroupPlan, Key, plan_group
from prefrm.engine.refcounted import RefCounted
from prefrm.errors import MediaError, OutOfMemoryError, RecordError
from prefrm.judge import Content, Decoded, ImageInput
from prefrm.judge.dual import DifferentiableDual, DualJudge
from prefrm.judge.dual.pictures import prepare_image
from prefrm.media import DEFAULT_LIMITS, ImageLimits, decode, probe
from prefrm.protocol import judge_identity
from prefrm.winmatrix import CalibrationMap, Group, Inputs, WinMatrix, check_groups, score_readable

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
        on_pass, pixels_per_token, prepared_bytes, call_cost: as of `prefrm.engine.Engine`.
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
        self.call_cost = self._tokens * (at_once if on_cpu else TOGETHER)
        self._limits = limits
        tower = DualTower(judge, limits)
        self._encode = Encoder(tower, self.cache, at_once, deterministic or on_cpu, self._before_pass)
        self._lock = RLock()

    @classmethod
    def from_bundle(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "auto",
        dtype: torch.dtype | str = "auto",
        calibrated: bool = True,
        **options: Unpack[DualOptions],
    ) -> "DualEngine":
        """The engine of a bundle, with the calibration that its manifest records, if any.

        Arguments are as of `prefrm.engine.Engine.from_bundle`, with the options of this class.

        Raises:
            BundleError, ConfigError: as `prefrm.bundle.load_dual_bundle`.
        """
        bundle = load_dual_bundle(path, device, dtype)
        recorded = bundle.manifest.calibration if calibrated else None
        calibration = None if recorded is None else recorded.map
        return cls(bundle.judge, calibration=calibration, digest=bundle.manifest.digest, **options)

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

    def prepare(self, image: bytes) -> PreparedContent:
        """Decode and resize an image ahead of `score`, as `prefrm.engine.Engine.prepare`."""
        return self._encode.prepare(image)

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order.

        A candidate that is missing, unreadable or without a finite utility costs its own pairs, a prompt that
        cannot be read those of its group, as do other candidates than images, a context and a criterion;
        `WinMatrix.errors` says why.

        Raises:
            OutOfMemoryError: the device ran out of memory; fewer groups may fit.
            RecordError: the argument is not a list of groups.
        """
        found = check_groups(groups)
        return score_readable(found, list(map(self.inputs().refusal, found)), self._score_readable)

    def _score_readable(self, groups: Sequence[Group]) -> list[WinMatrix]:
        plans = list(map(plan_group, groups))
        images: RefCounted[EncodedContent] = RefCounted(key for plan in plans for key in plan.candidates)
        matrices: list[WinMatrix] = []
        try:
            with self._lock, torch.inference_mode():
                for run in runs_within([(plan, len(plan.candidates)) for plan in plans], TOGETHER):
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

    def _score(self, plans: Sequence[GroupPlan], images: RefCounted[EncodedContent]) -> list[WinMatrix]:
        found, unread = self._encode({key: x for plan in plans for key, x in plan.candidates.items()}, images)
        matrices = []
        for plan in plans:
            readable = {key: found[key] for key in plan.candidates if key in found}
            for key, encoded in readable.items():
                images.use(key, encoded)
            reasons = {key: unread[key] for key in plan.candidates if key in unread}
            utilities: dict[Key, float] = {}
            try:
                utilities = self._utilities(plan.prompt, readable)
            except RecordError as error:
                reasons |= dict.fromkeys(readable, str(error))
            matrices.append(self._matrix(plan, utilities, reasons))
        return matrices

    def _utilities(self, prompt: str, images: Mapping[Key, EncodedContent]) -> dict[Key, float]:
        """In the order of the images' digests, whatever that of the candidates is."""
        if not images:
            return {}
        self._before_pass()
        text = self.judge.encode_text(prompt)
        features = torch.stack([x for image in images.values() for x in image.features.values()])
        parts = [self.judge.utilities(part, text) for part in features.split(PASS_IMAGES)]
        return dict(zip(images, torch.cat(parts).tolist(), strict=True))

    def _matrix(
        self, plan: GroupPlan, utilities: Mapping[Key, float], reasons: Mapping[Key, str]
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

    def __init__(self, judge: DualJudge, limits: ImageLimits) -> None:
        self._judge = judge
        self._limits = limits

    @property
    def device(self) -> torch.device:
        """Of the judge."""
        return self._judge.device

    def decode(self, data: bytes | str, kind: str) -> Decoded:
        """The square of pixels, of which there is one unit. Raises `MediaError`."""
        if not isinstance(data, bytes) or kind != "image":
            raise MediaError(f"this judge reads no {kind}")
        pixels = prepare_image(decode(data, self._limits), self._judge.spec.image)
        return (ImageInput(pixels=pixels[None], grid=(), ids=[]),)

    def prepare(self, decoded: Decoded) -> Content:
        """What was decoded."""
        assert isinstance(decoded, tuple)
        return decoded

    def encode(self, images: Sequence[ImageInput], fill: int) -> Mapping[ImageInput, torch.Tensor]:
        """As in the protocol; padding is black."""
        pixels = torch.cat([image.pixels for image in images])
        if fill:
            pixels = torch.cat([pixels, pixels.new_zeros(fill, *pixels.shape[1:])])
        return dict(zip(images, self._judge.encode_images(pixels)[: len(images)], strict=True))


def _patch(judge: DualJudge) -> int:
    config: Any = getattr(judge.model.config, "vision_config", judge.model.config)
    return int(config.patch_size)
