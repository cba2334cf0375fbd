"""Comparisons that are valid but cannot all be right: they are kept, counted and named.

Knows no files: whoever reads rows or records passes each comparison on.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Questionable"]


@dataclass(slots=True, kw_only=True)
class Questionable:
    """The questionable comparisons of a dataset, in the order of arrival.

    Attributes:
        contradictory: of two candidates under one prompt that an earlier comparison decided otherwise.
        repeated: the same verdict on the same two candidates under one prompt, once more: it counts twice.
        identical: of two images with the same bytes, one of which is preferred.
    """

    contradictory: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    identical: list[str] = field(default_factory=list)
    _seen: dict[bytes, tuple[float, str]] = field(default_factory=dict)

    def add(self, where: str, prompt: str, first: str, second: str, p: float) -> None:
        """Take in a comparison.

        Args:
            where: names it, such as "pairs.csv:7".
            prompt: what the candidates answer, and by what they are compared.
            first: digest of a candidate.
            second: digest of another.
            p: P(first is preferred to second).
        """
        if first == second:
            if p != 0.5:
                self.identical.append(where)
            return
        if second < first:
            first, second, p = second, first, 1.0 - p
        key = hashlib.sha256("\n".join((first, second, prompt)).encode()).digest()[:16]
        if key not in self._seen:
            self._seen[key] = (p, where)
            return
        before, there = self._seen[key]
        if (p > 0.5, p < 0.5) == (before > 0.5, before < 0.5):
            self.repeated.append(f"{where} after {there}")
        else:
            self.contradictory.append(f"{where} against {there}")

    def lines(self) -> Mapping[str, tuple[str, ...]]:
        """By kind, a line for each; kinds of which there is none are left out."""
        kinds = {
            "contradictory comparisons": self.contradictory,
            "repeated comparisons": self.repeated,
            "identical candidates of which one is preferred": self.identical,
        }
        return {kind: tuple(lines) for kind, lines in kinds.items() if lines}
