"""What the benchmark of the server times: rounds in which everything that is compared takes its turn."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import torch

from prefrm.errors import ScoringError
from prefrm.progress import Advance
from prefrm.winmatrix import Group
from serving.bench.load import Load, Outcome
from serving.bench.processes import LoadProcess, ServerProcess, mlserver, prefrm_server
from serving.bench.report import ServerRow, percentile
from serving.bench.requests import judge_groups, small_groups, write_requests
from serving.bench.scorers import JUDGES, build_scorer

__all__ = ["CONCURRENCIES", "SMALL_GROUPS", "JudgeRounds", "Settings", "SmallRounds", "added", "answered"]

CONCURRENCIES = (1, 8, 32)
SMALL_GROUPS = 64
QUEUED = 40
"""Groups that may wait for the judge: more than are under way, and few enough that an overload fills it."""
MLSERVER = "mlserver grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: at least 1.
        groups: of the judge, for each turn but those one by one.
        single: of the judge, one by one.
        seconds: of a turn of the two-layer model.
        overload_seconds: of the overload.
        http: whether the second wire is measured too.
        threads: of torch, for the judge.
        mlserver: the interpreter of an environment that has MLServer, or None.
    """

    rounds: int
    groups: int
    single: int
    seconds: float
    overload_seconds: float
    http: bool
    threads: int
    mlserver: Path | None = None


@dataclass(slots=True, kw_only=True)
class _Cell:
    """Round by round: requests a second, and the latencies of each."""

    rates: list[float] = field(default_factory=list)
    latencies_ms: list[list[float]] = field(default_factory=list)

    def add(self, seconds: float, latencies_ms: Sequence[float], *, groups: int = 1) -> None:
        self.rates.append(groups * len(latencies_ms) / seconds)
        self.latencies_ms.append(list(latencies_ms))

    def row(
        self, server: str, concurrency: int, *, of: "_Cell | None" = None, against: "_Cell | None" = None
    ) -> ServerRow:
        return ServerRow(
            server=server,
            concurrency=concurrency,
            rps=statistics.median(self.rates),
            p50_ms=statistics.median(percentile(turn, 0.5) for turn in self.latencies_ms),
            p99_ms=statistics.median(percentile(turn, 0.99) for turn in self.latencies_ms),
            of_engine=self._ratio(of),
            of_mlserver=self._ratio(against),
        )

    def _ratio(self, other: "_Cell | None") -> float | None:
        if other is None:
            return None
        return statistics.median(ours / theirs for ours, theirs in zip(self.rates, other.rates, strict=True))


def answered(outcome: Outcome) -> list[float]:
    """The latencies of a load, in milliseconds. Raises `ScoringError` unless every answer was right."""
    counts = {status: len(latencies) for status, latencies in outcome.latencies_ms.items()}
    if set(counts) != {"OK"}:
        raise ScoringError(f"a server of the benchmark did not answer every request right: {counts}")
    return outcome.latencies_ms["OK"]


def added(engine: Sequence[float], ways: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """How much longer each way but the engine's took than that, group by group."""
    return {
        way: [served - alone for served, alone in zip(turn, engine, strict=True)]
        for way, turn in ways.items()
        if way != "engine"
    }


class JudgeRounds:
    """A judge behind the server, beside the same judge in this process. Use as a context.

    Args:
        settings: how much is measured.
        scorer: one of `serving.bench.scorers.JUDGES`.

    Attributes:
        load: what puts requests of the judge's groups on a server.
        server: the judge's.
    """

    def __init__(self, settings: Settings, scorer: str = "judge") -> None:
        self._settings = settings
        self._scorer = scorer
        self._cells: dict[tuple[str, int], _Cell] = {}
        self._added_ms: dict[str, list[float]] = {}
        self._cleanups = ExitStack()
        torch.set_num_threads(settings.threads)
        self._engine = build_scorer(scorer)
        self._groups = judge_groups(settings.groups, scorer)

    def __enter__(self) -> "JudgeRounds":
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_requests(self._groups, self._engine, folder)
            tolerance = JUDGES[self._scorer].tolerance
            self.load = stack.enter_context(LoadProcess(folder, tolerance=tolerance))
            self.server = stack.enter_context(
                prefrm_server(self._scorer, threads=self._settings.threads, queued=QUEUED)
            )
            self._cleanups = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanups.close()

    @property
    def _wires(self) -> tuple[str, ...]:
        return ("grpc", "http") if self._settings.http else ("grpc",)

    @property
    def added_ms(self) -> dict[str, float]:
        """What each wire adds to one request, as `ServerReport` has it; after `run`."""
        return {wire: statistics.median(differences) for wire, differences in self._added_ms.items()}

    def run(self, advance: Advance) -> list[ServerRow]:
        """All rows."""
        self._warm_up()
        for done in range(self._settings.rounds):
            advance(done)
            self._round()
        advance(self._settings.rounds)
        return list(self._rows())

    def _warm_up(self) -> None:
        self._engine.score(self._groups[:2])
        for wire in self._wires:
            answered(
                self.load.put(Load(target=_address(self.server, wire), wire=wire, concurrency=2, count=4))
            )

    def _round(self) -> None:
        self._one_by_one()
        turns: list[tuple[str, int]] = [
            (wire, concurrency) for concurrency in CONCURRENCIES[1:] for wire in self._wires
        ]
        engine: list[float] = []
        for wire, concurrency in turns:
            engine.append(self._seconds(self._groups))
            outcome = self.load.put(
                Load(
                    target=_address(self.server, wire),
                    wire=wire,
                    concurrency=concurrency,
                    count=len(self._groups),
                )
            )
            self._cell(wire, concurrency).add(outcome.seconds, answered(outcome))
        calls_ms = [seconds * 1e3 for seconds in engine]
        self._cell("engine", len(self._groups)).add(sum(engine), calls_ms, groups=len(self._groups))

    def _one_by_one(self) -> None:
        """Each group in turn by each way, so that none has another moment of the machine than the others."""
        latencies: dict[str, list[float]] = {"engine": [], **{wire: [] for wire in self._wires}}
        for n in range(self._settings.single):
            group = self._groups[n % len(self._groups)]
            latencies["engine"].append(self._seconds([group]) * 1e3)
            for wire in self._wires:
                load = Load(target=_address(self.server, wire), wire=wire, first=n, count=1)
                latencies[wire] += answered(self.load.put(load))
        for wire, more in added(latencies["engine"], latencies).items():
            self._added_ms.setdefault(wire, []).extend(more)
        for way, turn in latencies.items():
            self._cell(way, 1).add(sum(turn) / 1e3, turn)

    def _seconds(self, groups: Sequence[Group]) -> float:
        """Of the engine, given these groups in one call."""
        started = time.perf_counter()
        self._engine.score(groups)
        return time.perf_counter() - started

    def _cell(self, way: str, concurrency: int) -> _Cell:
        return self._cells.setdefault((way, concurrency), _Cell())

    def _rows(self) -> Iterator[ServerRow]:
        saturated = self._cells["engine", len(self._groups)]
        for (way, concurrency), cell in sorted(self._cells.items()):
            if way == "engine":
                yield cell.row("engine: judge", concurrency)
            else:
                yield cell.row(f"prefrm {way}: judge", concurrency, of=saturated)


class SmallRounds:
    """The two-layer model behind prefrm's server and, where there is one, behind MLServer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cells: dict[tuple[str, int], _Cell] = {}

    def run(self, advance: Advance) -> list[ServerRow]:
        """All rows."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_requests(small_groups(SMALL_GROUPS), build_scorer("two-layers"), folder)
            load = stack.enter_context(LoadProcess(folder))
            ways = self._start(stack)
            for server, wire in ways.values():
                answered(load.put(Load(target=_address(server, wire), wire=wire, concurrency=8, seconds=0.5)))
            for done in range(self._settings.rounds):
                advance(done)
                self._round(load, ways)
            advance(self._settings.rounds)
        return list(self._rows(ways))

    def _start(self, stack: ExitStack) -> dict[str, tuple[ServerProcess, str]]:
        ours = stack.enter_context(prefrm_server("two-layers", threads=1))
        ways = {"prefrm grpc": (ours, "grpc")}
        if self._settings.http:
            ways["prefrm http"] = (ours, "http")
        if self._settings.mlserver is not None:
            ways[MLSERVER] = (stack.enter_context(mlserver(self._settings.mlserver)), "grpc")
        return ways

    def _round(self, load: LoadProcess, ways: dict[str, tuple[ServerProcess, str]]) -> None:
        for concurrency in CONCURRENCIES:
            for way, (server, wire) in ways.items():
                outcome = load.put(
                    Load(
                        target=_address(server, wire),
                        wire=wire,
                        concurrency=concurrency,
                        seconds=self._settings.seconds,
                    )
                )
                cell = self._cells.setdefault((way, concurrency), _Cell())
                cell.add(outcome.seconds, answered(outcome))

    def _rows(self, ways: Sequence[str] | dict[str, tuple[ServerProcess, str]]) -> Iterator[ServerRow]:
        for way in ways:
            for concurrency in CONCURRENCIES:
                theirs = None if way == MLSERVER else self._cells.get((MLSERVER, concurrency))
                cell = self._cells[way, concurrency]
                yield cell.row(f"{way}: two layers", concurrency, against=theirs)


def _address(server: ServerProcess, wire: str) -> str:
    return server.grpc if wire == "grpc" else server.http
