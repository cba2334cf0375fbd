"""Tables of the benchmarks' reports."""

from collections.abc import Sequence

__all__ = ["markdown_table"]


def markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Markdown, padded so that it can be read as it is; the first column is text, the others are numbers."""
    widths = [max(3, *map(len, column)) for column in zip(header, *body, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [
        [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        for row in [header, rule, *body]
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
