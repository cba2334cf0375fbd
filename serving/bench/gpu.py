"""A part of the benchmark of a GPU (`prefrm.bench.gpu`): a judge behind the server, beside its engine."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from serving.bench.rounds import CONCURRENCIES, JudgeRounds, Settings

__all__ = ["measure"]


def measure(device: str, *, scorer: str, groups: int, single: int, threads: int) -> Iterator[dict[str, Any]]:
    """One round over both wires.

    Args:
        device: of no effect: each scorer has its own.
        scorer: one of `serving.bench.scorers.JUDGES`.
        groups: of each turn but those one by one.
        single: one by one.
        threads: of torch.
    """
    settings = Settings(
        rounds=1,
        groups=groups,
        single=single,
        seconds=0.0,
        overload_seconds=0.0,
        http=True,
        threads=threads,
    )
    with JudgeRounds(settings, scorer) as rounds:
        rows = rounds.run(lambda done: None)
        yield {
            "concurrencies": list(CONCURRENCIES),
            "rows": [asdict(row) for row in rows],
            "added_ms": rounds.added_ms,
        }
