"""Messages that are no request, or that would take far more memory than their length, reach no method."""

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.wire.parsing import MOST_FIELDS, UNREADABLE_MESSAGE, count_fields
from tests.serving.hostile_messages import SERVICE, infer_message

INFER = pb.ModelInferRequest.DESCRIPTOR
BOMBS = {
    "empty inputs": b"\x2a\x00",
    "empty outputs": b"\x32\x00",
    "empty raw contents": b"\x3a\x00",
    "inputs with empty parameters": b"\x2a\x06\x22\x00\x22\x00\x22\x00",
    "inputs with long shapes": b"\x2a\x0a\x1a\x08" + b"\x01" * 8,
    "unknown fields": b"\xfa\x01\x00",
    "unknown groups": b"\xfb\x01\xfc\x01",
}


def test_every_field_is_counted_those_of_messages_in_it_too():
    message = infer_message([b"a red cube"], [[b"", b"image"]], id="7")
    # The model's name and the id; two inputs of a name, a datatype and a shape of two; two raw contents.
    assert count_fields(message.SerializeToString(), INFER, 1000) == 2 + 2 * (1 + 1 + 1 + 1 + 2) + 2
    message.inputs[0].parameters["a"].int64_param = 5
    message.inputs[1].contents.fp32_contents.extend([1.0] * 10)
    # An entry of a key and a value that has a number; contents that have packed numbers of four bytes each.
    assert count_fields(message.SerializeToString(), INFER, 1000) == 16 + 4 + 2 + 40


@given(st.binary(max_size=200))
def test_no_bytes_are_counted_for_ever(data):
    assert 0 <= count_fields(data, INFER, 1000) <= 1000 + len(data)


@pytest.mark.parametrize("name", BOMBS)
def test_counting_stops_early(name):
    assert MOST_FIELDS < count_fields(BOMBS[name] * 1_000_000, INFER, MOST_FIELDS) < MOST_FIELDS + 100


def test_a_mistake_at_the_end_hides_nothing_before_it():
    bomb = b"\x22\x00" * 1000
    first = b"\x2a" + bytes([len(bomb) & 0x7F | 0x80, len(bomb) >> 7]) + bomb
    for last in (b"\x2a\x01\xff", b"\x2a\x05\x0a\xff\xff\xff\xff", b"\xff", b"\x2a\x7f"):
        assert count_fields(first + last, INFER, MOST_FIELDS) > 1000


def test_the_largest_honest_requests_pass():
    images = [bytes([n]) for n in range(64)]
    raw = infer_message([b"p"] * 256, [images] * 256)
    assert count_fields(raw.SerializeToString(), INFER, MOST_FIELDS) < 20
    typed = infer_message([b"p"] * 256, [images] * 256)
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.bytes_contents.extend([b"p"] * 256)
    typed.inputs[1].contents.bytes_contents.extend(images * 256)
    assert count_fields(typed.SerializeToString(), INFER, MOST_FIELDS) < MOST_FIELDS


@pytest.fixture(scope="module")
def channel(scorer):
    with (
        background(JudgeServer(scorer, ModelInfo(name="judge"))) as addresses,
        grpc.insecure_channel(addresses.grpc) as channel,
    ):
        yield channel


@pytest.mark.parametrize(
    "method", [f"{SERVICE}ModelInfer", f"{SERVICE}ServerLive", "/grpc.health.v1.Health/Check"]
)
def test_what_cannot_be_parsed_is_an_invalid_argument(channel, method):
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(method, None, None)(b"\xff\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == UNREADABLE_MESSAGE


def test_a_watch_that_cannot_be_parsed_is_one_too(channel):
    with pytest.raises(grpc.RpcError) as caught:
        list(channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)(b"\xff\xff\xff"))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch", None, health_pb2.HealthCheckResponse.FromString
    )(b"")
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_in_a_stream_the_others_are_answered(channel):
    good = infer_message([b"p"], [[b"", b""]], id="7").SerializeToString()
    call = channel.stream_stream(f"{SERVICE}ModelStreamInfer", None, pb.ModelStreamInferResponse.FromString)
    answers = list(call(iter([good, b"\xff\xff\xff", good]), timeout=10))
    assert [answer.error_message for answer in answers] == ["", UNREADABLE_MESSAGE, ""]
    assert [answer.infer_response.id for answer in answers] == ["7", "", "7"]


@pytest.mark.parametrize("name", BOMBS)
def test_many_tiny_fields_cost_no_memory(channel, name):
    data = BOMBS[name] * (16 * 2**20 // len(BOMBS[name]))
    process = psutil.Process()
    before = process.memory_info().rss
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(f"{SERVICE}ModelInfer", None, None)(data)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (process.memory_info().rss - before) / 2**20 < 100
