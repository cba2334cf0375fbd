"""What passes between a client and a server: pauses, deadlines, tokens, sizes, and which judge it is."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from prefrm.client import connect
from prefrm.errors import ConfigError, DeadlineError, OverloadedError, RequestError
from prefrm.protocol import BUNDLE_PARAMETER
from prefrm.winmatrix import Group
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.client.fakes import fake
from tests.prefrm.client.test_remote_scorers import WAYS, agree, free_port, url_of

FULL, AWAY, GAVE_UP = "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("way", WAYS)
class TestWhatPasses:
    @pytest.mark.parametrize("code", [FULL, AWAY])
    def test_a_pause_that_the_server_asks_for_is_kept(self, ask, way, pair, code):
        header = {"grpc-retry-pushback-ms": "700"} if way.startswith("grpc") else {"Retry-After": "1"}
        with fake(way.split()[0], refusals=[(code, header)]) as server:
            assert len(ask(way, server.url, [pair], deadline=20, patience=10)) == 1
            first, second = server.inferences
        assert (0.7 if way.startswith("grpc") else 1.0) <= second.at - first.at < 9

    def test_who_gives_up_with_time_left_is_asked_again_within_the_patience(self, ask, way, pair):
        with fake(way.split()[0], refusals=[(GAVE_UP, {})]) as server:
            assert len(ask(way, server.url, [pair], deadline=20)) == 1
            assert len(server.inferences) == 2
            server.always = (GAVE_UP, {})
            with pytest.raises(DeadlineError, match="gave up: said DEADLINE_EXCEEDED"):
                ask(way, server.url, [pair], deadline=20, patience=0)
            assert len(server.inferences) == 3

    def test_the_time_that_is_left_travels_with_each_attempt(self, ask, way, pair):
        with fake(way.split()[0], refusals=[(FULL, {})] * 3) as server:
            ask(way, server.url, [pair], deadline=9)
        timeouts = [one.timeout for one in server.inferences]
        assert timeouts == sorted(timeouts, reverse=True) and len(set(timeouts)) == 4
        assert 6_000_000 < timeouts[-1] < timeouts[0] <= 9_000_000
        # What passed between two attempts is missing from the second's time.
        for one, other in zip(server.inferences, server.inferences[1:], strict=False):
            assert one.timeout - other.timeout == pytest.approx(1e6 * (other.at - one.at), abs=500_000)
        if way.startswith("grpc"):
            assert all(abs(one.left - one.timeout / 1e6) < 0.5 for one in server.inferences)

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
        groups = [Group(prompt=str(n), images=tuple(images[n * 2 : n * 2 + 2])) for n in range(6)]
        limits = Limits(request_bytes=7 * len(images[0]))
        with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served:
            url = url_of(way, served)
            assert agree(ask(way, url, groups), scorer.score(groups))
            *found, last = ask(way, url, [*groups, Group(prompt="p", images=tuple(images[:9]))])
            assert agree(found, scorer.score(groups))
            assert not last.known.any()
            assert "the group of 9 candidates has" in last.errors[0]
            assert "send smaller or fewer images, or raise the server's limit" in last.errors[0]

    def test_a_server_that_came_back_as_another_judge_is_found_out(self, way, pair, scorer, monkeypatch):
        monkeypatch.setattr("prefrm.client._replicas.IDENTITY_S", 0.0)
        if way.endswith("async"):
            pytest.skip("the policy is the same")
        ports = {"grpc_port": free_port(), "http_port": free_port()}
        with connect(f"{way}://127.0.0.1:{ports[f'{way}_port']}/judge", patience=20) as judge:
            for digest in ("x", "x", "y"):
                model = ModelInfo(name="judge", facts={BUNDLE_PARAMETER: digest})
                with background(JudgeServer(scorer, model, **ports)):
                    if digest == "x":
                        assert judge.score([pair])
                        continue
                    with pytest.raises(ConfigError, match="now serves y, but served x before"):
                        judge.score([pair])
                    judge.close()
                    assert judge.score([pair])


@pytest.mark.parametrize("way", ["http", "http async"])
def test_retry_after_may_be_a_date(ask, way, pair):
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
    with fake("http", refusals=[(FULL, {"Retry-After": when})]) as server:
        ask(way, server.url, [pair], deadline=20)
        first, second = server.inferences
    # A date has no fractions of a second.
    assert 0.9 < second.at - first.at < 5


@pytest.mark.parametrize("way", ["http", "http async"])
@pytest.mark.parametrize("code", ["TIMEOUT", "TOO_EARLY"])
def test_a_request_that_came_too_slowly_or_too_early_is_sent_again(ask, way, pair, code):
    with fake("http", refusals=[(code, {})]) as server:
        assert len(ask(way, server.url, [pair], deadline=20)) == 1
        assert len(server.inferences) == 2


@pytest.mark.parametrize("value", ["soon", "-3", "", "Thu, 99 Zzz 2026 00:00:00 GMT", "1" * 400])
def test_a_pause_that_makes_no_sense_makes_no_trouble(ask, pair, value):
    with (
        fake("http", always=(FULL, {"Retry-After": value})) as server,
        pytest.raises(OverloadedError, match="said RESOURCE_EXHAUSTED"),
    ):
        ask("http", server.url, [pair], deadline=1.5)


@pytest.mark.parametrize("way", ["grpc", "grpc async"])
@pytest.mark.parametrize("value", ["-1", "soon"])
def test_a_server_may_forbid_to_come_back(ask, way, pair, value):
    with fake("grpc", always=(FULL, {"grpc-retry-pushback-ms": value})) as server:
        with pytest.raises(OverloadedError, match="said RESOURCE_EXHAUSTED"):
            ask(way, server.url, [pair], deadline=20)
        assert len(server.inferences) == 1
