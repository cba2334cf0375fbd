"""What a judge is, in plain data: enough to build one from a base model."""

from dataclasses import dataclass

from prefrm.errors import ConfigError
from prefrm.prompts import DEFAULT_TEMPLATE, get_template

__all__ = ["ATTENTIONS", "HEADS", "QUANTIZATIONS", "JudgeSpec"]

HEADS = ("verdict",)
ATTENTIONS = ("joint",)
QUANTIZATIONS = ("nf4",)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """The choices that make a judge.

    Attributes:
        base_model: a model hub's id, or a folder with a `transformers` checkpoint.
        revision: branch, tag or commit of a hub id; None means the hub's default branch.
        head: how the verdict is read; one of `HEADS`.
        attention: what the candidates see of each other; one of `ATTENTIONS`.
        template: the id of a prompt template.
        min_pixels: an image is enlarged to at least so many pixels; None keeps the base model's own bound.
        max_pixels: an image is reduced to at most so many pixels; None keeps the base model's own bound.
        quantize: how the language model's linear layers are stored, one of `QUANTIZATIONS`; None keeps them
            as they are.
    """

    base_model: str
    revision: str | None = None
    head: str = "verdict"
    attention: str = "joint"
    template: str = DEFAULT_TEMPLATE
    min_pixels: int | None = None
    max_pixels: int | None = None
    quantize: str | None = None

    def __post_init__(self) -> None:
        if not self.base_model:
            raise ConfigError("base_model is empty; give a model hub's id or a folder")
        for name, value, known in (("head", self.head, HEADS), ("attention", self.attention, ATTENTIONS)):
            if value not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}; received {value!r}")
        if self.quantize is not None and self.quantize not in QUANTIZATIONS:
            raise ConfigError(
                f"quantize must be {', '.join(QUANTIZATIONS)} or null; received {self.quantize!r}"
            )
        get_template(self.template)
        for name in ("min_pixels", "max_pixels"):
            if (pixels := getattr(self, name)) is not None and pixels < 1:
                raise ConfigError(f"{name} must be at least 1; received {pixels}")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ConfigError(f"min_pixels ({self.min_pixels}) is larger than max_pixels ({self.max_pixels})")
