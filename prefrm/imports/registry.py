"""The published judges that can be imported, as data. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from prefrm.errors import ConfigError

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
        accuracies: published, by dataset: percent of pairs on which it agrees with people.
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
    accuracies: Mapping[str, float] = field(default_factory=dict)


_JUDGES = (
    PublishedJudge(
        name="pickscore",
        title="PickScore v1",
        kind="dual encoder",
        source="hf://yuvalkirstain/PickScore_v1",
        licence="MIT (code; the model card names none)",
        paper="https://arxiv.org/abs/2305.01569",
        builder="prefrm.imports.dual:build_pickscore",
        base="hf://laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        is_log_odds=True,
        exactness="CLIPModel as it is, against a reference in the tests",
        accuracies={"HPDv2": 79.8, "GenAI-Bench image": 67.2},
    ),
)

PUBLISHED: Mapping[str, PublishedJudge] = MappingProxyType({judge.name: judge for judge in _JUDGES})
"""Every judge that `prefrm import` knows, by name."""


def find_published(name: str) -> PublishedJudge:
    """The judge of that name. Raises `ConfigError` that lists the known names."""
    if name not in PUBLISHED:
        raise ConfigError(f"there is no published judge {name!r}; there are: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]
