"""What the figures should be, and whether they are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefrm.bench.gpu.results import Result

__all__ = ["BOUND", "ENCODES", "LATE", "LORA", "Goal", "goals", "share_of_peak"]

ENCODES = 0.4
"""Of the card's peak, in the vision tower, and in all that a scalar judge computes."""
LATE = 25.0
"""Times as many groups of 16 a second as by the plain method."""
LORA = 0.9
"""Of a plain loop's tokens a second, over the same comparisons."""
BOUND = 1e-3
"""Of a difference in log-odds."""
K = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A goal and what was measured.

    Attributes:
        text: the goal.
        part: where the figure is from.
        figure: for people.
        reached: whether it is.
    """

    text: str
    part: str
    figure: str
    reached: bool


def share_of_peak(tflops: float, machine: Mapping[str, Any]) -> float:
    """Of the card's peak; of what a matrix product attains, where the peak is not known."""
    peak = machine["peak_tflops"] or machine["product_tflops"]
    return float(tflops / peak)


def goals(results: Sequence[Result], machine: Mapping[str, Any]) -> list[Goal]:
    """Every goal for which something was measured, in the order of the parts."""
    found: list[Goal] = []
    for result in results:
        kind = result.part.partition("-")[0]
        if kind == "engine" and result.measured:
            found += _of_engine(result, machine)
        elif kind == "train":
            found += _of_training(result)
        elif kind == "differences":
            found += _of_differences(result)
    return found


def _of_engine(result: Result, machine: Mapping[str, Any]) -> Iterator[Goal]:
    cells = {(cell["method"], cell["k"]): cell for cell in result.measured["cells"] if not cell["reason"]}
    shares = {"the vision tower": result.measured["encodes_tflops"]}
    if scalar := [cell for (method, _), cell in cells.items() if method == "scalar"]:
        shares[f"scalar at K = {scalar[-1]['k']}"] = scalar[-1]["tflops"]
    for what, tflops in shares.items():
        share = share_of_peak(tflops, machine)
        yield Goal(
            text=f"{ENCODES} of the peak in {what}",
            part=result.part,
            figure=f"{share:.2f}",
            reached=share >= ENCODES,
        )
    late, plain = cells.get(("late", K)), cells.get(("plain", K))
    if late is not None and plain is not None:
        times = plain["seconds"] / late["seconds"]
        yield Goal(
            text=f"late {LATE:g} times as fast as plain at K = {K}",
            part=result.part,
            figure=f"{times:.1f}",
            reached=times >= LATE,
        )


def _of_training(result: Result) -> Iterator[Goal]:
    rows = [row for row in result.measured.get("rows", ()) if not row["reason"]]
    for plain in (row for row in rows if row["method"] == "plain"):
        for ours in rows:
            alike = all(ours[name] == plain[name] for name in ("k", "groups", "comparisons"))
            if ours["method"] == "plain" or not alike:
                continue
            rates = [row["tokens"] / row["seconds"] for row in (ours, plain)]
            yield Goal(
                text=f"{ours['method']} at K = {ours['k']}: {LORA:g} of a plain loop's tokens a second",
                part=result.part,
                figure=f"{rates[0] / rates[1]:.2f}",
                reached=rates[0] >= LORA * rates[1],
            )


def _of_differences(result: Result) -> Iterator[Goal]:
    rows: Sequence[Mapping[str, Any]] = result.measured.get("rows", ())
    kinds = dict.fromkeys((row["compared"], row["dtype"], row["deterministic"]) for row in rows)
    for compared, dtype, deterministic in kinds:
        alike = [
            row
            for row in rows
            if (row["compared"], row["dtype"], row["deterministic"]) == (compared, dtype, deterministic)
        ]
        if deterministic:
            equal = all(row["equal"] for row in alike)
            yield Goal(
                text=f"deterministic=True: the same bits {compared}, {dtype}",
                part=result.part,
                figure="the same" if equal else "others",
                reached=equal,
            )
            continue
        differences = [row["difference"] for row in alike]
        finite = [x for x in differences if x is not None]
        reached = len(finite) == len(differences) and max(finite) < BOUND
        yield Goal(
            text=f"log-odds {compared}, {dtype}: differences below {BOUND:g}",
            part=result.part,
            figure=f"{max(finite):.1e}" if len(finite) == len(differences) else "NaN",
            reached=reached,
        )
