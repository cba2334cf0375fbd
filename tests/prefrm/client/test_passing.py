"""What passes between each wire's transport and a server: pauses, deadlines, tokens, sizes.

One attempt each; what the scorers make of it, `test_scorers.py` shows.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from prefrm.client import connect
from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._grpc import GrpcTransport
from prefrm.client._http import HttpTransport
from prefrm.client._transport import Failure
from prefrm.errors import DeadlineError, OverloadedError, RequestError, ServerUnavailableError
from prefrm.protocol import encode_groups
from prefrm.winmatrix import Group
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.client.fakes import fake
from tests.prefrm.client.test_remote_scorers import WAYS, agree, url_of

FULL, AWAY, GAVE_UP = "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"
TRANSPORTS = {"grpc": GrpcTransport, "http": HttpTransport}


def attempt(wire, url, group, timeout=10.0):
    """One request over that wire."""

    async def main():
        transport = TRANSPORTS[wire](Endpoint.parse(url), Credentials())
        try:
            return await transport.infer(encode_groups([group]), timeout=timeout)
        finally:
            await transport.close()

    return asyncio.run(main())


def pause_of(wire, code, headers, group):
    """The seconds that a refusal with these headers asks for, and the error that it becomes."""
    with fake(wire, always=(code, headers)) as server, pytest.raises(Failure) as caught:
        attempt(wire, server.url, group)
    assert f"said {code}" in str(caught.value)
    return caught.value.pause, caught.value.kind


@pytest.mark.parametrize("way", ["grpc", "http"])
class TestWhatPasses:
    def test_a_pause_that_the_server_asks_for_is_read(self, way, pair):
        header = {"grpc-retry-pushback-ms": "700"} if way == "grpc" else {"Retry-After": "7"}
        for code in (FULL, AWAY):
            pause, error = pause_of(way, code, header, pair)
            assert (pause, error) == (0.7 if way == "grpc" else 7.0, OverloadedError)
        assert pause_of(way, FULL, {}, pair) == (None, OverloadedError)
        assert pause_of(way, AWAY, {}, pair) == (None, ServerUnavailableError)

    def test_who_gives_up_with_time_left_is_told_from_one_who_is_late(self, way, pair):
        with (
            fake(way, always=(GAVE_UP, {})) as server,
            pytest.raises(Failure, match="said DEADLINE_EXCEEDED") as caught,
        ):
            attempt(way, server.url, pair)
        assert caught.value.kind is DeadlineError

    def test_the_time_that_is_left_travels(self, way, pair):
        with fake(way) as server:
            attempt(way, server.url, pair, timeout=9.0)
        (seen,) = server.inferences
        assert 8_500_000 < seen.timeout <= 9_000_000
        if way == "grpc":
            assert abs(seen.left - 9.0) < 0.5


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_a_token_travels_with_each_request_and_is_never_shown(self, ask, way, pair):
        token = "s3cret-t0ken"
        with fake(way.split()[0], always=("UNAUTHENTICATED", {})) as server:
            with pytest.raises(RequestError) as caught:
                ask(way, server.url, [pair], token=token)
            assert len(server.seen) == 2
            assert all(one.headers["authorization"] == f"Bearer {token}" for one in server.seen)
        # The server repeats what it was told.
        assert "Bearer [token]" in str(caught.value) and token not in str(caught.value)
        assert token not in repr(connect("grpc://127.0.0.1/judge", token=token))

    def test_a_request_too_large_for_the_server_is_halved(self, ask, way, scorer, png):
        images = [png(n, 40, 40) for n in range(12)]
        groups = [Group(prompt=str(n), candidates=tuple(images[n * 2 : n * 2 + 2])) for n in range(6)]
        limits = Limits(request_bytes=7 * len(images[0]))
        with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served:
            url = url_of(way, served)
            assert agree(ask(way, url, groups), scorer.score(groups))
            *found, last = ask(way, url, [*groups, Group(prompt="p", candidates=tuple(images[:9]))])
            assert agree(found, scorer.score(groups))
            assert not last.known.any()
            assert "the group of 9 candidates has" in last.errors[0]
            assert "send smaller or fewer candidates, or raise the server's limit" in last.errors[0]


class TestHttp:
    def test_retry_after_may_be_a_date(self, pair):
        when = format_datetime(datetime.now(UTC) + timedelta(seconds=20), usegmt=True)
        pause, _ = pause_of("http", FULL, {"Retry-After": when}, pair)
        # A date has no fractions of a second.
        assert 10 < pause <= 20

    @pytest.mark.parametrize("value", ["soon", "-3", "", "Thu, 99 Zzz 2026 00:00:00 GMT", "1" * 400])
    def test_a_pause_that_makes_no_sense_makes_no_trouble(self, pair, value):
        pause, error = pause_of("http", FULL, {"Retry-After": value}, pair)
        assert error is OverloadedError and (pause is None or pause >= 0)

    def test_a_request_that_came_too_slowly_or_too_early_may_be_sent_again(self, pair):
        assert pause_of("http", "TIMEOUT", {}, pair) == (None, DeadlineError)
        assert pause_of("http", "TOO_EARLY", {}, pair) == (None, ServerUnavailableError)


@pytest.mark.parametrize("value", ["-1", "soon"])
def test_a_server_may_forbid_to_come_back(pair, value):
    pause, error = pause_of("grpc", FULL, {"grpc-retry-pushback-ms": value}, pair)
    assert pause < 0 and error is OverloadedError
