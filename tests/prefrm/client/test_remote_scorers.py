"""The contract of the wires, against real servers: parity, deadlines, connections, and what failures become.

What the scorers do on any wire, `test_scorers.py` shows over fake transports.
"""

import asyncio
import contextlib
import gc
import re
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from PIL import Image

from prefrm.client import connect, connect_async
from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._grpc import GrpcTransport
from prefrm.client._http import HttpTransport
from prefrm.client._transport import Failure
from prefrm.errors import (
    DeadlineError,
    OverloadedError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.protocol import BUNDLE_PARAMETER, encode_groups
from prefrm.video import encode_video
from prefrm.winmatrix import Group, Inputs, Scorer
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer

WAYS = ["grpc", "http", "grpc async", "http async"]


def url_of(way: str, addresses) -> str:
    return addresses.grpc_url if way.startswith("grpc") else addresses.http_url


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def agree(remote, local) -> bool:
    return len(remote) == len(local) and all(a.equals(b) for a, b in zip(remote, local, strict=True))


@pytest.mark.parametrize("way", WAYS)
class TestEveryWay:
    def test_matrices_are_those_of_the_local_scorer_bit_by_bit(self, ask, way, served, scorer, mixed):
        assert agree(ask(way, url_of(way, served), mixed), scorer.score(mixed))

    def test_a_group_that_the_judge_does_not_read_costs_the_others_nothing(self, ask, way, slow, pair, png):
        slow.gate.set()
        others = [replace(pair, context=(png(1),)), replace(pair, candidates=("a", "b"), criterion="hue")]
        clip = Group(prompt="clip", candidates=(encode_video([Image.new("RGB", (16, 16))], 1),) * 2)
        with background(JudgeServer(slow, ModelInfo(name="judge"))) as served:
            first, edit, texts, clips, last = ask(way, url_of(way, served), [pair, *others, clip, pair])
        assert agree([first, last], slow.score([pair, pair]))
        for matrix, group in ((edit, others[0]), (texts, others[1]), (clips, clip)):
            assert not matrix.known.any() and set(matrix.errors) == {Inputs().refusal(group)}

    def test_no_proxy_leads_to_this_machine(self, ask, way, served, scorer, pair, monkeypatch):
        for name in ("grpc_proxy", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        url = url_of(way, served)
        assert agree(ask(way, url, [pair], deadline=10, unavailable_timeout=0), scorer.score([pair]))

    def test_an_unknown_model_is_refused_in_the_servers_words(self, ask, way, served, pair):
        wire = way.split()[0]
        url = f"{wire}://{getattr(served, wire)}/other"
        with pytest.raises(
            RequestError, match="refused the request: Request for unknown model: 'other'"
        ) as caught:
            ask(way, url, [pair])
        assert url in str(caught.value)

    @pytest.mark.parametrize(
        ("prompt", "copies", "reason"),
        [
            ("a" * 40_000, 1, "^a prompt may have 32768 bytes; received 40000$"),
            ("p", 35, "^a group may have 64 candidates; received 70$"),
            ("p", 1000, "may have 64 candidates; received 2000.*send smaller or fewer candidates"),
            ("\udc80", 1, "not valid Unicode"),
        ],
    )
    def test_a_group_that_is_refused_is_not_judged_and_the_others_are(
        self, ask, way, served, scorer, pair, prompt, copies, reason
    ):
        refused = Group(prompt=prompt, candidates=pair.candidates * copies)
        one, other, last = ask(way, url_of(way, served), [pair, refused, pair])
        assert agree([one, last], scorer.score([pair, pair]))
        assert other.size == refused.size and not other.known.any()
        assert all(re.search(reason, error) for error in other.errors)

    def test_a_group_beyond_the_servers_bytes_is_not_judged(self, ask, way, scorer, pair):
        limits = Limits(request_bytes=3000)
        big = Group(prompt="p", candidates=(b"\x00" * 200_000, b"x"))
        with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served:
            one, other = ask(way, url_of(way, served), [big, pair], deadline=20)
        assert agree([other], scorer.score([pair]))
        assert re.search(r"larger than max|the limit is 3000", one.errors[0])

    def test_a_dead_server_is_one_line_soon(self, ask, way, pair):
        url = f"{way.split()[0]}://127.0.0.1:{free_port()}/judge"
        started = time.monotonic()
        with pytest.raises(ServerUnavailableError) as caught:
            ask(way, url, [pair], unavailable_timeout=0.3)
        assert time.monotonic() - started < 2
        assert str(caught.value).startswith(f"{url} is not available: ")
        assert re.search("refused|Connect call failed", str(caught.value))
        assert "\n" not in str(caught.value)

    def test_a_host_that_does_not_exist_is_unavailable(self, ask, way, pair):
        with pytest.raises(ServerUnavailableError, match=r"no-such-host\.invalid"):
            ask(way, f"{way.split()[0]}://no-such-host.invalid:1/judge", [pair], unavailable_timeout=0)

    def test_the_deadline_holds_while_the_server_thinks(self, ask, way, slow, pair):
        with background(JudgeServer(slow, ModelInfo(name="judge"))) as served:
            started = time.monotonic()
            with pytest.raises(
                DeadlineError, match=r"timed out: .*its timeout of 0\.4 s; raise it with deadline"
            ):
                ask(way, url_of(way, served), [pair], deadline=0.4)
            assert 0.4 <= time.monotonic() - started < 2
            slow.gate.set()

    def test_the_deadline_holds_where_nobody_reads(self, ask, way, pair):
        # The kernel accepts the connection, and nothing ever answers.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"{way.split()[0]}://127.0.0.1:{silent.getsockname()[1]}/judge"
            started = time.monotonic()
            with pytest.raises((DeadlineError, ServerUnavailableError)):
                ask(way, url, [pair], deadline=0.4, unavailable_timeout=0)
            assert time.monotonic() - started < 2

    def test_a_server_that_stays_full_is_overloaded(self, ask, way, slow, pair, until):
        limits = Limits(queued_cost=1)
        with (
            background(JudgeServer(slow, ModelInfo(name="judge"), limits=limits)) as served,
            ThreadPoolExecutor(2) as pool,
        ):
            fillers = []
            for n in (1, 2):
                fillers.append(pool.submit(ask, "grpc", served.grpc_url, [pair]))
                until(lambda: slow.calls == 1)
                time.sleep(0.1 * n)
            with pytest.raises(OverloadedError, match="the queue is full"):
                ask(way, url_of(way, served), [pair], deadline=0.5)
            slow.gate.set()
            assert all(filler.result(20) for filler in fillers)

    def test_a_failure_of_the_judge_is_reported_once_and_not_repeated(self, ask, way, slow, pair):
        slow.gate.set()
        with background(JudgeServer(slow, ModelInfo(name="judge"))) as served:
            with pytest.raises(ScoringError, match="ValueError: this prompt breaks the judge") as caught:
                ask(way, url_of(way, served), [Group(prompt="poison", candidates=pair.candidates)])
            assert type(caught.value) is ScoringError
            assert "\n" not in str(caught.value)
            assert slow.calls == 1


@pytest.mark.parametrize("wire", ["grpc", "http"])
class TestOneScorer:
    def test_it_is_a_scorer_and_threads_may_share_it(self, wire, served, scorer, png):
        groups = [Group(prompt="x" * n, candidates=(png(n, 4, 4), png(n + 1, 4, 4))) for n in range(32)]
        with connect(getattr(served, f"{wire}_url")) as judge, ThreadPoolExecutor(8) as pool:
            assert isinstance(judge, Scorer)
            answers = list(pool.map(lambda group: judge.score([group]), groups))
        assert all(agree(a, scorer.score([g])) for a, g in zip(answers, groups, strict=True))

    def test_it_survives_a_restart_of_the_server(self, wire, scorer, pair):
        with contextlib.ExitStack() as stack:
            first = background(JudgeServer(scorer, ModelInfo(name="judge")))
            addresses = first.__enter__()
            judge = stack.enter_context(connect(getattr(addresses, f"{wire}_url")))
            before = judge.score([pair])
            first.__exit__(None, None, None)
            ports = {f"{w}_port": int(getattr(addresses, w).split(":")[1]) for w in ("http", "grpc")}
            stack.enter_context(background(JudgeServer(scorer, ModelInfo(name="judge"), **ports)))
            assert agree(judge.score([pair]), before)

    def test_it_is_usable_after_a_deadline(self, wire, slow, pair):
        with (
            background(JudgeServer(slow, ModelInfo(name="judge"))) as served,
            connect(getattr(served, f"{wire}_url"), deadline=0.5) as judge,
        ):
            with pytest.raises(DeadlineError):
                judge.score([pair])
            slow.gate.set()
            assert judge.score([pair])[0].valid.all()

    def test_closing_twice_or_unused_is_harmless_and_scoring_reconnects(self, wire, served, scorer, pair):
        judge = connect(getattr(served, f"{wire}_url"))
        judge.close()
        assert agree(judge.score([pair]), scorer.score([pair]))
        judge.close()
        judge.close()
        assert agree(judge.score([pair]), scorer.score([pair]))
        judge.close()

    def test_an_async_one_works_in_one_event_loop_after_another(self, wire, served, scorer, pair):
        judge = connect_async(getattr(served, f"{wire}_url"))

        async def main(close):
            answers = await asyncio.gather(*[judge.score([pair]) for _ in range(5)])
            if close:
                await judge.close()
            return answers

        with warnings.catch_warnings():
            # Of the connections that the second loop takes with it, unclosed.
            warnings.simplefilter("ignore", ResourceWarning)
            for close in (True, False, True):
                assert all(agree(answer, scorer.score([pair])) for answer in asyncio.run(main(close)))
            gc.collect()

    def test_cancelling_an_async_call_is_a_cancellation(self, wire, slow, pair):
        async def main(url):
            async with connect_async(url) as judge:
                call = asyncio.ensure_future(judge.score([pair]))
                await asyncio.sleep(0.2)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call

        with background(JudgeServer(slow, ModelInfo(name="judge"))) as served:
            asyncio.run(main(getattr(served, f"{wire}_url")))
            slow.gate.set()


WORKERS = """
import multiprocessing, os, sys
from prefrm.client import connect
from prefrm.winmatrix import Group

def rates(judge, prompt="p", size=2):
    return judge.score([Group(prompt=prompt, candidates=(b"abc",) * size)])[0].errors

def often(judge, size):
    # A connection shared by two processes would mix up their answers.
    return all(len(rates(judge, size=size)) == size for _ in range(100))

if __name__ == "__main__":
    judge = connect(sys.argv[1], deadline=20)
    own = rates(judge)
    child = os.fork()
    if child == 0:
        os._exit(0 if often(judge, 3) else 1)
    assert often(judge, 5), "the parent beside its child"
    assert os.waitpid(child, 0)[1] == 0, "the forked child"
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(rates, [judge]) == [own], "the spawned worker"
    assert rates(judge) == own, "the parent afterwards"
    judge.close()
    print("all agree")
"""


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_workers_forked_or_spawned_use_the_scorer_they_were_given(wire, served, tmp_path):
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    command = [sys.executable, str(script), getattr(served, f"{wire}_url")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "all agree\n"), done.stderr


@pytest.mark.parametrize("wire", ["grpc", "http"])
class TestIdentity:
    def test_a_judge_is_known_by_its_bundle(self, wire, scorer):
        model = ModelInfo(name="judge", facts={BUNDLE_PARAMETER: "a" * 64})
        with background(JudgeServer(scorer, model)) as served, connect(url_of(wire, served)) as judge:
            assert judge.identity() == "a" * 64

    def test_a_server_without_a_bundle_is_known_by_its_url(self, wire, served):
        with connect(url_of(wire, served)) as judge:
            assert judge.identity() == judge.url

    def test_it_fails_as_scoring_does(self, wire, served):
        with connect(f"{wire}://{getattr(served, wire)}/other") as judge, pytest.raises(RequestError):
            judge.identity()
        with (
            connect(f"{wire}://127.0.0.1:{free_port()}/judge", unavailable_timeout=0) as judge,
            pytest.raises(ServerUnavailableError),
        ):
            judge.identity()


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_a_request_on_a_connection_that_another_one_closed_may_be_repeated(wire, served, pair):
    endpoint = Endpoint.parse(f"{wire}://{getattr(served, wire)}/judge")

    async def closed():
        transport = (GrpcTransport if wire == "grpc" else HttpTransport)(endpoint, Credentials())
        await transport.close()
        with pytest.raises(Failure, match="closed") as caught:
            await transport.infer(encode_groups([pair]), timeout=5)
        assert caught.value.kind is ServerUnavailableError

    asyncio.run(closed())
