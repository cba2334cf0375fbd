"""The published judges that can be imported, as data. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from prefrm.errors import ConfigError
from prefrm.eval import PUBLISHED as ACCURACIES

__all__ = ["PUBLISHED", "PublishedJudge", "find_published", "with_uncertainty"]

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
        base_files: as `files`, of the base.
        template: whether it is asked with the wording in a file (`--template`).
        is_log_odds: whether its training loss makes differences of its utilities log-odds, so that its
            probabilities mean something before a calibration.
        exactness: how it is shown that the import is exact.
        column: its name among the judges of `prefrm.eval.PUBLISHED`; "" if it is not there.
        accuracies: published ones that are not there, by dataset: percent of pairs on which it agrees with
            people.
        uncertainty: as in `JudgeSpec`, of a judge that lets a person choose it; None for every other.
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
    base_files: tuple[str, ...] = CONFIGURATION
    template: Literal["none", "optional", "required"] = "none"
    is_log_odds: bool
    exactness: str
    column: str = ""
    accuracies: Mapping[str, float] = field(default_factory=dict)
    uncertainty: str | None = None

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
AS_PUBLISHED = (
    "equal to `transformers`, called as the judge's own code calls it, on a tiny random checkpoint, 1e-6"
)
SAME_CONVERSATION = "equal to `transformers` in the same conversation on a tiny random checkpoint, 1e-6"
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
        base_files=SAFETENSORS,
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

EDITREWARD = {
    "GenAI-Bench edit, both heads": 63.97,
    "AURORA-Bench, both heads": 59.50,
    "EditReward-Bench, both heads": 36.78,
}

_SCALAR = (
    PublishedJudge(
        name="hpsv3",
        title="HPSv3",
        kind="scalar judge",
        source="hf://MizzenAI/HPSv3",
        licence="Apache-2.0 (weights, by third parties); MIT (code)",
        paper="https://arxiv.org/abs/2508.03789",
        builder="prefrm.imports.scalar:build_hpsv3",
        files=("HPSv3.safetensors",),
        base="hf://Qwen/Qwen2-VL-7B-Instruct",
        template="required",
        is_log_odds=True,
        exactness=AS_PUBLISHED,
        column="HPSv3",
        uncertainty="integrate",
    ),
    PublishedJudge(
        name="editreward-following",
        title="EditReward, its head for following the instruction",
        kind="scalar judge",
        source="hf://TIGER-Lab/EditReward-Qwen2.5-VL-7B",
        licence="MIT (code); the model card's was not checked",
        paper="https://arxiv.org/abs/2509.26346",
        builder="prefrm.imports.scalar:build_editreward_following",
        files=("model.safetensors", "model.pth"),
        base="hf://Qwen/Qwen2.5-VL-7B-Instruct",
        template="required",
        # Its loss is of both heads at once, and of their uncertainty, which is left out here.
        is_log_odds=False,
        exactness=f"an ensemble of both heads is {AS_PUBLISHED}",
        accuracies=EDITREWARD,
    ),
    PublishedJudge(
        name="editreward-quality",
        title="EditReward, its head for visual quality",
        kind="scalar judge",
        source="hf://TIGER-Lab/EditReward-Qwen2.5-VL-7B",
        licence="MIT (code); the model card's was not checked",
        paper="https://arxiv.org/abs/2509.26346",
        builder="prefrm.imports.scalar:build_editreward_quality",
        files=("model.safetensors", "model.pth"),
        base="hf://Qwen/Qwen2.5-VL-7B-Instruct",
        template="required",
        # Its loss is of both heads at once, and of their uncertainty, which is left out here.
        is_log_odds=False,
        exactness=f"an ensemble of both heads is {AS_PUBLISHED}",
        accuracies=EDITREWARD,
    ),
    PublishedJudge(
        name="skywork-vl",
        title="Skywork-VL-Reward-7B",
        kind="scalar judge",
        source="hf://Skywork/Skywork-VL-Reward-7B",
        licence="MIT (by its tag on ModelScope); the Hub's repository is gated",
        paper="https://arxiv.org/abs/2505.07263",
        builder="prefrm.imports.scalar:build_skywork_vl",
        template="required",
        # It judges answers about an image; generated images are not what it was trained on.
        is_log_odds=False,
        exactness=AS_PUBLISHED,
        accuracies={"VL-RewardBench": 73.1, "RewardBench": 90.1},
    ),
    PublishedJudge(
        name="videoreward",
        title="VideoReward (VideoAlign), of a still image",
        kind="scalar judge",
        source="hf://KlingTeam/VideoReward",
        licence="Apache-2.0 (weights, by third parties); MIT (code)",
        paper="https://arxiv.org/abs/2501.13918",
        builder="prefrm.imports.scalar:build_videoreward",
        files=("model_config.json", "checkpoint-11352/model.pth"),
        base="hf://Qwen/Qwen2-VL-2B-Instruct",
        template="required",
        is_log_odds=False,
        exactness=AS_PUBLISHED,
        accuracies={"VideoGen-RewardBench": 73.59},
    ),
)

_GENERATIVE = (
    PublishedJudge(
        name="unifiedreward",
        title="UnifiedReward 1.0 and 2.0, pairwise ranking",
        kind="generative judge, read off logits",
        source="hf://CodeGoat24/UnifiedReward-2.0-qwen-7b",
        licence="MIT",
        paper="https://arxiv.org/abs/2503.05236",
        builder="prefrm.imports.generative:build_unifiedreward",
        template="required",
        # Its loss is that of whole answers in the training of a language model.
        is_log_odds=False,
        exactness=SAME_CONVERSATION,
        column="UnifiedReward",
    ),
    PublishedJudge(
        name="unifiedreward-edit",
        title="UnifiedReward-Edit, pairwise ranking",
        kind="generative judge, read off logits",
        source="hf://CodeGoat24/UnifiedReward-Edit-qwen-7b",
        licence="MIT",
        paper="https://arxiv.org/abs/2503.05236",
        builder="prefrm.imports.generative:build_unifiedreward_edit",
        template="required",
        # Its loss is that of whole answers in the training of a language model.
        is_log_odds=False,
        exactness=SAME_CONVERSATION,
    ),
    PublishedJudge(
        name="paco",
        title="PaCo-Reward-7B",
        kind="generative judge, read off logits",
        source="hf://X-GenGroup/PaCo-Reward-7B",
        licence="none is named",
        paper="https://arxiv.org/abs/2512.04784",
        builder="prefrm.imports.generative:build_paco",
        template="required",
        # Its loss is that of the answers about one image, and not of a comparison.
        is_log_odds=False,
        exactness=SAME_CONVERSATION,
    ),
    PublishedJudge(
        name="vqascore",
        title="VQAScore with any vision-language model",
        kind="generative judge, read off logits",
        source="hf://Qwen/Qwen2.5-VL-7B-Instruct",
        licence="Apache-2.0 (of the default model; another model has its own)",
        paper="https://arxiv.org/abs/2404.01291",
        builder="prefrm.imports.generative:build_vqascore",
        template="optional",
        is_log_odds=False,
        exactness=SAME_CONVERSATION,
    ),
)

PUBLISHED: Mapping[str, PublishedJudge] = MappingProxyType(
    {judge.name: judge for judge in (*_DUAL, *_SCALAR, *_GENERATIVE)}
)
"""Every judge that `prefrm import` knows, by name."""


def find_published(name: str) -> PublishedJudge:
    """The judge of that name. Raises `ConfigError` that lists the known names."""
    if name not in PUBLISHED:
        raise ConfigError(f"there is no published judge {name!r}; there are: {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def with_uncertainty(judge: PublishedJudge, uncertainty: str | None) -> PublishedJudge:
    """The row with the `uncertainty` that a person chose; None leaves it as it is.

    The training loss is one of uncertain utilities, so that differences of means alone are no log-odds.

    Raises:
        ConfigError: this judge has no choice.
    """
    if uncertainty is None:
        return judge
    if judge.uncertainty is None:
        raise ConfigError(f"--uncertainty {uncertainty}: {judge.name} has no such choice; leave it out")
    is_log_odds = judge.is_log_odds and uncertainty == judge.uncertainty
    return replace(judge, uncertainty=uncertainty, is_log_odds=is_log_odds)
