"""What the `tokenizer.json` of a bundle may hold. Its steps are programs over texts; its lists cost time."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["MOST_ADDED", "check_tokenizer"]

# Tokens beside the vocabulary; each takes a fraction of a millisecond.
MOST_ADDED = 8192
MOST_WORDS = 2**19
# Steps that rewrite a text. Those that lengthen it multiply, so they are few, and each hardly does.
MOST_STEPS = 16
NORMALIZERS = (
    *("BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Prepend", "Replace", "Sequence"),
    *("Strip", "StripAccents"),
)
MOST_PREPENDED = 16
# CLIP replaces runs of whitespace by one space.
WHITESPACE = {"Regex": r"\s+"}
# Matching a repeated group may take exponential time; published tokenizers repeat none. Escapes and character
# classes are left out of the search.
LITERALS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
REPEATED_GROUP = re.compile(r"\)[*+{]")


def check_tokenizer(path: Path, tokenizer: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if loading it takes long, or one of its steps may lengthen texts without bound.

    Args:
        path: of the file, for the message.
        tokenizer: what it holds.
    """
    model = tokenizer.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    steps = {
        part: len(list(_objects(tokenizer.get(part))))
        for part in ("normalizer", "pre_tokenizer", "post_processor")
    }
    for what, count, most in (
        ("added_tokens", _length(tokenizer.get("added_tokens")), MOST_ADDED),
        ("vocab", _length(words), MOST_WORDS),
        *((part, count, MOST_STEPS) for part, count in steps.items()),
    ):
        if count > most:
            raise ConfigError(f"{path}: {what} has {count} entries; {most} are allowed")
    for step in _objects(tokenizer.get("pre_tokenizer")):
        expression = LITERALS.sub("", str(step.get("Regex", "")))
        if REPEATED_GROUP.search(expression):
            raise ConfigError(f"{path}: the expression {step['Regex'][:80]!r} is refused: it repeats a group")
    for step in _normalizers(tokenizer.get("normalizer")):
        if not _keeps_length(step):
            raise ConfigError(f"{path}: the normalizer {str(step)[:80]} is refused: it may lengthen texts")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _objects(value: Any) -> Iterator[Any]:
    """All objects in a value, and the value itself if it is one."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(child)


def _normalizers(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, dict):
        yield value
        for child in value.get("normalizers") or ():
            yield from _normalizers(child)


def _keeps_length(step: Mapping[str, Any]) -> bool:
    """Whether a normalizer makes a text only a little longer, if at all."""
    kind, pattern = step.get("type"), step.get("pattern")
    if kind == "Prepend":
        return len(str(step.get("prepend"))) <= MOST_PREPENDED
    if kind == "Replace":
        if pattern == WHITESPACE:
            return len(str(step.get("content"))) <= 1
        replaced = pattern.get("String") if isinstance(pattern, dict) else None
        return isinstance(replaced, str) and len(str(step.get("content"))) <= len(replaced)
    return kind in NORMALIZERS
