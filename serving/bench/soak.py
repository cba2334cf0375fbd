"""A server at saturation for minutes: whether its memory and its latency stay what they were."""

import json
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from prefrm.display import markdown_table
from prefrm.errors import ScoringError
from prefrm.files import write_whole
from prefrm.progress import track
from serving.bench.load import Load, Outcome
from serving.bench.processes import LoadProcess, prefrm_server
from serving.bench.report import percentile
from serving.bench.requests import small_groups, write_requests
from serving.bench.rounds import SMALL_GROUPS
from serving.bench.scorers import build_scorer

__all__ = ["Soak", "measure_soak", "write_soak"]

TEXT = Path("serving") / "soak.md"
WINDOWS = 50
AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """Medians over the first and over the last fifth of the time.

    Attributes:
        seconds: under load.
        answered: right answers.
        lost: requests without one.
        rps: requests a second.
        p50_ms: of a request.
        p99_ms: of a request.
        resident_mb: of the server's process, in MiB.
    """

    seconds: float
    answered: int
    lost: int
    rps: tuple[float, float]
    p50_ms: tuple[float, float]
    p99_ms: tuple[float, float]
    resident_mb: tuple[float, float]

    def to_json(self) -> str:
        """Of plain data."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """A line and a table."""
        names = {
            "groups a second": self.rps,
            "p50 ms": self.p50_ms,
            "p99 ms": self.p99_ms,
            "resident MB": self.resident_mb,
        }
        body = [[name, *(f"{value:.4g}" for value in fifths)] for name, fifths in names.items()]
        table = markdown_table(["", "first fifth", "last fifth"], body)
        said = (
            f"{self.answered} right answers in {self.seconds:.0f} s at {AT_ONCE} at once; {self.lost} lost."
        )
        return f"{said}\n\n{table}\n"


def measure_soak(minutes: float) -> Soak:
    """Keep a server of the two-layer model saturated over gRPC.

    Raises:
        ScoringError: for a fiftieth of the time, it gave no right answer.
    """
    counts: Counter[str] = Counter()
    seconds = 0.0
    windows: list[tuple[float, float, float, float]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_requests(small_groups(SMALL_GROUPS), build_scorer("two-layers"), folder)
        load = stack.enter_context(LoadProcess(folder))
        server = stack.enter_context(prefrm_server("two-layers", threads=1))
        turn = Load(target=server.grpc, concurrency=AT_ONCE, seconds=minutes * 60 / WINDOWS)
        load.put(turn)
        with track("soaking", WINDOWS) as advance:
            for done in range(1, WINDOWS + 1):
                outcome = load.put(turn)
                counts.update({status: len(times) for status, times in outcome.latencies_ms.items()})
                seconds += outcome.seconds
                windows.append((*_window(outcome), server.resident_mb))
                advance(done)
    rps, p50, p99, resident = (_fifths(values) for values in zip(*windows, strict=True))
    lost = counts.total() - counts["OK"]
    return Soak(
        seconds=seconds,
        answered=counts["OK"],
        lost=lost,
        rps=rps,
        p50_ms=p50,
        p99_ms=p99,
        resident_mb=resident,
    )


def write_soak(soak: Soak, docs: Path) -> None:
    """Write `serving/soak.md` into `docs`."""
    (docs / TEXT).parent.mkdir(parents=True, exist_ok=True)
    write_whole(docs / TEXT, soak.to_markdown())


def _window(outcome: Outcome) -> tuple[float, float, float]:
    """Right answers a second, and their p50 and p99 in milliseconds."""
    if not (times := outcome.latencies_ms.get("OK")):
        counts = {status: len(latencies) for status, latencies in outcome.latencies_ms.items()}
        raise ScoringError(
            f"the soaked server gave no right answer in {outcome.seconds:.1f} s (others: {counts}), so there "
            "is nothing to compare; run it for longer, or see its log"
        )
    return len(times) / outcome.seconds, percentile(times, 0.5), percentile(times, 0.99)


def _fifths(values: Sequence[float]) -> tuple[float, float]:
    fifth = len(values) // 5
    return statistics.median(values[:fifth]), statistics.median(values[-fifth:])
