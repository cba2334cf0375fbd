"""The benchmark of the server in numbers and as tables; measures nothing."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from prefrm.display import markdown_table, short_number
from prefrm.files import write_whole

__all__ = ["Overload", "ServerReport", "ServerRow", "percentile", "write_server_report"]

JSON = "server.json"
LINE = 110
TABLE = Path("serving") / "table.md"
HEADER = ["server", "at once", "groups a second", "p50 ms", "p99 ms", "of engine", "of MLServer"]
MEASURED = (
    "{device}; {rounds}. A request has one group of four. *judge* is a random Qwen2.5-VL of six layers with "
    "{tokens} tokens an image, on {threads}; *engine* is the same without a server, given so many groups a "
    "call. *two layers* is a model that takes no time, on one thread."
)
ADDED = (
    "One request at a time, the server of *judge* takes {added} longer than the engine for the same group: "
    "medians of the differences."
)
OVERLOADED = (
    "Overload: {offered:.0f} requests a second for {seconds:.0f} s on the server of *judge*, whose most is "
    "{peak:.3g}. It answered {accepted:.3g} a second, {of_peak:.2f} of that, and refused {refused} requests, "
    "99% of them within {refusal:.3g} ms. Of the requests that it accepted, {lost} got no answer or a wrong "
    "one. Its memory was {before:.0f} MB before and {after:.0f} MB after."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    """What a server did at a number of concurrent requests.

    Attributes:
        server: who answered, over which wire, with which model.
        concurrency: requests under way; of the engine itself, groups a call.
        rps: requests a second; of the engine, groups. The median of the rounds, as the following.
        p50_ms: of a request; of the engine, of a call.
        p99_ms: likewise.
        of_engine: `rps` as a part of the engine's at saturation, in the same round; None of another model.
        of_mlserver: `rps` as a multiple of MLServer's, in the same round; None if it was not measured.
    """

    server: str
    concurrency: int
    rps: float
    p50_ms: float
    p99_ms: float
    of_engine: float | None = None
    of_mlserver: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """What a server did with more than it can do.

    Attributes:
        seconds: how long it was asked for too much.
        offered_rps: requests a second.
        peak_rps: what it does at most, measured before and after.
        accepted_rps: right answers a second, until the last one of what was accepted meanwhile.
        of_peak: the part of `peak_rps` that this is.
        refused: requests that were turned away.
        refusal_p99_ms: how long that took.
        accepted_p99_ms: how long an answer took; None if there was none.
        lost: requests that got neither a right answer nor a refusal.
        resident_mb: memory of the server's process, before and after, in MiB.
    """

    seconds: float
    offered_rps: float
    peak_rps: float
    accepted_rps: float
    of_peak: float
    refused: int
    refusal_p99_ms: float
    accepted_p99_ms: float | None
    lost: int
    resident_mb: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReport:
    """All that a run gave.

    Attributes:
        device: for people.
        rounds: of which a figure is the median.
        threads: of torch, in the server of the judge and in the engine beside it.
        image_tokens: of an image of the judge.
        rows: in the order in which they are read.
        added_ms: what a wire adds to a single request of the judge's, by its name: the median, over the
            groups, of the request's time less that of the same call in this process.
        overload: on the judge.
    """

    device: str
    rounds: int
    threads: int
    image_tokens: int
    rows: tuple[ServerRow, ...]
    added_ms: Mapping[str, float]
    overload: Overload

    def to_json(self) -> str:
        """Of plain data: `rows`, `added_ms` and `overload`; null where a figure does not apply."""
        plain = {
            "rows": [asdict(row) for row in self.rows],
            "added_ms": dict(self.added_ms),
            "overload": asdict(self.overload),
        }
        return json.dumps(plain, indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """What was measured, a table, what the server adds to one request, and the overload."""
        said = MEASURED.format(
            device=self.device,
            rounds="one round" if self.rounds == 1 else f"medians of {self.rounds} alternating rounds",
            tokens=self.image_tokens,
            threads="one thread" if self.threads == 1 else f"{self.threads} threads",
        )
        table = markdown_table(HEADER, [_cells(row) for row in self.rows])
        added = ADDED.format(
            added=" and ".join(f"{value:.3g} ms over {wire}" for wire, value in self.added_ms.items())
        )
        said, added, overloaded = (textwrap.fill(text, LINE) for text in (said, added, self._overloaded()))
        return f"{said}\n\n{table}\n\n{added}\n\n{overloaded}\n"

    def _overloaded(self) -> str:
        overload = self.overload
        return OVERLOADED.format(
            offered=overload.offered_rps,
            seconds=overload.seconds,
            peak=overload.peak_rps,
            accepted=overload.accepted_rps,
            of_peak=overload.of_peak,
            refused=overload.refused,
            refusal=overload.refusal_p99_ms,
            lost=overload.lost,
            before=overload.resident_mb[0],
            after=overload.resident_mb[1],
        )


def write_server_report(report: ServerReport, docs: Path) -> None:
    """Write `server.json` and `serving/table.md` into `docs`."""
    (docs / TABLE).parent.mkdir(parents=True, exist_ok=True)
    write_whole(docs / JSON, report.to_json())
    write_whole(docs / TABLE, report.to_markdown())


def percentile(values: Sequence[float], share: float) -> float:
    """The value that a share of them, of which there is one at least, does not exceed."""
    assert values
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _cells(row: ServerRow) -> Sequence[str]:
    return [
        row.server,
        str(row.concurrency),
        short_number(row.rps),
        f"{row.p50_ms:.3g}",
        f"{row.p99_ms:.3g}",
        "-" if row.of_engine is None else f"{row.of_engine:.2f}",
        "-" if row.of_mlserver is None else f"{row.of_mlserver:.2f}",
    ]
