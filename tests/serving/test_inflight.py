"""The budget of bytes in flight: who gets room, who is refused, and that nothing leaks."""

import pytest

from prefrm.errors import ConfigError
from serving.errors import BusyError, OverloadedError
from serving.inflight import InFlightBytes
from serving.limits import Limits


def budget(size: int, **limits) -> InFlightBytes:
    return InFlightBytes(Limits(in_flight_bytes=size, request_bytes=1, **limits))


def test_a_request_holds_at_most_what_it_leaves_free():
    bytes_ = budget(100)
    with bytes_.lease() as large:
        large.add(50)
        with pytest.raises(OverloadedError, match="no room for a request of 51 bytes"):
            large.add(1)
        assert bytes_.used == large.size == 50


def test_large_requests_leave_room_for_small_ones():
    bytes_ = budget(1000)
    leases = [bytes_.lease() for _ in range(6)]
    refused: set[int] = set()
    while len(refused) < len(leases):
        for n, lease in enumerate(leases):
            try:
                lease.add(1)
            except OverloadedError:
                refused.add(n)
    assert [lease.size for lease in leases] == pytest.approx([1000 / 7] * 6, abs=1)
    bytes_.lease().add(70)


def test_an_ended_request_returns_all_of_its_bytes():
    bytes_ = budget(100)
    with pytest.raises(ZeroDivisionError), bytes_.lease() as lease:
        lease.add(30)
        lease.release(10)
        assert bytes_.used == 20
        raise ZeroDivisionError
    assert bytes_.used == 0
    # Work in a thread may outlive its request.
    lease.add(10)
    assert bytes_.used == 0


def test_a_size_can_be_checked_before_anything_is_read():
    bytes_ = budget(100)
    bytes_.check(50)
    with pytest.raises(OverloadedError):
        bytes_.check(51)
    assert bytes_.used == 0


def test_the_status_of_an_overload_is_a_setting():
    with pytest.raises(BusyError):
        budget(100, overload_status=503).check(101)


def test_the_budget_has_room_for_the_largest_request():
    with pytest.raises(ConfigError, match="at least 4 times request_bytes, 400; received 399"):
        Limits(request_bytes=100, in_flight_bytes=399)
