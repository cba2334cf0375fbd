"""No attack: what the table shows of a server that nobody attacks."""

import time

from tests.serving.attacks.target import Target


def attack(target: Target, until: float) -> int:
    """Wait."""
    time.sleep(max(0.0, until - time.monotonic()))
    return 0
