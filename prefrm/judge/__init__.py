"""Judges: what one is, how it reads a pair of images, and the losses that train it. Needs torch."""

from prefrm.errors import missing_extra

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "torch", "judge") from error

from prefrm.judge.backbones import FAMILIES, Family, family_of
from prefrm.judge.batch import JudgeBatch
from prefrm.judge.contents import ContentReader, Decoded
from prefrm.judge.differentiable import DifferentiableJudge
from prefrm.judge.heads import (
    AnswerHead,
    EmbeddingHead,
    Head,
    MlpHead,
    ScalarHead,
    VerdictHead,
    build_head,
    log_odds,
)
from prefrm.judge.images import ImageInput
from prefrm.judge.layout import Content, Name, Pair, Segment, Tree, path
from prefrm.judge.losses import (
    bradley_terry,
    bradley_terry_ties,
    preference_loss,
    uncertain_bradley_terry,
)
from prefrm.judge.model import Judge
from prefrm.judge.processor import JudgeProcessor
from prefrm.manifest.spec import JudgeSpec

__all__ = [
    "FAMILIES",
    "AnswerHead",
    "Content",
    "ContentReader",
    "Decoded",
    "DifferentiableJudge",
    "EmbeddingHead",
    "Family",
    "Head",
    "ImageInput",
    "Judge",
    "JudgeBatch",
    "JudgeProcessor",
    "JudgeSpec",
    "MlpHead",
    "Name",
    "Pair",
    "ScalarHead",
    "Segment",
    "Tree",
    "VerdictHead",
    "bradley_terry",
    "bradley_terry_ties",
    "build_head",
    "family_of",
    "log_odds",
    "path",
    "preference_loss",
    "uncertain_bradley_terry",
]
