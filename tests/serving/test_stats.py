"""What is counted of the matrices that the scorer gives."""

import numpy as np

from prefrm.winmatrix import WinMatrix
from serving.stats import Stats


def test_pairs_are_judged_inferred_or_invalid():
    logits = np.full((5, 5), np.nan)
    for n in range(3):
        logits[n, n + 1], logits[n + 1, n] = 1.0, -1.0
    u = np.array([3.0, 2.0, 1.0, 0.0, 0.0])
    matrix = WinMatrix.from_order_logits(logits, errors=["", "", "", "", "gone"])
    matrix = matrix.with_inferred(np.subtract.outer(u, u))
    stats = Stats()
    stats.batch([matrix, matrix], seconds=0.1, waits=[0.0])
    counted = [
        stats.registry.get_sample_value(f"prefrm_{name}_total")
        for name in ("pairs", "inferred_pairs", "invalid_pairs")
    ]
    assert counted == [20, 6, 8]
