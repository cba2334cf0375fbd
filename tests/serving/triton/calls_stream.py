"""Streams of gRPC: the order of their answers, ids, and errors inside."""

import queue

from tests.serving.triton.calls_inference import GROUPS, A, B
from tests.serving.triton.conftest import noise
from tests.serving.triton.registry import add, on
from tests.serving.triton.wire import infer_request

FINAL = "triton_enable_empty_final_response"


def good(id="", count=2, **parameters):
    return infer_request(images=[noise(n) for n in range(count)], id=id, **parameters)


def refused_by_the_model(id, **parameters):
    return infer_request(images=[A], id=id, **parameters)


def refused_before_the_model(id):
    request = good(id)
    del request.raw_input_contents[1]
    return request


for name, requests in {
    "stream_of_none": [],
    "stream_of_one": [good("a")],
    "stream_without_an_id": [good()],
    "stream_in_order": [good("slow", 10), good("b"), refused_before_the_model("c"), good("d")],
    "stream_with_a_refusal_by_the_model": [good("a"), refused_by_the_model("b"), good("c")],
    "stream_with_an_unknown_model": [good("a"), infer_request(images=[A, B], model="nobody", id="b")],
    "stream_with_a_malformed_request": [good("a"), refused_before_the_model("b"), good("c")],
    "stream_with_an_empty_final_response": [good("a", **{FINAL: ("bool_param", True)})],
    "stream_with_a_refusal_and_a_final_response": [
        refused_by_the_model("a", **{FINAL: ("bool_param", True)})
    ],
    "stream_with_a_final_response_as_text": [good("a", **{FINAL: ("string_param", "x")})],
    "stream_with_a_timeout_that_is_over": [good("a", timeout=("int64_param", 1)), good("b")],
    "stream_with_a_reserved_parameter": [good("a", triton_mine=("string_param", "x")), good("b")],
}.items():
    add(name, lambda wire, requests=requests: wire.stream(*requests), "grpc")


@on("grpc")
def stream_of_the_stock_client(wire):
    received = queue.Queue()
    client = wire.client
    client.start_stream(lambda result, error: received.put((result, error)))
    for model, id in (("judge", "a"), ("nobody", "b"), ("judge", "c")):
        client.async_stream_infer(model, wire.inputs(GROUPS), request_id=id)
    answers = [received.get(timeout=30) for _ in range(3)]
    client.stop_stream()
    return [
        "refused" if error else (result.get_response().id, result.as_numpy("win_rate").ravel().tolist())
        for result, error in answers
    ]
