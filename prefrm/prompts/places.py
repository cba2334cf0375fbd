"""Texts with places: what a group fills in, and lines that are left out where a group has none of it.

While a text is handled, a mark stands in each place: a private-use character, which no chat template touches.
"""

import re
from typing import NamedTuple

__all__ = [
    "CANDIDATE",
    "CLOSE",
    "CONTEXT",
    "CRITERION",
    "MARK",
    "OPEN",
    "PROMPT",
    "SUFFIX",
    "Piece",
    "cut",
    "mark",
    "readable",
]

CONTEXT, PROMPT, CRITERION, CANDIDATE, SUFFIX = "\ue000", "\ue001", "\ue002", "\ue003", "\ue004"
OPEN, CLOSE = "\ue005", "\ue006"
"""Around a line that is left out where a group has no context, or no criterion."""
MARK = re.compile(f"[{CONTEXT}-{CLOSE}]")
PLACES = {
    "context": CONTEXT,
    "prompt": PROMPT,
    "criterion": CRITERION,
    "candidate": CANDIDATE,
    "image": CANDIDATE,
}
PLACEHOLDER = re.compile(rf"\{{({'|'.join(PLACES)})\}}")
OPTIONAL = (CONTEXT, CRITERION)


class Piece(NamedTuple):
    """A part of a text.

    Attributes:
        content: a text, or the mark of a place.
        needs: the mark of what a group must have, or the piece is left out; "" if it always stands.
    """

    content: str
    needs: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is a text, and not a place."""
        return MARK.fullmatch(self.content) is None


def mark(text: str) -> str:
    """The text with a mark in the place of each placeholder, and with marks around lines to leave out.

    Such a line has `{context}` or `{criterion}` and no other placeholder. The line break before it belongs to
    it; at the start of the text, the one after it, if there is one.
    """
    marked = PLACEHOLDER.sub(lambda found: PLACES[found[1]], text)
    lines = marked.split("\n")
    found: list[str] = []
    at_start = True
    for n, line in enumerate(lines, start=1):
        is_optional = any(set(MARK.findall(line)) == {place} for place in OPTIONAL)
        before = "" if at_start else "\n"
        after = "\n" if at_start and is_optional and n < len(lines) else ""
        whole = f"{before}{line}{after}"
        found.append(f"{OPEN}{whole}{CLOSE}" if is_optional else whole)
        at_start &= is_optional
    return "".join(found)


def cut(marked: str) -> list[Piece]:
    """The pieces of a marked text, in order. Texts that nothing separates are one piece."""
    pieces: list[Piece] = []
    for part in re.split(f"({OPEN}[^{CLOSE}]*{CLOSE})", marked):
        needs = next((place for place in OPTIONAL if place in part), "") if part.startswith(OPEN) else ""
        contents = re.split(f"({MARK.pattern})", part.strip(OPEN + CLOSE))
        pieces += [Piece(content, needs) for content in contents if content]
    return pieces


def readable(marked: str) -> str:
    """The marked text with placeholders, for messages."""
    names = {place: f"{{{name}}}" for name, place in reversed(PLACES.items()) if name != "image"}
    names |= {SUFFIX: "{suffix}", OPEN: "", CLOSE: ""}
    return MARK.sub(lambda found: names[found[0]], marked)
