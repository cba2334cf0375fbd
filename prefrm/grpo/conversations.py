"""The text that a judge sees, of what a trainer calls a prompt."""

import reprlib
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["last_user_text"]


def last_user_text(prompt: Any, **columns: Any) -> str:
    """The prompt that a judge sees, by default: a plain prompt itself, or the last user message's text.

    Raises:
        ConfigError: a conversation has no user message with text, or it is none.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        text = _last_user_text(prompt)
    except (AttributeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"a prompt is a text or a list of messages, each with role and content; received "
            f"{reprlib.repr(prompt)} ({type(error).__name__}: {error}); pass to_prompt for another form"
        ) from error
    if not text:
        raise ConfigError("a prompt has no user message with text to judge by; pass to_prompt")
    return text


def _last_user_text(messages: Any) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
            if text := "\n".join(block["text"] for block in blocks if block["type"] == "text"):
                return text
    return ""
