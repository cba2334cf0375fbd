"""What a judge is, in plain data: enough to build one from a base model."""

import math
from dataclasses import dataclass

from prefrm.errors import ConfigError
from prefrm.prompts import Template, default_template, get_template

__all__ = ["ATTENTIONS", "HEADS", "QUANTIZATIONS", "JudgeSpec"]

HEADS = ("verdict", "scalar", "embedding")
ATTENTIONS = ("joint", "isolated")
QUANTIZATIONS = ("nf4",)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """The choices that make a judge.

    Attributes:
        base_model: a model hub's id, a folder with a `transformers` checkpoint, or `shipped:` and the name of
            a checkpoint that an installed package ships, such as `shipped:shapes-captioner`.
        revision: branch, tag or commit of a hub id; None means the hub's default branch.
        head: what is read off the model; one of `HEADS`. "verdict" looks at two images and answers which
            is better; "scalar" gives each image a utility (Bradley-Terry); "embedding" gives each a
            vector (general preference model), which can say that A beats B, B beats C and C beats A.
        attention: what the two images of a verdict see of each other; one of `ATTENTIONS`. "joint" lets
            the second see the first; "isolated" lets neither see the other, so that each is read once.
        template: the id of a prompt template; "" is the default for the head.
        ties: whether the judge gives a probability that neither is better: from a third answer
            (verdict), or by Bradley-Terry with ties (scalar).
        embedding_dim: even; how many numbers an embedding has.
        min_pixels: an image is enlarged to at least so many pixels; None keeps the base model's own bound.
        max_pixels: an image is reduced to at most so many pixels; None keeps the base model's own bound.
        max_aspect_ratio: at least 1; of the isolated attention and models that keep an image's shape, the
            most extreme ratio of an image's sides that fits into a slot: 1 for square images alone. Slots
            stand as far apart as that takes; the closer, the faster a small model learns to compare them.
        quantize: how the language model's linear layers are stored, one of `QUANTIZATIONS`; None keeps them
            as they are.
    """

    base_model: str
    revision: str | None = None
    head: str = "verdict"
    attention: str = "joint"
    template: str = ""
    ties: bool = False
    embedding_dim: int = 8
    min_pixels: int | None = None
    max_pixels: int | None = None
    max_aspect_ratio: float = 4.0
    quantize: str | None = None

    def __post_init__(self) -> None:
        if not self.base_model:
            raise ConfigError("base_model is empty; give a model hub's id, a folder, or shipped:NAME")
        for name, value, known in (("head", self.head, HEADS), ("attention", self.attention, ATTENTIONS)):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}; received {value!r}")
        if self.attention == "isolated" and not self.is_pairwise:
            raise ConfigError(
                f"attention is what the two images of a verdict see of each other, and the {self.head} head "
                "reads one image at a time; leave attention out"
            )
        if self.ties and self.head == "embedding":
            raise ConfigError("ties needs the verdict or the scalar head; the embedding head has no ties")
        if self.embedding_dim < 2 or self.embedding_dim % 2:
            raise ConfigError(f"embedding_dim must be even and at least 2; received {self.embedding_dim}")
        if not self.template:
            object.__setattr__(self, "template", self._fitting_template)
        if self.quantize is not None and self.quantize not in QUANTIZATIONS:
            raise ConfigError(
                f"quantize must be {', '.join(QUANTIZATIONS)} or null; received {self.quantize!r}"
            )
        self.check_template(get_template(self.template))
        for name in ("min_pixels", "max_pixels"):
            if (pixels := getattr(self, name)) is not None and pixels < 1:
                raise ConfigError(f"{name} must be at least 1; received {pixels}")
        if not 1 <= self.max_aspect_ratio < math.inf:
            raise ConfigError(f"max_aspect_ratio must be at least 1; received {self.max_aspect_ratio}")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ConfigError(f"min_pixels ({self.min_pixels}) is larger than max_pixels ({self.max_pixels})")

    @property
    def is_pairwise(self) -> bool:
        """Whether the judge looks at two images at once, and so has a presentation order."""
        return self.head == "verdict"

    @property
    def reads_groups(self) -> bool:
        """Whether all comparisons of a group are read at the cost of its images, not of its pairs."""
        return not self.is_pairwise or self.attention == "isolated"

    @property
    def images_shown(self) -> int:
        """How many images the judge looks at at once: 2 or 1."""
        return 2 if self.is_pairwise else 1

    @property
    def _asks_ties(self) -> bool:
        return self.ties and self.is_pairwise

    @property
    def _fitting_template(self) -> str:
        return default_template(images=self.images_shown, ties=self._asks_ties)

    def check_template(self, template: Template) -> None:
        """Raise `ConfigError` unless a judge of this specification can be asked with `template`."""
        if template.images != self.images_shown or template.ties != self._asks_ties:
            raise ConfigError(
                f"template {template.id!r} shows {template.images} image(s) and "
                f"{'has an' if template.ties else 'has no'} answer for a tie; the {self.head} head with "
                f"ties={str(self.ties).lower()} needs another, such as {self._fitting_template!r}"
            )
