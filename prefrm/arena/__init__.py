"""Models compared by their answers to the same prompts: prompt sets with checks, and verdicts on them."""

from prefrm.arena.checked import (
    CheckedImage,
    CheckMetrics,
    Share,
    check_agreement,
    image_agreement,
    measure_checks,
)
from prefrm.arena.prompts import read_prompts
from prefrm.arena.values import ArenaPrompt, Check, PromptSet

__all__ = [
    "ArenaPrompt",
    "Check",
    "CheckMetrics",
    "CheckedImage",
    "PromptSet",
    "Share",
    "check_agreement",
    "image_agreement",
    "measure_checks",
    "read_prompts",
]
