"""What the stock clients do not send, streams, and the health service."""

import queue

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

import serving.wire.grpc
from prefrm.protocol import encode_groups
from prefrm.winmatrix import Group
from serving.dataplane import ENTRY_BYTES
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer


@pytest.fixture
def channel(served):
    with grpc.insecure_channel(served.grpc) as channel:
        yield channel


@pytest.fixture
def stub(channel):
    return GRPCInferenceServiceStub(channel)


def typed_request(**fields) -> pb.ModelInferRequest:
    """One group of two, in typed contents."""
    request = pb.ModelInferRequest(model_name="judge", **fields)
    for name, shape, elements in (("prompt", [1, 1], [b"a cat"]), ("images", [1, 2], [b"x", b"y\x00"])):
        tensor = request.inputs.add(name=name, datatype="BYTES", shape=shape)
        tensor.contents.bytes_contents.extend(elements)
    return request


def test_typed_contents_are_read_and_raw_ones_are_sent(stub):
    response = stub.ModelInfer(typed_request(id="9"))
    assert response.id == "9"
    assert len(response.raw_output_contents) == len(response.outputs) == 6
    assert not any(output.HasField("contents") for output in response.outputs)
    assert triton.InferResult(response).as_numpy("error").tolist() == [
        [b"not a valid PNG or JPEG or WEBP image"] * 2
    ]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda r: r.raw_input_contents.append(b""), "INVALID_ARGUMENT", "1 raw_input_contents for 2"),
        (lambda r: r.raw_input_contents.extend([b"", b""]), "INVALID_ARGUMENT", "not in both"),
        (lambda r: r.inputs[0].ClearField("contents"), "INVALID_ARGUMENT", "has 0 elements"),
        (lambda r: r.inputs.pop(), "INVALID_ARGUMENT", "missing input 'images'"),
        (lambda r: r.ClearField("inputs"), "INVALID_ARGUMENT", "missing input 'prompt'"),
        (lambda r: r.inputs[1].shape.append(2**62), "INVALID_ARGUMENT", "must have the shape"),
        (
            lambda r: r.parameters["timeout"].MergeFrom(pb.InferParameter(string_param="1")),
            "INVALID_ARGUMENT",
            "'timeout'",
        ),
        (
            lambda r: r.MergeFrom(pb.ModelInferRequest(model_name="other")),
            "NOT_FOUND",
            "unknown model: 'other'",
        ),
    ],
)
def test_a_malformed_request_ends_in_its_status(stub, change, code, message):
    request = typed_request()
    change(request)
    with pytest.raises(grpc.RpcError, match=message) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() == grpc.StatusCode[code]


def test_a_message_beyond_the_limit_is_refused(scorer):
    limits = Limits(request_bytes=2000)
    big = encode_groups([Group(prompt="p", candidates=(b"\x00" * 5000, b"x"))])
    with (
        background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        sent = []
        for name, array in big.items():
            sent.append(triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array))
        with pytest.raises(triton.InferenceServerException, match="larger than max"):
            client.infer("judge", sent)
        assert client.is_server_live()


def stream_inputs(group):
    return [
        triton.InferInput(name, list(array.shape), "BYTES").set_data_from_numpy(array)
        for name, array in encode_groups([group]).items()
    ]


def test_a_stream_answers_in_the_order_of_its_requests_and_goes_on_after_errors(served, scorer, groups):
    answers = queue.Queue()
    sent = [("judge", groups[0]), ("nobody", groups[1]), ("judge", groups[2]), ("judge", groups[1])]
    with triton.InferenceServerClient(served.grpc) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for n, (model, group) in enumerate(sent):
            client.async_stream_infer(model, stream_inputs(group), request_id=str(n))
        for n, (model, group) in enumerate(sent):
            result, error = answers.get(timeout=10)
            if model == "nobody":
                assert "unknown model: 'nobody'" in str(error)
                continue
            assert error is None
            assert result.get_response().id == str(n)
            assert result.get_response().parameters["triton_final_response"].bool_param
            (local,) = scorer.score([group])
            np.testing.assert_array_equal(result.as_numpy("win_matrix")[0], local.p)
        # Blocks for ever where a stream ended in an error.
        client.stop_stream()


def test_the_answers_of_a_stream_wait_for_the_first(gated, group, until):
    gated.gate.clear()
    answers = queue.Queue()
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"))) as served,
        triton.InferenceServerClient(served.grpc) as client,
    ):
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("judge", stream_inputs(group("slow")), request_id="slow")
        client.async_stream_infer("nobody", stream_inputs(group("fast")), request_id="fast")
        until(lambda: bool(gated.calls))
        with pytest.raises(queue.Empty):
            answers.get(timeout=0.1)
        gated.gate.set()
        assert answers.get(timeout=10)[0].get_response().id == "slow"
        assert "unknown model" in str(answers.get(timeout=10)[1])
        client.stop_stream()


def test_a_stream_whose_client_leaves_is_not_worked_on(gated, group, metric, until):
    in_flight = "prefrm_requests_in_flight"
    with background(JudgeServer(gated, ModelInfo(name="judge"))) as served:
        client = triton.InferenceServerClient(served.grpc)
        client.start_stream(lambda result, error: None)
        for prompt in ("first", "second", "third"):
            client.async_stream_infer("judge", stream_inputs(group(prompt)))
            until(lambda: bool(gated.calls))
        until(lambda: metric(served, in_flight) == 3)
        client.stop_stream(cancel_requests=True)
        until(lambda: metric(served, in_flight) == 0)
        client.close()
        gated.gate.set()
        with triton.InferenceServerClient(served.grpc) as other:
            other.infer("judge", stream_inputs(group("last")))
    assert gated.calls == [["first"], ["last"]]


@pytest.mark.parametrize("streamed", [False, True])
def test_bytes_in_flight_are_leased_and_one_request_too_many_is_refused(
    gated, streamed, group, metric, until
):
    sent = stream_inputs(group("x" * 700))
    limits = Limits(request_bytes=1200, in_flight_bytes=4800)
    in_flight = "prefrm_in_flight_bytes"
    with (
        background(JudgeServer(gated, ModelInfo(name="judge"), limits=limits)) as served,
        triton.InferenceServerClient(served.grpc) as client,
        triton.InferenceServerClient(served.grpc) as other,
    ):
        answers = queue.Queue()
        if streamed:
            client.start_stream(lambda result, error: answers.put(error))
            client.async_stream_infer("judge", sent)
        else:
            client.async_infer("judge", sent, lambda result, error: answers.put(error))
        until(lambda: bool(gated.calls))
        held = metric(served, in_flight)
        # The message, its content without the lengths of its three elements, and a matrix of 2 x 2.
        size = sum(len(tensor._get_content()) for tensor in sent)
        assert held == size + (size - 3 * 4) + 4 * ENTRY_BYTES
        with pytest.raises(triton.InferenceServerException, match="no room for a request") as caught:
            other.infer("judge", sent)
        assert caught.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        assert metric(served, in_flight) == held
        gated.gate.set()
        assert answers.get(timeout=10) is None
        until(lambda: metric(served, in_flight) == 0)
        if streamed:
            client.stop_stream()


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService"])
def test_the_health_service_says_serving(channel, service):
    health = health_pb2_grpc.HealthStub(channel)
    response = health.Check(health_pb2.HealthCheckRequest(service=service))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_the_health_service_does_not_know_other_services(channel):
    with pytest.raises(grpc.RpcError) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_full_stream_that_is_cancelled_leaves_nothing_behind(gated, group, metric, until, monkeypatch):
    monkeypatch.setattr(serving.wire.grpc, "STREAM_WINDOW", 2)
    with background(JudgeServer(gated, ModelInfo(name="judge"))) as served:
        client = triton.InferenceServerClient(served.grpc)
        client.start_stream(lambda result, error: None)
        for n in range(5):
            client.async_stream_infer("judge", stream_inputs(group(str(n))))
        until(lambda: metric(served, "prefrm_requests_in_flight") == 2)
        client.stop_stream(cancel_requests=True)
        until(lambda: metric(served, "prefrm_requests_in_flight") == 0)
        client.close()
        gated.gate.set()
    # Of the three beyond the window none was begun.
    assert {prompt for call in gated.calls for prompt in call} <= {"0", "1"}
