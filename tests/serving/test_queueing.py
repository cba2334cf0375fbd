"""Batches, the bounded queue, cancelled and expired requests, failures, draining: over both wires."""

import asyncio
import queue
import socket
import threading

import httpx
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from prefrm.client import connect
from prefrm.protocol import encode_groups
from prefrm.winmatrix import Group
from serving.dataplane import DataPlane, InferRequest
from serving.errors import NotReadyError
from serving.limits import Limits
from serving.models import LoadedModel, ModelInfo, ModelRepository
from serving.observing.metrics import Metrics
from serving.observing.requests import Request
from serving.running import background
from serving.server import JudgeServer
from serving.tensors import InputTensor

TINY_QUEUE = Limits(queued_cost=1)
OF_JUDGE = '{model="judge",version="1"}'
IN_FLIGHT = "prefrm_requests_in_flight"


def body(group: Group, **more):
    """A JSON request with the prompt alone readable; its images are text."""
    return {
        "inputs": [
            {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": [group.prompt]},
            {"name": "images", "datatype": "BYTES", "shape": [1, 2], "data": ["x", "y"]},
        ],
        **more,
    }


def grpc_inputs(group: Group):
    return [
        triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)
        for name, array in encode_groups([group]).items()
    ]


def test_a_drained_plane_is_not_ready(scorer):
    async def main():
        limits, metrics = Limits(), Metrics()
        model = LoadedModel(info=ModelInfo(name="judge"), scorer=scorer)
        plane = DataPlane(ModelRepository([model], limits, metrics), limits, metrics)
        request = InferRequest(
            model="judge",
            inputs=[
                InputTensor(name="prompt", datatype="BYTES", shape=(1, 1), elements=[b"p"]),
                InputTensor(name="images", datatype="BYTES", shape=(1, 2), elements=[b"x", b"y"]),
            ],
        )
        with pytest.raises(NotReadyError):
            await plane.infer(request, Request(wire="http"))
        plane.start()
        assert plane.ready
        assert plane.repository_index(ready_only=True)
        assert (await plane.infer(request, Request(wire="http"))).outputs["valid"].shape == (1, 2, 2)
        await plane.drain()
        assert not plane.ready
        assert plane.repository_index(ready_only=True) == []
        assert plane.repository_index()[0]["state"] == "UNAVAILABLE"
        with pytest.raises(NotReadyError):
            await plane.infer(request, Request(wire="http"))

    asyncio.run(main())


def test_a_request_that_its_grpc_client_cancels_is_not_scored(gated, group, metric, until):
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"))) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        answers = queue.Queue()
        for prompt in ("first", "cancelled"):
            call = client.async_infer("judge", grpc_inputs(group(prompt)), lambda **got: answers.put(got))
            until(lambda: bool(gated.calls))
        until(lambda: metric(served, IN_FLIGHT) == 2)
        call.cancel()
        assert "CANCELLED" in str(answers.get(timeout=10)["error"])
        until(lambda: metric(served, IN_FLIGHT) == 1)
        gated.gate.set()
        assert answers.get(timeout=10)["error"] is None
        client.infer("judge", grpc_inputs(group("last")))
        assert gated.calls == [["first"], ["last"]]


def test_a_request_whose_http_client_leaves_is_not_scored(gated, group, metric, until):
    with background(JudgeServer(gated, ModelInfo(name="judge"))) as served:
        url = f"http://{served.http}/v2/models/judge/infer"
        first = threading.Thread(target=lambda: httpx.post(url, json=body(group("first")), timeout=30))
        first.start()
        until(lambda: bool(gated.calls))
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body(group("left")), timeout=0.3)
        until(
            lambda: metric(served, 'prefrm_requests_total{code="CANCELLED",model="judge",wire="http"}') == 1
        )
        gated.gate.set()
        first.join()
        assert httpx.post(url, json=body(group("last"))).status_code == 200
        assert gated.calls == [["first"], ["last"]]


def test_a_timeout_in_the_request_spares_the_work(gated, group, metric, until):
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"))) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        answers = queue.Queue()
        client.async_infer("judge", grpc_inputs(group("first")), lambda **got: answers.put(got))
        until(lambda: bool(gated.calls))
        # Both are answered though the scorer is busy.
        with pytest.raises(InferenceServerException, match=r"deadline.* passed") as caught:
            client.infer("judge", grpc_inputs(group("late")), timeout=1000)
        assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        url = f"http://{served.http}/v2/models/judge/infer"
        request = body(group("late"), parameters={"timeout": 1000})
        response = httpx.post(url, json=request, timeout=30)
        assert response.status_code == 504
        assert "deadline" in response.json()["error"]
        gated.gate.set()
        assert answers.get(timeout=10)["error"] is None
        assert gated.calls == [["first"]]


def test_a_full_queue_answers_at_once_and_says_when_to_come_back(gated, group, metric, until):
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"), limits=TINY_QUEUE)) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        answers = queue.Queue()
        for prompt in ("scored", "queued"):
            client.async_infer("judge", grpc_inputs(group(prompt)), lambda **got: answers.put(got))
            until(lambda: bool(gated.calls))
        until(lambda: metric(served, IN_FLIGHT) == 2)
        response = httpx.post(f"http://{served.http}/v2/models/judge/infer", json=body(group("too much")))
        assert response.status_code == 429
        assert int(response.headers["Retry-After"]) >= 1
        assert "queue is full" in response.json()["error"]
        with pytest.raises(InferenceServerException, match="queue is full") as caught:
            client.infer("judge", grpc_inputs(group("too much")))
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        # It is alive and ready all the while: nothing blocks the event loop.
        assert client.is_server_ready()
        gated.gate.set()
        assert [answers.get(timeout=10)["error"] for _ in range(2)] == [None, None]


def test_a_failure_is_that_batchs_alone_and_is_logged(gated, group, caplog):
    gated.gate.set()
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"))) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        response = httpx.post(f"http://{served.http}/v2/models/judge/infer", json=body(group("poison")))
        assert response.status_code == 500
        assert response.json() == {"error": "scoring failed: ValueError: this prompt breaks the judge"}
        with pytest.raises(InferenceServerException, match="breaks the judge") as caught:
            client.infer("judge", grpc_inputs(group("poison")))
        assert caught.value.status() == "StatusCode.INTERNAL"
        assert client.infer("judge", grpc_inputs(group("sound"))).as_numpy("valid").all()
    assert caplog.text.count("scoring a batch of 1 groups failed") == 2


def test_metrics_count_requests_batches_and_pairs(scorer, group, metric):
    with background(JudgeServer(scorer, ModelInfo(name="judge"))) as served:
        with connect(served.grpc_url) as judge:
            judge.score([group("a"), Group(prompt="b", candidates=(group("").candidates[0], None))])
        httpx.post(f"http://{served.http}/v2/models/judge/infer", json=body(group("c")))
        httpx.post(f"http://{served.http}/v2/models/other/infer", json=body(group("c")))
        httpx.post(f"http://{served.http}/v2/models/judge/infer", content=b"garbage")
        assert metric(served, 'prefrm_requests_total{code="OK",model="judge",wire="grpc"}') == 1
        assert metric(served, 'prefrm_requests_total{code="OK",model="judge",wire="http"}') == 1
        assert metric(served, 'prefrm_requests_total{code="NOT_FOUND",model="",wire="http"}') == 1
        assert metric(served, 'prefrm_requests_total{code="INVALID_ARGUMENT",model="",wire="http"}') == 1
        assert metric(served, 'prefrm_request_seconds_count{wire="http"}') == 3
        assert metric(served, f"prefrm_batch_groups_sum{OF_JUDGE}") == 3
        assert metric(served, f"prefrm_pairs_total{OF_JUDGE}") == 3
        assert metric(served, f"prefrm_invalid_pairs_total{OF_JUDGE}") == 2
        assert metric(served, IN_FLIGHT) == 0


def test_a_connection_that_is_cut_does_not_stop_the_server(served):
    host, port = served.grpc.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"not http2 at all")
    with triton.InferenceServerClient(served.grpc) as client:
        assert client.is_server_live()
