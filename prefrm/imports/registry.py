"""The published judges that can be imported, as data. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from prefrm.errors import ConfigError
from prefrm.eval import PUBLISHED as ACCURACIES

__all__ = ["PUBLISHED", "PublishedJudge", "find_published"]

CONFIGURATION = ("*.json", "*.txt", "*.jinja", "*.model")
"""Configurations, tokenizer and chat template of a repository."""
SAFETENSORS = ("*.safetensors", *CONFIGURATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedJudge:
    """A judge that others published, and how it is imported.

    Attributes:
        name: of the command line.
        title: as its authors call it.
        kind: how it is used here: "dual encoder", "scalar judge", ...
        source: where its weights are published, `hf://org/name` or a URL that a person downloads.
        licence: of the weights, as far as it is known.
        paper: its address.
        builder: `module:function`, called with an `ImportRequest`; returns an `Imported`.
        files: patterns of the files that are downloaded from a repository.
        base: the checkpoint for what the source lacks, such as the tokenizer; None if it lacks nothing.
        takes_template: whether a file with the wording of the prompt is needed (`--template`).
        is_log_odds: whether its training loss makes differences of its utilities log-odds, so that its
            probabilities mean something before a calibration.
        exactness: how it is shown that the import is exact.
        column: its name among the judges of `prefrm.eval.PUBLISHED`; "" if it is not there.
        accuracies: published ones that are not there, by dataset: percent of pairs on which it agrees with
            people.
    """

    name: str
    title: str
    kind: str
    source: str
    licence: str
    paper: str
    builder: str
    files: tuple[str, ...] = SAFETENSORS
    base: str | None = None
    takes_template: bool = False
    is_log_odds: bool
    exactness: str
    column: str = ""
    accuracies: Mapping[str, float] = field(default_factory=dict)

    @property
    def published(self) -> dict[str, float]:
        """All published accuracies in percent: those of `prefrm.eval.PUBLISHED` by its names, and others."""
        known = {
            name: 100 * definition.judges[self.column]
            for name, definition in ACCURACIES.items()
            if self.column in definition.judges
        }
        return {**known, **self.accuracies}


CLIP_H = "hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
CLIP_L = "hf://openai/clip-vit-large-patch14"
AGAINST_TRANSFORMERS = "equal to `transformers` on a tiny random checkpoint, 1e-6"
AGAINST_REFERENCE = "equal to a reference written from its description on a tiny random checkpoint, 1e-6"

_DUAL = (
    PublishedJudge(
        name="pickscore",
        title="PickScore v1",
        kind="dual encoder",
        source="hf://yuvalkirstain/PickScore_v1",
        licence="MIT (code; the model card names none)",
        paper="https://arxiv.org/abs/2305.01569",
        builder="prefrm.imports.dual:build_pickscore",
        base=CLIP_H,
        is_log_odds=True,
        exactness=AGAINST_TRANSFORMERS,
        column="PickScore",
    ),
    PublishedJudge(
        name="hpsv2",
        title="HPSv2",
        kind="dual encoder",
        source="hf://xswu/HPSv2",
        licence="Apache-2.0",
        paper="https://arxiv.org/abs/2306.09341",
        builder="prefrm.imports.hpsv2:build_hpsv2",
        files=("HPS_v2_compressed.pt",),
        base=CLIP_H,
        is_log_odds=True,
        exactness=AGAINST_REFERENCE,
        column="HPSv2",
    ),
    PublishedJudge(
        name="hpsv2.1",
        title="HPSv2.1",
        kind="dual encoder",
        source="hf://xswu/HPSv2",
        licence="Apache-2.0",
        paper="https://arxiv.org/abs/2306.09341",
        builder="prefrm.imports.hpsv2:build_hpsv2",
        files=("HPS_v2.1_compressed.pt",),
        base=CLIP_H,
        is_log_odds=True,
        exactness=AGAINST_REFERENCE,
        column="HPSv2.1",
    ),
    PublishedJudge(
        name="clipscore",
        title="CLIPScore (CLIP ViT-L/14)",
        kind="dual encoder",
        source=CLIP_L,
        licence="MIT",
        paper="https://arxiv.org/abs/2104.08718",
        builder="prefrm.imports.dual:build_clipscore",
        is_log_odds=False,
        exactness=AGAINST_TRANSFORMERS,
        column="CLIPScore",
    ),
    PublishedJudge(
        name="siglip",
        title="SigLIP so400m (also SigLIP 2 of one resolution)",
        kind="dual encoder",
        source="hf://google/siglip-so400m-patch14-384",
        licence="Apache-2.0",
        paper="https://arxiv.org/abs/2303.15343",
        builder="prefrm.imports.dual:build_siglip",
        is_log_odds=False,
        exactness=AGAINST_TRANSFORMERS,
    ),
    PublishedJudge(
        name="aesthetic",
        title="LAION aesthetic predictor V2",
        kind="dual encoder (reads no prompt)",
        source="https://github.com/christophschuhmann/improved-aesthetic-predictor",
        licence="Apache-2.0 (predictor, not checked); MIT (CLIP)",
        paper="https://laion.ai/blog/laion-aesthetics/",
        builder="prefrm.imports.dual:build_aesthetic",
        base=CLIP_L,
        is_log_odds=False,
        exactness=AGAINST_REFERENCE,
        column="Aesthetic Score",
    ),
    PublishedJudge(
        name="imagereward",
        title="ImageReward v1.0",
        kind="dual encoder",
        source="hf://THUDM/ImageReward",
        licence="Apache-2.0",
        paper="https://arxiv.org/abs/2304.05977",
        builder="prefrm.imports.imagereward:build_imagereward",
        files=("ImageReward.pt",),
        base="hf://google-bert/bert-base-uncased",
        is_log_odds=True,
        exactness=AGAINST_REFERENCE,
        column="ImageReward",
    ),
)

PUBLISHED: Mapping[str, PublishedJudge] = MappingProxyType({judge.name: judge for judge in _DUAL})
"""Every judge that `prefrm import` knows, by name."""


def find_published(name: str) -> PublishedJudge:
    """The judge of that name. Raises `ConfigError` that lists the known names."""
    if name not in PUBLISHED:
        raise ConfigError(f"there is no published judge {name!r}; there are: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
