"""Models compared by their answers to the same prompts: prompt sets with checks, and their readers."""

from prefrm.arena.prompts import ArenaPrompt, Check, PromptSet, read_prompts

__all__ = ["ArenaPrompt", "Check", "PromptSet", "read_prompts"]
