import time

import psutil
import pytest

from prefrm import resources
from prefrm.resources import Resources


def denied(*_: object, **__: object) -> None:
    raise psutil.AccessDenied


@pytest.mark.parametrize("method", ["children", "memory_info"])
def test_a_process_that_may_not_be_asked_does_not_end_the_sampling(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "SECONDS_BETWEEN_SAMPLES", 0.001)
    with monkeypatch.context() as refusing, Resources() as measured:
        refusing.setattr(psutil.Process, method, denied)
        time.sleep(0.05)
        refusing.undo()
        measured.peak_rss_mb = 0.0
        end = time.monotonic() + 10
        while not measured.peak_rss_mb and time.monotonic() < end:
            time.sleep(0.01)
    assert measured.peak_rss_mb > 1


def test_the_total_is_more_than_the_stages() -> None:
    measured = Resources()
    time.sleep(0.02)
    with measured.stage("one"):
        time.sleep(0.01)
    assert list(measured.seconds) == ["one"]
    assert 0.01 <= measured.seconds["one"] <= measured.total_seconds - 0.02


def test_the_total_counts_from_the_start_of_the_run() -> None:
    assert 60 <= Resources(time.monotonic() - 60).total_seconds < 70
