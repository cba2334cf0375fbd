"""What both remote scorers do on any wire: requests, retries, failover, deadlines, over fake transports.

When they wait and for how long, `test_policy.py` shows on a clock of its own; that each wire does its part,
`test_remote_scorers.py`.
"""

import asyncio
import copy
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from prefrm.client import connect, connect_async
from prefrm.errors import (
    ConfigError,
    DeadlineError,
    OverloadedError,
    RecordError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.winmatrix import Group, Inputs, Scorer
from tests.prefrm.client.test_remote_scorers import agree
from tests.prefrm.client.transports import (
    FakeTransport,
    Replica,
    away,
    failed,
    full,
    gave_up,
    refused,
)

ONE, TWO = "grpc://r0/judge", "grpc://r0,r1/judge"


@pytest.fixture
def replicas(monkeypatch):
    """Two replicas behind the hosts r0 and r1, which both scorers reach without a wire."""
    made = [Replica(), Replica()]

    def transport(endpoint, credentials):
        return FakeTransport(made[int(endpoint.address[1])])

    monkeypatch.setattr("prefrm.client._core._open", transport)
    yield made
    for one in made:
        one.gate.set()


@pytest.fixture(params=["grpc", "grpc async"], ids=["blocking", "async"])
def score(request, ask):
    """Score once through a scorer made for it: `score(url, groups, **options)`."""
    return lambda url, groups, **options: ask(request.param, url, groups, **options)


class TestRequests:
    def test_matrices_come_in_the_order_of_groups_of_any_sizes(self, score, replicas, scorer, mixed):
        assert agree(score(ONE, mixed), scorer.score(mixed))
        assert agree(score(ONE, (group for group in mixed)), scorer.score(mixed))

    def test_what_the_judge_does_not_read_is_not_sent(self, score, replicas, scorer, pair):
        replicas[0].inputs = Inputs(kinds=("image", "video"), criterion=True)
        groups = [
            pair,
            replace(pair, criterion="hue"),
            replace(pair, context=pair.candidates[:1]),
            replace(pair, candidates=("a", "b")),
        ]
        *judged, edit, texts = score(ONE, groups)
        assert agree(judged, scorer.score(groups[:2]))
        assert [matrix.errors for matrix in (edit, texts)] == [
            (replicas[0].inputs.refusal(group),) * 2 for group in groups[2:]
        ]
        assert replicas[0].groups == 2

    def test_no_groups_are_no_matrices(self, score, replicas):
        assert score(ONE, []) == [] and replicas[0].asked == []

    def test_what_is_no_list_of_groups_is_not_sent(self, score, replicas, pair):
        for given, said in (
            (pair, r"received Group: write score\(\[group\]\)"),
            (None, "received NoneType"),
            ([pair, [pair]], "its item 1 is list"),
            ("group", "its item 0 is str"),
        ):
            with pytest.raises(RecordError, match=said):
                score(ONE, given)
        assert replicas[0].asked == []

    def test_a_prompt_that_is_no_text_is_not_sent_and_the_others_are(self, score, replicas, scorer, pair):
        refused, found = score(ONE, [Group(prompt="\udc80", candidates=pair.candidates), pair])
        assert agree([found], scorer.score([pair]))
        assert not refused.known.any() and "is not valid Unicode text" in refused.errors[0]
        assert len(replicas[0].asked) == 1

    def test_many_groups_become_several_requests(self, score, replicas, scorer, png):
        groups = [Group(prompt=str(n), candidates=(png(n % 9, 4, 4), png(n % 7, 4, 4))) for n in range(150)]
        assert agree(score(ONE, groups), scorer.score(groups))
        assert len(replicas[0].asked) > 1

    def test_a_request_too_large_for_the_server_is_halved(self, score, replicas, scorer, pair):
        replicas[0].most = 2
        groups = [Group(prompt=str(n), candidates=pair.candidates) for n in range(7)]
        assert agree(score(ONE, groups), scorer.score(groups))
        replicas[0].most = 0
        for matrix in score(ONE, groups):
            assert not matrix.known.any()
            assert "the group of 2 candidates has" in matrix.errors[0]
            assert "send smaller or fewer candidates, or raise the server's limit" in matrix.errors[1]


class TestRetries:
    def test_the_pause_that_a_server_asks_for_is_kept(self, score, replicas, pair):
        for error in (full(0.3), away(0.3)):
            replicas[0].refusals, replicas[0].asked = [error], []
            assert len(score(ONE, [pair], deadline=20)) == 1
            first, second = replicas[0].asked
            assert 0.3 <= second.at - first.at < 9

    def test_who_gives_up_with_time_left_is_asked_again_within_the_timeout(self, score, replicas, pair):
        replicas[0].refusals = [gave_up()]
        assert len(score(ONE, [pair], deadline=20)) == 1
        assert len(replicas[0].asked) == 2
        replicas[0].always = gave_up()
        with pytest.raises(DeadlineError):
            score(ONE, [pair], deadline=20, unavailable_timeout=0)
        assert len(replicas[0].asked) == 3

    def test_the_time_that_is_left_is_given_to_each_attempt(self, score, replicas, pair):
        replicas[0].refusals = [full()] * 3
        score(ONE, [pair], deadline=9)
        asked = replicas[0].asked
        assert len({one.timeout for one in asked}) == 4
        assert all(one.timeout == pytest.approx(9 - (one.at - asked[0].at), abs=0.5) for one in asked)

    def test_a_server_that_stays_full_is_overloaded(self, score, replicas, pair):
        replicas[0].always = full()
        with pytest.raises(OverloadedError, match="the queue is full"):
            score(ONE, [pair], deadline=0.5)
        assert len(replicas[0].asked) > 1

    def test_a_server_that_stays_away_is_unavailable_once_the_timeout_is_over(self, score, replicas, pair):
        replicas[0].always = away()
        started = time.monotonic()
        with pytest.raises(ServerUnavailableError, match="is not available: nobody listens"):
            score(ONE, [pair], unavailable_timeout=0.3)
        assert time.monotonic() - started < 2
        assert len(replicas[0].asked) > 1

    def test_a_refusal_or_a_failure_is_not_repeated(self, score, replicas, pair):
        for error in (refused(), failed()):
            replicas[0].always, replicas[0].asked = error, []
            with pytest.raises(error.kind, match=str(error)) as caught:
                score(ONE, [pair])
            assert type(caught.value) is error.kind and len(replicas[0].asked) == 1

    def test_the_deadline_ends_a_call_and_the_next_is_answered(self, replicas, pair):
        replicas[0].gate.clear()
        with connect(ONE, deadline=0.3) as judge:
            started = time.monotonic()
            with pytest.raises(DeadlineError):
                judge.score([pair])
            assert 0.3 <= time.monotonic() - started < 2
            replicas[0].gate.set()
            assert judge.score([pair])[0].valid.all()


class TestTwoReplicas:
    def test_one_call_is_spread_over_both_and_put_together_again(self, score, replicas, scorer, mixed):
        groups = mixed * 30
        assert agree(score(TWO, groups), scorer.score(groups))
        assert sum(one.groups for one in replicas) == len(groups)
        assert min(one.groups for one in replicas) > len(groups) / 5

    def test_parts_are_under_way_on_both_at_once(self, score, replicas, pair, until):
        for one in replicas:
            one.gate.clear()

        def open_when_both_are_asked():
            until(lambda: all(one.groups for one in replicas))
            for one in replicas:
                one.gate.set()

        opener = threading.Thread(target=open_when_both_are_asked)
        opener.start()
        # Were one part sent after the other, the first would never be answered.
        assert len(score(TWO, [pair] * 8, deadline=20)) == 8
        opener.join()

    @pytest.mark.parametrize("error", [full(), away(), gave_up()], ids=["full", "away", "gave up"])
    def test_one_that_cannot_answer_is_passed_over_without_waiting(self, score, replicas, pair, error):
        replicas[0].always = error
        # Without time to wait, whoever had to wait would fail.
        assert len(score(TWO, [pair] * 3, unavailable_timeout=0, deadline=10)) == 3
        assert replicas[1].groups == 3

    def test_a_refusal_is_no_reason_to_ask_the_other(self, score, replicas, pair):
        for error in (refused(), failed()):
            for one in replicas:
                one.always, one.asked = error, []
            with pytest.raises(error.kind):
                score(TWO, [pair])
            assert sum(len(one.asked) for one in replicas) == 1

    def test_both_gone_is_one_error_that_names_both(self, score, replicas, pair):
        replicas[0].always, replicas[1].always = away(), away()
        with pytest.raises(ServerUnavailableError, match="none of 2 replicas") as caught:
            score(TWO, [pair], unavailable_timeout=0.2)
        assert str(caught.value).count("is not available: nobody listens") == 2

    def test_different_judges_are_a_mistake(self, score, replicas, pair):
        replicas[1].bundle = "another"
        with pytest.raises(ConfigError, match="serve different judges") as caught:
            score(TWO, [pair] * 2)
        assert "grpc://r0:8001/judge" in str(caught.value) and "grpc://r1:8001/judge" in str(caught.value)

    def test_each_says_once_who_it_is(self, replicas, pair):
        with connect(TWO) as judge:
            for _ in range(4):
                judge.score([pair])
        assert [one.introduced for one in replicas] == [1, 1]

    def test_a_server_that_came_back_as_another_judge_is_found_out(self, replicas, pair, monkeypatch):
        monkeypatch.setattr("prefrm.client._policy.IDENTITY_S", 0.0)
        with connect(ONE) as judge:
            assert judge.score([pair])
            replicas[0].bundle = "y"
            with pytest.raises(ConfigError, match=r"now serves y, but served b+ before"):
                judge.score([pair])
            judge.close()
            assert judge.score([pair])


@pytest.fixture
def impatient(monkeypatch):
    """A client that looks after its servers many times a second."""
    monkeypatch.setattr("prefrm.client._core.LOOK_EVERY_S", 0.1)
    monkeypatch.setattr("prefrm.client._core.LOOK_S", 0.2)


class TestSilence:
    def test_a_server_without_life_is_given_up_long_before_the_deadline(
        self, score, replicas, impatient, pair
    ):
        replicas[0].gate.clear()
        replicas[0].alive = False
        started = time.monotonic()
        assert score(TWO, [pair] * 2)
        with pytest.raises(ServerUnavailableError, match="no sign of life"):
            score(ONE, [pair], unavailable_timeout=0)
        assert time.monotonic() - started < 20
        # Its connection may be one whose other end is gone.
        assert replicas[0].closed >= 2

    def test_a_server_that_lives_may_take_its_time(self, score, replicas, impatient, pair):
        replicas[0].gate.clear()
        opener = threading.Timer(0.6, replicas[0].gate.set)
        opener.start()
        assert score(ONE, [pair], unavailable_timeout=0)
        assert len(replicas[0].asked) == 1
        opener.join()

    def test_the_deadline_holds_while_it_looks(self, score, replicas, impatient, monkeypatch, pair):
        monkeypatch.setattr("prefrm.client._core.LOOK_S", 30.0)
        replicas[0].gate.clear()
        replicas[0].alive = False
        started = time.monotonic()
        with pytest.raises(DeadlineError):
            score(ONE, [pair], deadline=0.4, unavailable_timeout=0)
        assert time.monotonic() - started < 3

    def test_a_failure_at_the_deadline_is_no_stray_error(self, score, replicas, caplog, monkeypatch, pair):
        async def fails_as_it_is_given_up(self, tensors, *, timeout):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                raise away() from None

        monkeypatch.setattr(FakeTransport, "infer", fails_as_it_is_given_up)
        with pytest.raises(DeadlineError):
            score(ONE, [pair], deadline=0.1, unavailable_timeout=0)
        gc.collect()
        assert caplog.records == []

    def test_who_never_answers_is_avoided_by_the_next_call(self, replicas, pair):
        replicas[0].gate.clear()
        with connect(TWO, deadline=0.5) as judge:
            with pytest.raises(DeadlineError):
                judge.score([pair])
            started = time.monotonic()
            assert all(judge.score([pair]) for _ in range(3))
        assert time.monotonic() - started < 0.5
        assert len(replicas[0].asked) == 1


class TestOneScorer:
    def test_it_is_a_scorer_and_threads_may_share_it(self, replicas, scorer, png):
        groups = [Group(prompt="x" * n, candidates=(png(n, 4, 4), png(n + 1, 4, 4))) for n in range(32)]
        with connect(ONE) as judge, ThreadPoolExecutor(8) as pool:
            assert isinstance(judge, Scorer)
            answers = list(pool.map(lambda group: judge.score([group]), groups))
        assert all(agree(a, scorer.score([g])) for a, g in zip(answers, groups, strict=True))

    def test_a_copy_is_a_scorer_of_the_same_judge(self, replicas, scorer, pair):
        with connect(ONE) as judge:
            judge.score([pair])
            with copy.deepcopy(judge) as twin:
                assert twin is not judge
                assert twin.url == judge.url == "grpc://r0:8001/judge"
                assert agree(twin.score([pair]), scorer.score([pair]))
        assert copy.deepcopy(connect_async(ONE)).url == "grpc://r0:8001/judge"

    @pytest.mark.parametrize("error", [refused(), away()], ids=["refused", "away"])
    def test_an_error_that_was_handled_keeps_no_images(self, replicas, pair, error):
        replicas[0].always = error
        gc.disable()
        try:
            with connect(ONE, unavailable_timeout=0) as judge:
                with pytest.raises(ScoringError) as caught:
                    judge.score([pair])
                # Its traceback refers to the frames of the call, and they to the images.
                raised = weakref.ref(caught.value)
                del caught
                assert raised() is None
        finally:
            gc.enable()

    def test_cancelling_an_async_call_is_a_cancellation(self, replicas, pair):
        replicas[0].gate.clear()

        async def main():
            async with connect_async(ONE) as judge:
                call = asyncio.ensure_future(judge.score([pair]))
                await asyncio.sleep(0.1)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call

        asyncio.run(main())

    def test_identity_is_the_bundle_or_the_url_and_fails_as_scoring_does(self, replicas, monkeypatch):
        def identity(blocking):
            if blocking:
                with connect(ONE, unavailable_timeout=0) as judge:
                    return judge.identity()

            async def main():
                async with connect_async(ONE, unavailable_timeout=0) as judge:
                    return await judge.identity()

            return asyncio.run(main())

        async def lost(self):
            raise away()

        for blocking in (True, False):
            replicas[0].bundle = "x"
            assert identity(blocking) == "x"
            replicas[0].bundle = ""
            assert identity(blocking) == "grpc://r0:8001/judge"
        monkeypatch.setattr(FakeTransport, "bundle", lost)
        with pytest.raises(ServerUnavailableError):
            identity(True)
