"""Models compared by their answers to the same prompts: prompt sets with checks, and their readers."""

from prefrm.arena.prompts import read_prompts
from prefrm.arena.values import ArenaPrompt, Check, PromptSet

__all__ = ["ArenaPrompt", "Check", "PromptSet", "read_prompts"]
