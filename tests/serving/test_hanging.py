"""A scorer that hangs: the server says so wherever it is asked, and takes no more until it is over."""

import asyncio
import time

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc

import serving.server
from prefrm.client import connect
from serving.dataplane import DataPlane
from serving.errors import NotReadyError
from serving.limits import Limits
from serving.models import LoadedModel, ModelInfo, ModelRepository
from serving.observing.metrics import Metrics
from serving.observing.requests import Request
from serving.running import background
from serving.server import JudgeServer


def test_a_scorer_that_hangs_makes_the_server_unready_until_it_goes_on(gated, group, until, monkeypatch):
    monkeypatch.setattr(serving.server, "WATCH_S", 0.05)
    limits = Limits(hang_s=0.2)
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"), limits=limits)) as served,
        triton.InferenceServerClient(served.grpc) as client,
        grpc.insecure_channel(served.grpc) as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)

        def serving_now() -> bool:
            status = health.Check(health_pb2.HealthCheckRequest()).status
            return bool(status == health_pb2.HealthCheckResponse.SERVING)

        def ready() -> list[bool]:
            return [
                client.is_server_ready(),
                client.is_model_ready("judge"),
                httpx.get(f"http://{served.http}/v2/health/ready").status_code == 200,
                httpx.get(f"http://{served.http}/v2/models/judge/ready").status_code == 200,
                serving_now(),
            ]

        assert ready() == [True] * 5
        with connect(served.grpc_url, deadline=2) as judge, pytest.raises(TimeoutError):
            judge.score([group("stuck")])
        until(lambda: ready() == [False] * 5)
        assert client.is_server_live()
        assert client.get_model_repository_index(as_json=True)["models"][0]["reason"] == "hanging"
        started = time.monotonic()
        with (
            connect(served.grpc_url, unavailable_timeout=0) as judge,
            pytest.raises(ConnectionError, match="at ready state"),
        ):
            judge.score([group("refused")])
        assert time.monotonic() - started < 5
        gated.gate.set()
        until(lambda: ready() == [True] * 5)
        with connect(served.grpc_url) as judge:
            assert judge.score([group("again")])[0].valid.all()
    assert gated.calls == [["stuck"], ["again"]]


def test_a_server_that_stops_is_not_ready_before_it_refuses(scorer, group):
    async def main():
        limits, metrics = Limits(notice_s=0.2), Metrics()
        model = LoadedModel(info=ModelInfo(name="judge"), scorer=scorer)
        plane = DataPlane(ModelRepository([model], limits, metrics), limits, metrics)
        plane.start()
        draining = asyncio.ensure_future(plane.drain())
        await asyncio.sleep(0)
        assert not plane.ready
        assert not plane.model_ready("judge", "")
        (matrix,) = await plane.score("judge", "", [group("late")], None, Request(wire="http"))
        assert matrix.valid.all()
        await draining
        with pytest.raises(NotReadyError):
            await plane.score("judge", "", [group("too late")], None, Request(wire="http"))

    asyncio.run(main())
