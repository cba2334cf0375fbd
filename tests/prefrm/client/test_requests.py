"""The bytes of requests: those of groups of images are what clients have always sent, to the last one."""

import json
import struct

import pytest
import tritonclient.grpc.service_pb2 as pb

from prefrm.client import _grpc, _http
from prefrm.client._transport import Question
from prefrm.protocol import INPUTS, MATRIX_OUTPUTS, encode_groups
from prefrm.winmatrix import Group

OUTPUTS = ["win_matrix", "order_gap", "tie", "valid", "error"]
IMAGES = Group(prompt="über", candidates=(b"one\0", None))
TEXTS = Group(prompt="why?", candidates=("because", None), context=(b"image",), criterion="truth")
# Of each group: the tensors' names, shapes and elements, in the order in which they are sent.
SENT = [
    (IMAGES, [("prompt", [1, 1], ["über".encode()]), ("images", [1, 2], [b"one\0", b""])]),
    (
        TEXTS,
        [
            ("prompt", [1, 1], [b"why?"]),
            ("texts", [1, 2], [b"because", b""]),
            ("context", [1, 1], [b"image"]),
            ("criterion", [1, 1], [b"truth"]),
        ],
    ),
]


def packed(elements: list[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


@pytest.mark.parametrize(("group", "inputs"), SENT)
def test_a_request_over_grpc(group: Group, inputs: list) -> None:
    question = Question(model="judge", id="an id", shape=(1, 2), timeout=5_000_000)
    expected = pb.ModelInferRequest(model_name="judge", id="an id")
    expected.parameters["timeout"].int64_param = 5_000_000
    for name, shape, elements in inputs:
        expected.inputs.add(name=name, datatype="BYTES", shape=shape)
        expected.raw_input_contents.append(packed(elements))
    for name in OUTPUTS:
        expected.outputs.add(name=name)
    assert _grpc._request(question, encode_groups([group])) == expected.SerializeToString()


@pytest.mark.parametrize(("group", "inputs"), SENT)
def test_a_request_over_http(group: Group, inputs: list) -> None:
    length, body = _http._request("an id", 5_000_000, encode_groups([group]), INPUTS, MATRIX_OUTPUTS)
    header = {
        "id": "an id",
        "parameters": {"timeout": 5_000_000},
        "inputs": [
            {
                "name": name,
                "datatype": "BYTES",
                "shape": shape,
                "parameters": {"binary_data_size": len(packed(elements))},
            }
            for name, shape, elements in inputs
        ],
        "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in OUTPUTS],
    }
    assert body[:length] == json.dumps(header).encode()
    assert body[length:] == b"".join(packed(elements) for _, _, elements in inputs)
