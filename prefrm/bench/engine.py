"""The benchmark of the engine: what a group costs by each method, on one checkpoint, in one process.

On a CPU a Qwen2.5-VL of six small layers, on a GPU the shapes of Qwen2.5-VL-3B, both with random weights.
"""

import statistics
from collections.abc import Iterator
from dataclasses import asdict

from prefrm.bench.contents import ContentRow, bench_contents
from prefrm.bench.engine_report import EngineReport, EngineRow
from prefrm.bench.meters import describe_device
from prefrm.bench.methods import PLAIN
from prefrm.bench.provenance import versions
from prefrm.bench.random_model import QWEN2_5_VL_3B, SIX_LAYERS, Shape
from prefrm.bench.rounds import Rounds, Settings
from prefrm.errors import ConfigError
from prefrm.judge.model import resolve_device, resolve_dtype

__all__ = ["bench_engine", "read_settings"]

DTYPES = ("auto", "float32", "bfloat16", "float16")
SIZES, QUICK_SIZES = (4, 8, 16, 32, 64), (4, 8)
LARGEST = 256
# Of the plain method, by type of device.
BATCH_SIZES: dict[str, tuple[int, ...]] = {"cpu": (1, 2, 4, 8, 16), "cuda": (2, 4, 8, 16, 32, 64)}
QUICK_BATCH_SIZES: dict[str, tuple[int, ...]] = {"cpu": (1, 4), "cuda": (4, 16)}


def read_settings(
    *, device: str = "auto", dtype: str = "auto", k: str | None = None, quick: bool = False
) -> Settings:
    """What the command line asks for.

    Args:
        device: "auto", "cpu" or "cuda:0".
        dtype: of the backbone; one of `DTYPES`.
        k: group sizes such as "4,8,16"; None for those of the documentation.
        quick: one round over small groups: less than a minute on two cores.

    Raises:
        ConfigError: the device is not there, or a value is none of those.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}; received {dtype!r}")
    found = resolve_device(device)
    if found.type not in BATCH_SIZES:
        raise ConfigError(f"device must be {' or '.join(BATCH_SIZES)}; received {device!r}")
    sizes = (QUICK_SIZES if quick else SIZES) if k is None else _read_sizes(k)
    return Settings(
        device=found,
        dtype=resolve_dtype(dtype, found),
        sizes=sizes,
        rounds=1 if quick else 3,
        sample=8 if quick else 48,
        batch_sizes=(QUICK_BATCH_SIZES if quick else BATCH_SIZES)[found.type],
        compared=3 if quick else 4,
    )


def _read_sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 2 or sizes[-1] > LARGEST:
        raise ConfigError(f"k takes group sizes from 2 to {LARGEST}, such as 4,8,16; received {text!r}")
    return tuple(sizes)


def bench_engine(settings: Settings, shape: Shape | None = None) -> EngineReport:
    """Compare the engine with the plain method.

    Args:
        settings: what is measured, and where.
        shape: of the model; None for the device's own.

    Raises:
        ScoringError: the device has too little memory for a group, or the type too little range.
    """
    device = settings.device
    shape = shape or (SIX_LAYERS if device.type == "cpu" else QWEN2_5_VL_3B)
    rows: list[EngineRow] = []
    batches: dict[str, int] = {}
    encodes: dict[str, float | None] = {}
    rates: list[float] = []
    contents: dict[str, tuple[ContentRow, ...]] = {}
    for tokens in shape.image_tokens:
        rounds = Rounds(shape, tokens, settings)
        rounds.run()
        rows += _rows(rounds, tokens)
        batches[str(tokens)] = rounds.plain.batch_size
        encodes[str(tokens)] = rounds.encodes_of_floor()
        rates += rounds.rates
        del rounds
        contents[str(tokens)] = bench_contents(
            shape, tokens, device=device, dtype=settings.dtype, rounds=settings.rounds
        )
    return EngineReport(
        device=describe_device(device),
        dtype=str(settings.dtype).removeprefix("torch."),
        rounds=settings.rounds,
        product_gflops=statistics.median(rates) / 1e9,
        plain_batch_size=batches,
        encodes_of_floor=encodes,
        model=asdict(shape),
        versions=versions("prefrm", "torch", "transformers"),
        rows=tuple(rows),
        contents=contents,
    )


def _rows(rounds: Rounds, tokens: int) -> Iterator[EngineRow]:
    rate = statistics.median(rounds.rates)
    for (method, k), cell in rounds.cells.items():
        seconds = statistics.median(cell.seconds)
        floor = cell.operations / rate
        yield EngineRow(
            method=method,
            k=k,
            image_tokens=tokens,
            seconds=seconds,
            speedup=statistics.median(rounds.cells[PLAIN, k].seconds) / seconds,
            floor_seconds=floor,
            of_floor=floor / seconds,
            pairs_per_second=k * (k - 1) / 2 / seconds,
            peak_mb=max(cell.peaks),
            max_abs_diff=cell.max_abs_diff,
            timed_pairs=cell.timed_pairs,
        )
