"""What a judge sees of a trainer's prompts and completions: texts, and the images of a prompt."""

import reprlib
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["completion_text", "last_user_text", "prompt_images"]

_MALFORMED = (AttributeError, KeyError, TypeError)


def last_user_text(prompt: Any, **columns: Any) -> str:
    """The prompt that a judge sees, by default: a plain prompt itself, or the last user message's text.

    Raises:
        ConfigError: a conversation has no user message with text, or it is none.
    """
    if isinstance(prompt, str):
        return prompt
    try:
        text = _last_user_text(prompt)
    except _MALFORMED as error:
        raise _unknown_form("prompt", prompt, error, "to_prompt") from error
    if not text:
        raise ConfigError("a prompt has no user message with text to judge by; pass to_prompt")
    return text


def completion_text(completion: Any, **columns: Any) -> str:
    """The candidate that a completion is, by default: a plain one itself, or its assistant messages' text.

    Raises:
        ConfigError: it is neither a text nor a list of messages.
    """
    if isinstance(completion, str):
        return completion
    try:
        # A message that calls a tool may have no content.
        said = [_text(one.get("content") or "") for one in completion if one["role"] == "assistant"]
    except _MALFORMED as error:
        raise _unknown_form("completion", completion, error, "to_image or to_text") from error
    return "\n".join(filter(None, said))


def prompt_images(prompt: Any, **columns: Any) -> list[Any]:
    """The images of a prompt, by default: the column `images` or `image`, or those in its messages.

    TRL takes the images of a vision-language prompt from these columns, and shows them to a reward both there
    and in the messages.

    Raises:
        ConfigError: the prompt is neither a text nor a list of messages.
    """
    found = columns.get("images")
    if found is None:
        found = [columns["image"]] if columns.get("image") is not None else None
    if found is not None or isinstance(prompt, str):
        return list(found or [])
    try:
        # A message that calls a tool may have no content.
        contents = [message.get("content") for message in prompt]
        blocks = [block for content in contents if isinstance(content, list) for block in content]
        images = [block.get("image") for block in blocks if block["type"] == "image"]
    except _MALFORMED as error:
        raise _unknown_form("prompt", prompt, error, "to_context") from error
    return [image for image in images if image is not None]


def _unknown_form(name: str, value: Any, error: Exception, instead: str) -> ConfigError:
    return ConfigError(
        f"a {name} is a text or a list of messages, each with role and content; received "
        f"{reprlib.repr(value)} ({type(error).__name__}: {error}); pass {instead} for another form"
    )


def _last_user_text(messages: Any) -> str:
    for message in reversed(messages):
        if message["role"] == "user" and (text := _text(message["content"])):
            return text
    return ""


def _text(content: Any) -> str:
    """The text of a message's content, a text or blocks."""
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return "\n".join(block["text"] for block in blocks if block["type"] == "text")
