"""A server that is asked for ten times what it can do: what it still does, and how it says no."""

from prefrm.errors import ScoringError
from serving.bench.load import Load, Outcome
from serving.bench.processes import LoadProcess, ServerProcess
from serving.bench.report import Overload, percentile
from serving.bench.rounds import answered

__all__ = ["measure_overload"]

TIMES = 10
REFUSED = "RESOURCE_EXHAUSTED"
AT_ONCE = 32


def measure_overload(load: LoadProcess, server: ServerProcess, *, seconds: float, groups: int) -> Overload:
    """Put ten times its capacity on a server that runs.

    Args:
        load: what puts requests on it.
        server: one with a queue that this fills.
        seconds: for how long.
        groups: how many are timed at a rate that the server can bear, before and after.

    Raises:
        ScoringError: the server gave a wrong answer at that rate, or refused nothing of the
            overload.
    """
    before = _peak(load, server, groups)
    offered = TIMES * before
    # What a full queue takes is taken once.
    load.put(Load(target=server.grpc, rate=offered, seconds=seconds / TIMES))
    resident = server.resident_mb
    outcome = load.put(Load(target=server.grpc, rate=offered, seconds=seconds))
    memory = (resident, server.resident_mb)
    peak = (before + _peak(load, server, groups)) / 2
    return _described(outcome, seconds=seconds, offered=offered, peak=peak, memory=memory)


def _peak(load: LoadProcess, server: ServerProcess, groups: int) -> float:
    outcome = load.put(Load(target=server.grpc, concurrency=AT_ONCE, count=groups))
    return len(answered(outcome)) / outcome.seconds


def _described(
    outcome: Outcome, *, seconds: float, offered: float, peak: float, memory: tuple[float, float]
) -> Overload:
    answers, refusals = (outcome.latencies_ms.get(status, []) for status in ("OK", REFUSED))
    if not refusals:
        counts = {status: len(latencies) for status, latencies in outcome.latencies_ms.items()}
        raise ScoringError(
            f"the server refused nothing of {offered:.0f} requests a second for {seconds:g} s, so that was "
            f"no overload (answers: {counts}); overload it for longer, or let fewer groups wait"
        )
    accepted = len(answers) / outcome.seconds
    return Overload(
        seconds=seconds,
        offered_rps=offered,
        peak_rps=peak,
        accepted_rps=accepted,
        of_peak=accepted / peak,
        refused=len(refusals),
        refusal_p99_ms=percentile(refusals, 0.99),
        accepted_p99_ms=percentile(answers, 0.99) if answers else None,
        lost=sum(map(len, outcome.latencies_ms.values())) - len(answers) - len(refusals),
        resident_mb=memory,
    )
