"""The budget of bytes in flight: who gets room, who is refused, and that nothing leaks."""

import pytest

from prefrm.errors import ConfigError
from serving.errors import BusyError, OverloadedError, TooLargeError
from serving.inflight import InFlightBytes
from serving.limits import Limits


def budget(size: int, **limits) -> InFlightBytes:
    return InFlightBytes(Limits(in_flight_bytes=size, request_bytes=1, **limits))


def test_a_request_holds_at_most_what_it_leaves_free():
    bytes_ = budget(100)
    with bytes_.lease() as other, bytes_.lease() as large:
        other.add(10)
        large.add(45)
        with pytest.raises(OverloadedError, match="no room for a request of 46 bytes"):
            large.add(1)
        assert bytes_.used == 55
        assert large.size == 45


def test_what_would_never_have_room_is_too_large():
    with budget(100).lease() as lease:
        lease.add(50)
        with pytest.raises(TooLargeError, match="take 51 bytes; the limit is 50"):
            lease.add(1)


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
        lease.keep(20)
        lease.keep(25)
        assert bytes_.used == 20
        raise ZeroDivisionError
    assert bytes_.used == 0
    # Work in a thread may outlive its request.
    lease.add(10)
    assert bytes_.used == 0


def test_an_ended_request_leaves_no_gap_for_work_in_a_thread():
    bytes_ = budget(100)
    lease, lock = bytes_.lease(), bytes_._lock

    class Handover:
        """A lock for which a thread waits that adds to the lease."""

        def __enter__(self):
            lock.acquire()

        def __exit__(self, *_):
            lock.release()
            bytes_._lock = lock
            lease.add(10)

    bytes_._lock = Handover()
    with lease:
        pass
    assert bytes_.used == 0


def test_a_size_can_be_checked_before_anything_is_read():
    bytes_ = budget(100)
    bytes_.lease().add(10)
    bytes_.check(45)
    with pytest.raises(OverloadedError):
        bytes_.check(46)
    assert bytes_.used == 10


def test_the_status_of_an_overload_is_a_setting():
    bytes_ = budget(100, overload_status=503)
    bytes_.lease().add(10)
    with pytest.raises(BusyError):
        bytes_.check(50)


def test_the_budget_has_room_for_the_largest_request():
    with pytest.raises(ConfigError, match="at least 4 times request_bytes, 400; received 399"):
        Limits(request_bytes=100, in_flight_bytes=399)
