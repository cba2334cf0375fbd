"""How long the steps of some work take, of the thread's own time."""

import time

from serving.steps import Steps


def longest_step(work: Steps[object]) -> float:
    """Run all of it. Returns seconds."""
    longest = 0.0
    while True:
        started = time.thread_time()
        try:
            next(work)
        except StopIteration:
            return longest
        longest = max(longest, time.thread_time() - started)
