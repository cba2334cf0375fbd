"""What the benchmark measures, part by part, and how long each may take. No torch.

The parts that answer the most come first, in case the time is up before the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["MACHINE", "PARTS", "TINY_PARTS", "Part", "select"]

PLAIN, LATE = "plain", "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Something that is measured by itself.

    Attributes:
        name: unique; what stands before its first dash is its kind.
        module: with a function `measure`, as `prefrm.bench.gpu.child` calls it.
        limit_s: seconds that it may take, imports and the model included.
        options: of `measure`, as JSON.
    """

    name: str
    module: str
    limit_s: float
    options: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The section of the page that it belongs to."""
        return self.name.partition("-")[0]


MACHINE = Part(name="machine", module="prefrm.bench.gpu.machine", limit_s=180, options={})
"""Measured in every run, first."""


def _engine(shape: str, tokens: int, limit_s: float, **options: Any) -> Part:
    chosen: dict[str, Any] = {
        "sizes": [4, 8, 16, 32, 64],
        "methods": [PLAIN, "joint", LATE, "scalar"],
        "batch_sizes": [4, 16, 48],
        "sample": 48,
        "rounds": 3,
        "cell_s": 8.0,
    }
    return Part(
        name=f"engine-{shape}-{tokens}",
        module="prefrm.bench.gpu.engine",
        limit_s=limit_s,
        options={"shape": shape, "image_tokens": tokens, **chosen, **options},
    )


PARTS: tuple[Part, ...] = (_engine("3b", 256, 180),)
TINY_PARTS: tuple[Part, ...] = (
    _engine("tiny", 25, 120, sizes=[2, 4], batch_sizes=[1, 4], sample=4, rounds=1, cell_s=1.0),
)
"""Each kind of part, small enough for a CPU: that they run, and nothing of a card."""


def select(parts: Sequence[Part], wanted: Sequence[str]) -> list[Part]:
    """The parts of those names or kinds; all of them without any.

    Raises:
        ConfigError: a name is not one of a part, nor the beginning of one up to a dash.
    """
    for name in wanted:
        if not any(_is_meant(part, name) for part in parts):
            names = ", ".join(part.name for part in parts)
            raise ConfigError(f"--only takes a part or a kind of parts; received {name!r}, there are {names}")
    return [part for part in parts if not wanted or any(_is_meant(part, name) for name in wanted)]


def _is_meant(part: Part, name: str) -> bool:
    return part.name == name or part.name.startswith(f"{name}-")
