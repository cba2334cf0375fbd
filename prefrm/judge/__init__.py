"""Judges: what one is, how it reads a pair of images, and the losses that train it. Needs torch."""

from prefrm.errors import missing_extra

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise missing_extra(error.name or "torch", "judge") from error

from prefrm.judge.backbones import FAMILIES, Family, family_of
from prefrm.judge.heads import VerdictHead
from prefrm.judge.losses import verdict_cross_entropy
from prefrm.judge.model import Judge
from prefrm.judge.processor import ImageInput, JudgeBatch, JudgeProcessor, PairInput
from prefrm.judge.spec import JudgeSpec

__all__ = [
    "FAMILIES",
    "Family",
    "ImageInput",
    "Judge",
    "JudgeBatch",
    "JudgeProcessor",
    "JudgeSpec",
    "PairInput",
    "VerdictHead",
    "family_of",
    "verdict_cross_entropy",
]
