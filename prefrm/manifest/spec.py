"""What a judge is, in plain data: enough to build one from a base model."""

import math
from dataclasses import dataclass
from typing import get_args

from prefrm.errors import ConfigError
from prefrm.prompts import Template, default_template, get_template, is_builtin
from prefrm.winmatrix import Inputs, Kind

__all__ = ["ATTENTIONS", "HEADS", "KINDS", "POSITIONS", "QUANTIZATIONS", "UNCERTAINTIES", "JudgeSpec"]

ATTENTIONS = {"verdict": ("late", "joint"), "scalar": ("alone",), "embedding": ("alone",)}
"""Of each head; the first is the default."""
HEADS = tuple(ATTENTIONS)
KINDS: tuple[Kind, ...] = get_args(Kind)
POSITIONS = ("family", "sequential")
QUANTIZATIONS = ("nf4",)
UNCERTAINTIES = ("ignore", "integrate")
MOST_LAYERS = 8
MOST_READOUTS = 16
FRAMES = 8
"""Of a video, by default."""
MOST_FRAMES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """The choices that make a judge.

    Attributes:
        base_model: a model hub's id, a folder with a `transformers` checkpoint, or `shipped:` and the name of
            a checkpoint that an installed package ships, such as `shipped:shapes-captioner`.
        revision: branch, tag or commit of a hub id; None means the hub's default branch.
        kind: of the candidates that the judge compares, one of `KINDS`: encoded images, encoded videos, or
            texts. The context of a group is images for every kind.
        frames: number of frames of a video that are read, evenly spaced, `MOST_FRAMES` at most; with
            `frame_rate` the upper bound. None is `FRAMES` of kind video, and `MOST_FRAMES` with `frame_rate`.
        frame_rate: frames a second of a video that are read; None reads `frames` of every video.
        head: what is read off the model; one of `HEADS`. "verdict" looks at two candidates and answers which
            is better; "scalar" gives each a utility (Bradley-Terry); "embedding" gives each a
            vector (general preference model), which can say that A beats B, B beats C and C beats A.
        attention: what candidates see of each other; one of `ATTENTIONS` of the head, "" is its default.
            "late" reads a candidate once, sums it up in a short suffix for each slot, and the answer sees two
            suffixes (late interaction, as in ColBERT, arXiv 2004.12832); "joint" lets the second image
            see the first; "alone" is the attention of heads that read one image at a time.
        template: the id of a prompt template, `file:` and the path of a text file with one, or the text of
            such a file itself (`prefrm.prompts.files`); a bundle records the text. "" is the default for the
            attention and the kind.
        ties: whether the judge gives a probability that neither is better: from a third answer
            (verdict), or by Bradley-Terry with ties (scalar).
        embedding_dim: even; how many numbers an embedding has.
        normalize: whether embeddings are scaled to unit length before they are compared.
        mlp: widths of the hidden layers of a scalar head, `MOST_LAYERS` at most, with ReLU between them; ()
            is linear.
        uncertainty: whether a scalar head with `mlp` also gives each utility a standard deviation, as HPSv3's
            (arXiv 2508.03789): None, it does not; "ignore", it does, and the means alone are compared and
            trained; "integrate", log-odds and the training loss are expectations over both utilities.
        readouts: control tokens of the template at which a scalar or an embedding head reads, `MOST_READOUTS`
            at most; () is the last position. A token that the base model lacks is added to it. With several,
            a candidate's utility is the sum of one for each, by weights of its own.
        positions: how tokens are counted for the rotary embedding, one of `POSITIONS`: "family" as the base
            model does it, which is M-RoPE of Qwen's; "sequential" counts the tokens of images as those of
            text.
        min_label_mass: in [0, 1]; a pair is not judged where, in one reading of it, the answers of the
            template have less probability than this together, among all that the model might say. None sets
            no bound, and the probability is then read only where answers have several tokens or spellings.
        min_pixels: an image is enlarged to at least so many pixels; None keeps the base model's own bound.
        max_pixels: an image is reduced to at most so many pixels; None keeps the base model's own bound.
        quantize: how the language model's linear layers are stored, one of `QUANTIZATIONS`; None keeps them
            as they are.
    """

    base_model: str
    revision: str | None = None
    kind: Kind = "image"
    frames: int | None = None
    frame_rate: float | None = None
    head: str = "verdict"
    attention: str = ""
    template: str = ""
    ties: bool = False
    embedding_dim: int = 8
    normalize: bool = True
    mlp: tuple[int, ...] = ()
    uncertainty: str | None = None
    readouts: tuple[str, ...] = ()
    positions: str = "family"
    min_label_mass: float | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    quantize: str | None = None

    def __post_init__(self) -> None:
        if not self.base_model:
            raise ConfigError("base_model is empty; give a model hub's id, a folder, or shipped:NAME")
        self._check_kind()
        if self.head not in HEADS:
            raise ConfigError(f"head must be one of {', '.join(HEADS)}; received {self.head!r}")
        known = ATTENTIONS[self.head]
        if not self.attention:
            object.__setattr__(self, "attention", known[0])
        if self.attention not in known:
            raise ConfigError(
                f"attention of the {self.head} head must be {' or '.join(known)}; received {self.attention!r}"
            )
        self._check_head()
        if not self.template:
            object.__setattr__(self, "template", self._fitting_template)
        if self.positions not in POSITIONS:
            raise ConfigError(f"positions must be {' or '.join(POSITIONS)}; received {self.positions!r}")
        if self.min_label_mass is not None and not 0 <= self.min_label_mass <= 1:
            raise ConfigError(f"min_label_mass must be in [0, 1]; received {self.min_label_mass}")
        if self.quantize is not None and self.quantize not in QUANTIZATIONS:
            raise ConfigError(
                f"quantize must be {', '.join(QUANTIZATIONS)} or null; received {self.quantize!r}"
            )
        # A file may be gone when its judge is loaded from a bundle, which holds the template itself.
        if is_builtin(self.template):
            template = get_template(self.template, self.kind)
            self.check_template(template)
            self._check_noun(template)
        for name in ("min_pixels", "max_pixels"):
            if (pixels := getattr(self, name)) is not None and pixels < 1:
                raise ConfigError(f"{name} must be at least 1; received {pixels}")
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            raise ConfigError(f"min_pixels ({self.min_pixels}) is larger than max_pixels ({self.max_pixels})")

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind must be one of {', '.join(KINDS)}; received {self.kind!r}")
        if self.kind != "video":
            for name in ("frames", "frame_rate"):
                if (value := getattr(self, name)) is not None:
                    raise ConfigError(f"{name} is of kind video; received {value} and kind {self.kind!r}")
            return
        if self.frames is None:
            object.__setattr__(self, "frames", FRAMES if self.frame_rate is None else MOST_FRAMES)
        if not 1 <= (self.frames or 0) <= MOST_FRAMES:
            raise ConfigError(f"frames must be in [1, {MOST_FRAMES}]; received {self.frames}")
        if self.frame_rate is not None and not 0 < self.frame_rate < math.inf:
            raise ConfigError(f"frame_rate must be positive and finite; received {self.frame_rate}")

    def _check_head(self) -> None:
        if self.ties and self.head == "embedding":
            raise ConfigError("ties needs the verdict or the scalar head; the embedding head has no ties")
        if self.embedding_dim < 2 or self.embedding_dim % 2:
            raise ConfigError(f"embedding_dim must be even and at least 2; received {self.embedding_dim}")
        if not self.normalize and self.head != "embedding":
            raise ConfigError(f"normalize is of the embedding head; received head {self.head!r}")
        if self.mlp and (self.head != "scalar" or min(self.mlp) < 1):
            raise ConfigError(
                f"mlp is a list of positive widths of the scalar head; received {list(self.mlp)} of the "
                f"{self.head} head"
            )
        if len(self.mlp) > MOST_LAYERS:
            raise ConfigError(f"mlp has {MOST_LAYERS} hidden layers at most; received {len(self.mlp)}")
        if self.uncertainty is not None and self.uncertainty not in UNCERTAINTIES:
            raise ConfigError(
                f"uncertainty must be {', '.join(UNCERTAINTIES)} or null; received {self.uncertainty!r}"
            )
        if self.uncertainty is not None and (not self.mlp or self.ties):
            raise ConfigError("uncertainty needs a scalar head with mlp and without ties")
        self._check_readouts()

    def _check_readouts(self) -> None:
        if self.readouts and self.is_pairwise:
            raise ConfigError("readouts are of the scalar and the embedding head; a verdict is read last")
        if len(self.readouts) > MOST_READOUTS:
            raise ConfigError(f"there are {MOST_READOUTS} readouts at most; received {len(self.readouts)}")
        if "" in self.readouts or len(set(self.readouts)) < len(self.readouts):
            raise ConfigError(f"readouts must be different tokens; received {list(self.readouts)}")
        if len(self.readouts) > 1 and self.head != "scalar":
            raise ConfigError(f"several readouts need the scalar head; received {list(self.readouts)}")

    def _check_answers(self, template: Template) -> None:
        if self.min_label_mass is not None and not template.answers:
            raise ConfigError(f"min_label_mass needs answers, which template {template.id!r} has not")
        has_weights = self.head == "embedding" or self.mlp or self.readouts
        if template.attention == "alone" and template.answers and has_weights:
            raise ConfigError(
                f"template {template.id!r} has answers to read a utility from; take head: scalar without mlp "
                "and readouts, or leave the answers out"
            )

    @property
    def is_pairwise(self) -> bool:
        """Whether the judge looks at two candidates at once, and so has a presentation order."""
        return self.head == "verdict"

    @property
    def _asks_ties(self) -> bool:
        return self.ties and self.is_pairwise

    @property
    def _fitting_template(self) -> str:
        return default_template(attention=self.attention, ties=self._asks_ties, kind=self.kind)

    def inputs(self, template: Template) -> Inputs:
        """What a judge of this specification reads of a group, asked with `template`."""
        return Inputs(
            kinds=(self.kind,),
            context=template.has_context,
            criterion=template.has_criterion,
            needs_context=template.needs_context,
            needs_criterion=template.needs_criterion,
        )

    def improbable(self, label_mass: float | None) -> str:
        """Why a reading counts for nothing whose answers have that probability together; "" if it counts."""
        least = self.min_label_mass
        if least is None or label_mass is None or not label_mass < least:
            return ""
        return (
            f"the answers have a probability of {label_mass:.3g} together, less than min_label_mass={least:g}"
            "; use the wording that the judge was trained with"
        )

    def _check_noun(self, template: Template) -> None:
        if self.kind != "image" and "image" in template.turn.lower():
            raise ConfigError(
                f"template {template.id!r} asks about images and the judge compares {self.kind}s; take a "
                f"template such as {self._fitting_template!r}"
            )

    def check_template(self, template: Template) -> None:
        """Raise `ConfigError` unless a judge of this specification can be asked with `template`."""
        self._check_answers(template)
        if template.attention != self.attention or template.ties != self._asks_ties:
            fits = template.attention in ATTENTIONS[self.head] and template.ties == self._asks_ties
            advice = f"set attention: {template.attention}, or take" if fits else "take"
            raise ConfigError(
                f"template {template.id!r} is for attention {template.attention!r} and "
                f"{'has an' if template.ties else 'has no'} answer for a tie; the {self.head} head with "
                f"attention={self.attention} and ties={str(self.ties).lower()} needs another; {advice} "
                f"a template such as {self._fitting_template!r}"
            )
