"""What the benchmark measures, part by part, and how long each may take. No torch.

The parts that answer the most come first, in case the time is up before the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefrm.errors import ConfigError

__all__ = ["LORA", "MACHINE", "PARTS", "TINY_PARTS", "Part", "select"]

METHODS = ["plain", "joint", "late", "scalar"]
# As the configurations of `prefrm.bench.gpu.tables.CONFIGS` have it.
LORA: dict[str, Any] = {"rank": 32, "alpha": 64, "dropout": 0.05}
Rows = list[list[Any]]
"""For each row of a training table the method, candidates of a group and groups of a step."""
ADAPTER_ROWS: Rows = [
    ["plain", 2, 4],
    ["joint", 2, 4],
    ["plain", 4, 1],
    ["joint", 4, 1],
    ["late", 4, 3],
    ["scalar", 4, 3],
]


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


def _engine(shape: str, tokens: int, limit_s: float, *, compile: bool = False, **options: Any) -> Part:
    chosen: dict[str, Any] = {
        "sizes": [4, 8, 16, 32, 64],
        "methods": METHODS,
        "batch_sizes": [8, 32],
        "sample": 48,
        "rounds": 3,
        "cell_s": 8.0,
        "compile": compile,
    }
    return Part(
        name=f"engine-{shape}-{tokens}{'-compiled' * compile}",
        module="prefrm.bench.gpu.engine",
        limit_s=limit_s,
        options={"shape": shape, "image_tokens": tokens, **chosen, **options},
    )


def _train(shape: str, name: str, limit_s: float, rows: Rows, **options: Any) -> Part:
    chosen: dict[str, Any] = {
        "image_tokens": 324,
        "adapter": LORA,
        "quantize": False,
        "steps": 5,
        "workers": 4,
    }
    return Part(
        name=f"train-{shape}-{name}",
        module="prefrm.bench.gpu.training",
        limit_s=limit_s,
        options={"shape": shape, "rows": rows, **chosen, **options},
    )


def _differences(limit_s: float, small: list[Any]) -> Part:
    return Part(
        name="differences",
        module="prefrm.bench.gpu.differences",
        limit_s=limit_s,
        options={"methods": METHODS[1:], "tiny": ["tiny", 25], "small": small},
    )


def _server(limit_s: float, scorer: str, groups: int, single: int, threads: int) -> Part:
    return Part(
        name="server",
        module="serving.bench.gpu",
        limit_s=limit_s,
        options={"scorer": scorer, "groups": groups, "single": single, "threads": threads},
    )


def _tests(limit_s: float, folder: str) -> Part:
    return Part(
        name="tests", module="prefrm.bench.gpu.marked_tests", limit_s=limit_s, options={"folder": folder}
    )


PARTS: tuple[Part, ...] = (
    _engine("3b", 256, 180),
    _differences(90, small=["small", 256]),
    _train("3b", "lora", 240, ADAPTER_ROWS),
    _engine("3b", 1024, 180, batch_sizes=[2, 8]),
    _tests(240, "tests"),
    _engine("7b", 256, 180),
    _train("7b", "qlora", 240, ADAPTER_ROWS, quantize=True),
    _engine("7b", 1024, 240, batch_sizes=[2, 8], sample=16),
    _train("3b", "full", 180, [["plain", 2, 4], ["joint", 2, 4], ["late", 4, 3]], adapter=None),
    _engine("3b", 256, 240, compile=True, methods=["late", "scalar"]),
    _server(180, "judge-3b", groups=64, single=16, threads=4),
)
"""Estimated at 20 minutes on an H100, and never measured."""
_TINY_ROWS: Rows = [["plain", 2, 2], ["joint", 2, 2], ["late", 3, 1]]
_TINY_TRAIN: dict[str, Any] = {"image_tokens": 25, "steps": 1, "workers": 0}
TINY_PARTS: tuple[Part, ...] = (
    _engine("tiny", 25, 300, sizes=[2, 4], batch_sizes=[1, 4], sample=4, rounds=1, cell_s=1.0),
    _differences(300, small=["tiny", 25]),
    _train("tiny", "lora", 300, _TINY_ROWS, **_TINY_TRAIN),
    _train("tiny", "qlora", 300, _TINY_ROWS, quantize=True, **_TINY_TRAIN),
    _train("tiny", "full", 300, _TINY_ROWS, adapter=None, **_TINY_TRAIN),
    _tests(300, "tests/prefrm/bench"),
    _server(300, "judge", groups=4, single=2, threads=1),
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
