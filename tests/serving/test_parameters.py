"""What may stand among the parameters of a request, on both wires."""

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from prefrm.protocol import encode_groups
from serving.errors import InvalidRequestError
from serving.tensors import pack
from serving.wire.parameters import read_timeout


@pytest.mark.parametrize(
    ("parameters", "seconds"),
    [
        ({}, None),
        ({"timeout": 0}, None),
        ({"timeout": -1}, None),
        ({"timeout": 2_500_000}, 2.5),
        ({"priority": 7, "mine": "x", "other": 1.5, "third": True}, None),
        ({"triton_enable_empty_final_response": True}, None),
    ],
)
def test_a_timeout_is_in_microseconds(parameters, seconds):
    assert read_timeout(parameters) == seconds


@pytest.mark.parametrize(
    "parameters",
    [
        {"timeout": "5"},
        {"timeout": 1.5},
        {"timeout": True},
        {"timeout": 2**63},
        {"priority": "high"},
        {"triton_enable_empty_final_response": 1},
        {"triton_final_response": True},
        {"mine": None},
        {"mine": [1]},
        {"mine": {}},
    ],
)
def test_what_it_cannot_be_is_refused(parameters):
    with pytest.raises(InvalidRequestError, match=next(iter(parameters))):
        read_timeout(parameters)


@pytest.mark.parametrize(
    ("kind", "value", "code"),
    [
        ("int64_param", 10_000_000, grpc.StatusCode.OK),
        ("int64_param", -5, grpc.StatusCode.OK),
        ("uint64_param", 10_000_000, grpc.StatusCode.INVALID_ARGUMENT),
        ("string_param", "1", grpc.StatusCode.INVALID_ARGUMENT),
        (None, None, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_a_timeout_over_grpc(served, groups, kind, value, code):
    request = pb.ModelInferRequest(model_name="judge")
    for name, array in encode_groups(groups[:1]).items():
        request.inputs.add(name=name, datatype="BYTES", shape=array.shape)
        request.raw_input_contents.append(pack(array))
    parameter = request.parameters["timeout"]
    if kind:
        setattr(parameter, kind, value)
    with grpc.insecure_channel(served.grpc) as channel:
        call = GRPCInferenceServiceStub(channel).ModelInfer.future(request)
        assert call.code() == code


def test_a_negative_timeout_over_http_is_a_mistake(served):
    url = f"http://{served.http}/v2/models/judge/infer"
    response = httpx.post(url, json={"inputs": [], "parameters": {"timeout": -1}})
    assert response.status_code == 400
    assert "must not be negative" in response.json()["error"]
