"""Text, tables and colours for people to read: on one line, aligned, and with enough contrast.

Shared by the figures, the reports and the terminal, none of which a prompt or a file name may break.
"""

import unicodedata
from collections.abc import Sequence

__all__ = [
    "BLACK",
    "ELLIPSIS",
    "WHITE",
    "markdown_table",
    "one_line",
    "short_number",
    "shortened",
    "text_color",
]

ELLIPSIS = "…"
BLACK, WHITE = "#000000", "#ffffff"
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters, and the surrogates that stand for undecodable bytes of a file name.
UNPRINTABLE = ("Cc", "Cs")
# Embeddings, overrides and isolates of the bidirectional algorithm, by their class in UAX 9: they reorder
# the characters that follow them.
REORDERING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def one_line(text: str) -> str:
    """`text` without line breaks and tabs, each of which becomes a space; other spaces stay as they are.

    Any other control character, and any that changes the direction of writing, is shown as U+FFFD.
    """
    line = " ".join(part.strip() for part in text.strip().splitlines()).replace("\t", " ")
    return line if line.isprintable() else "".join(map(_printable, line))


def shortened(text: str, most: int = 500) -> str:
    """`one_line` of an untrusted text, cut at `most` characters."""
    # Cut before as well, since the text may have megabytes.
    line = one_line(text[: 2 * most])
    return line if len(line) <= most and len(text) <= 2 * most else line[: most - 1] + ELLIPSIS


def _printable(character: str) -> str:
    hidden = unicodedata.category(character) in UNPRINTABLE
    return REPLACEMENT if hidden or unicodedata.bidirectional(character) in REORDERING else character


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table, padded so that it can be read as it is.

    The first `text_columns` are aligned to the left, the others, which hold numbers, to the right.
    """
    rows = [[cell.replace("|", "\\|") for cell in row] for row in (header, *body)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width if n < text_columns else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    formats = [f"{'<' if n < text_columns else '>'}{width}" for n, width in enumerate(widths)]
    lines = (" | ".join(map(format, row, formats)) for row in (rows[0], rule, *rows[1:]))
    return "\n".join(f"| {line} |" for line in lines)


def short_number(value: float) -> str:
    """Three significant digits; from 100 on a whole number, with its thousands separated."""
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def text_color(background: tuple[float, float, float]) -> str:
    """Black or white, whichever has the higher contrast on `background`: red, green and blue in [0, 1].

    By the contrast ratio of WCAG 2.2, of which the better one is never below 4.5.
    """
    luminance = sum(w * _linear(c) for w, c in zip((0.2126, 0.7152, 0.0722), background, strict=True))
    return BLACK if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else WHITE


def _linear(channel: float) -> float:
    """An sRGB channel as linear light, both in [0, 1]."""
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
