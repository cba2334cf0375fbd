"""What a judge is, in plain data: enough to build one from a base model."""

from dataclasses import dataclass

from prefrm.errors import ConfigError
from prefrm.prompts import FILE, Template, default_template, get_template

__all__ = ["ATTENTIONS", "HEADS", "QUANTIZATIONS", "JudgeSpec"]

ATTENTIONS = {"verdict": ("late", "joint"), "scalar": ("alone",), "embedding": ("alone",)}
"""Of each head; the first is the default."""
HEADS = tuple(ATTENTIONS)
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
        attention: what candidates see of each other; one of `ATTENTIONS` of the head, "" is its default.
            "late" reads a candidate once, sums it up in a short suffix for each slot, and the answer sees two
            suffixes (late interaction, as in ColBERT, arXiv 2004.12832); "joint" lets the second image
            see the first; "alone" is the attention of heads that read one image at a time.
        template: the id of a prompt template, or `file:` and the path of a text file with one
            (`prefrm.prompts.files`), of which a bundle records the text; "" is the default for the attention.
        ties: whether the judge gives a probability that neither is better: from a third answer
            (verdict), or by Bradley-Terry with ties (scalar).
        embedding_dim: even; how many numbers an embedding has.
        min_pixels: an image is enlarged to at least so many pixels; None keeps the base model's own bound.
        max_pixels: an image is reduced to at most so many pixels; None keeps the base model's own bound.
        quantize: how the language model's linear layers are stored, one of `QUANTIZATIONS`; None keeps them
            as they are.
    """

    base_model: str
    revision: str | None = None
    head: str = "verdict"
    attention: str = ""
    template: str = ""
    ties: bool = False
    embedding_dim: int = 8
    min_pixels: int | None = None
    max_pixels: int | None = None
    quantize: str | None = None

    def __post_init__(self) -> None:
        if not self.base_model:
            raise ConfigError("base_model is empty; give a model hub's id, a folder, or shipped:NAME")
        if self.head not in HEADS:
            raise ConfigError(f"head must be one of {', '.join(HEADS)}; received {self.head!r}")
        known = ATTENTIONS[self.head]
        if not self.attention:
            object.__setattr__(self, "attention", known[0])
        if self.attention not in known:
            raise ConfigError(
                f"attention of the {self.head} head must be {' or '.join(known)}; received {self.attention!r}"
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
        # A file may be gone when its judge is loaded from a bundle, which holds the template itself.
        if not self.template.startswith(FILE):
            self.check_template(get_template(self.template))
        for name in ("min_pixels", "max_pixels"):
            if (pixels := getattr(self, name)) is not None and pixels < 1:
                raise ConfigError(f"{name} must be at least 1; received {pixels}")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ConfigError(f"min_pixels ({self.min_pixels}) is larger than max_pixels ({self.max_pixels})")

    @property
    def is_pairwise(self) -> bool:
        """Whether the judge looks at two images at once, and so has a presentation order."""
        return self.head == "verdict"

    @property
    def _asks_ties(self) -> bool:
        return self.ties and self.is_pairwise

    @property
    def _fitting_template(self) -> str:
        return default_template(attention=self.attention, ties=self._asks_ties)

    def check_template(self, template: Template) -> None:
        """Raise `ConfigError` unless a judge of this specification can be asked with `template`."""
        if template.attention != self.attention or template.ties != self._asks_ties:
            fits = template.attention in ATTENTIONS[self.head] and template.ties == self._asks_ties
            advice = f"set attention: {template.attention}, or take" if fits else "take"
            raise ConfigError(
                f"template {template.id!r} is for attention {template.attention!r} and "
                f"{'has an' if template.ties else 'has no'} answer for a tie; the {self.head} head with "
                f"attention={self.attention} and ties={str(self.ties).lower()} needs another; {advice} "
                f"a template such as {self._fitting_template!r}"
            )
