"""What the stock clients cannot send: raw HTTP, well-formed and not, and the codec on arbitrary bytes."""

import base64
import contextlib
import gzip
import json
import socket
import tracemalloc
import zlib

import httpx
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prefrm.protocol import OUTPUTS, encode_groups
from prefrm.winmatrix import Group
from serving.errors import InvalidRequestError, ServingError, TooLargeError, UnsupportedError
from serving.inflight import InFlightBytes
from serving.limits import Limits
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from serving.steps import finish
from serving.tensors import InputTensor, pack, read_inputs, to_elements
from serving.wire.compression import compress
from serving.wire.compression import decompress as decompressing
from serving.wire.http_codec import json_size, parse_request
from serving.wire.json_writing import write_json

PROMPT = {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["a cat"]}
IMAGES = {"name": "images", "datatype": "BYTES", "shape": [1, 2], "data": ["x", "y"]}
VALID = {"inputs": [PROMPT, IMAGES]}


def decompress(body, encoding, *, limit):
    return finish(decompressing(body, encoding, limit=limit, lease=InFlightBytes(Limits()).lease()))


def infer(served, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(f"http://{served.http}/v2/models/judge/infer", content=content, headers=headers)


def refused(response: httpx.Response) -> str:
    """The message of an answer that must have the one form of every error."""
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    return body["error"]


def test_json_in_json_out(served):
    response = infer(served, VALID | {"id": "7"})
    assert response.status_code == 200
    assert "inference-header-content-length" not in response.headers
    answer = response.json()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "judge", "1")
    data = {output["name"]: output["data"] for output in answer["outputs"]}
    assert list(data) == [spec.name for spec in OUTPUTS if spec.name != "tie"]
    # JSON has no NaN.
    assert data["win_matrix"] == [None] * 4
    assert data["valid"] == [False] * 4
    assert data["error"] == ["not a valid PNG or JPEG or WEBP image"] * 2


def test_data_may_be_nested_as_the_shape_is(served):
    nested = [PROMPT | {"data": [["a cat"]]}, IMAGES | {"data": [["x", "y"]]}]
    assert infer(served, {"inputs": nested}).json() == infer(served, VALID).json()


def test_a_version_in_the_path(served):
    assert httpx.post(f"http://{served.http}/v2/models/judge/versions/1/infer", json=VALID).status_code == 200
    response = httpx.post(f"http://{served.http}/v2/models/judge/versions/2/infer", json=VALID)
    assert response.status_code == 404
    assert "unknown model: 'judge' version 2 is not found" in refused(response)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe{}", "no JSON"),
        (b"[" * 800, "no JSON"),
        (b"[" * 100_000, "more than 896 commas and brackets"),
        ([], "must be a JSON object"),
        ({}, "lacks 'inputs'"),
        ({"inputs": {}}, "'inputs' must be of the JSON kind array"),
        ({"inputs": [3]}, "an input must be"),
        ({"inputs": []}, "missing input 'prompt'"),
        ({"inputs": [PROMPT]}, "missing input 'images'"),
        ({"inputs": [PROMPT, PROMPT, IMAGES]}, "sent twice"),
        ({"inputs": [PROMPT | {"shape": [1, True]}, IMAGES]}, "extent of a shape"),
        ({"inputs": [PROMPT | {"shape": [-1, 1]}, IMAGES]}, "must have the shape"),
        ({"inputs": [PROMPT | {"shape": [4, 1]}, IMAGES]}, "has 1 elements; its shape [4, 1] needs 4"),
        ({"inputs": [PROMPT | {"shape": [2**62, 1]}, IMAGES]}, "may have 4 groups; received 46116"),
        ({"inputs": [PROMPT, IMAGES | {"shape": [-(10**60), 2]}]}, "received [-1000000000"),
        ({"inputs": [PROMPT | {"shape": [0, 1], "data": []}, IMAGES]}, "received 0 and 1"),
        ({"inputs": [PROMPT | {"data": [3]}, IMAGES]}, "no string: int"),
        ({"inputs": [PROMPT | {"data": ["\ud800"]}, IMAGES]}, "no valid text"),
        ({"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1, 1]}, IMAGES]}, "lacks 'data'"),
        ({"inputs": [PROMPT | {"parameters": {"binary_data_size": 4}}, IMAGES]}, "0 bytes are left"),
        ({"inputs": [PROMPT | {"parameters": {"binary_data_size": -1}}, IMAGES]}, "0 bytes are left"),
        (VALID | {"outputs": [{}]}, "lacks 'name'"),
        (VALID | {"outputs": [{"name": "tie", "parameters": {"binary_data": 1}}]}, "true or false"),
        (VALID | {"parameters": {"timeout": "soon"}}, "'timeout' must be"),
        (VALID | {"parameters": {"timeout": 10**60}}, "must be an int64"),
        ({"inputs": [PROMPT | {"data": [[["a"]]]}, IMAGES]}, "no string: list"),
        (VALID | {"id": 7}, "'id' must be of the JSON kind string"),
    ],
)
def test_a_malformed_body_is_a_400_that_says_what_is_wrong(served, body, message):
    response = infer(served, body)
    assert response.status_code == 400
    assert message in refused(response)


@pytest.mark.parametrize("shape", [[1, 17], [4, 9], [1, 10**60], [0, 2**62]])
def test_groups_whose_refusal_alone_would_be_too_large_are_a_413(served, shape):
    images = IMAGES | {"shape": shape, "data": [] if not shape[0] else ["x"] * min(36, shape[0] * shape[1])}
    prompt = PROMPT | {"shape": [shape[0], 1], "data": ["a"] * shape[0]}
    response = infer(served, {"inputs": [prompt, images]})
    assert response.status_code == 413
    assert f"may have 8 candidates; received {str(shape[1])[:20]}" in refused(response)


@pytest.mark.parametrize(
    ("header", "raw", "message"),
    [
        ("x", b"", "Inference-Header-Content-Length is 'x'"),
        ("-1", b"", "is '-1'"),
        ("99999", b"", "the body has"),
        ("9" * 5000, b"", "the body has"),
        (None, b"junk", "4 bytes of the body belong to no input"),
    ],
)
def test_the_header_length_must_fit_the_body(served, header, raw, message):
    content = json.dumps(VALID).encode()
    length = str(len(content)) if header is None else header
    response = infer(served, content + raw, **{"Inference-Header-Content-Length": length})
    assert response.status_code == 400
    assert message in refused(response)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x01\x00", "ends inside the length"),
        (b"\x05\x00\x00\x00ab", "ends inside an element"),
        (b"\xff\xff\xff\xff", "ends inside an element"),
        (b"\x00\x00\x00\x00" * 3, "has more than 2 elements"),
        (b"", "has 0 elements"),
    ],
)
def test_raw_tensors_must_fill_their_shape(served, raw, message):
    images = {"name": "images", "datatype": "BYTES", "shape": [1, 2]}
    images["parameters"] = {"binary_data_size": len(raw)}
    content = json.dumps({"inputs": [PROMPT, images]}).encode()
    response = infer(served, content + raw, **{"Inference-Header-Content-Length": str(len(content))})
    assert response.status_code == 400
    assert message in refused(response)


@pytest.mark.parametrize("shape", [(1, 2), (1, 2**20)])
def test_no_more_elements_are_read_than_the_shape_and_the_limits_have_room_for(shape):
    prompt = InputTensor(name="prompt", datatype="BYTES", shape=(1, 1), elements=["a"])
    zeros = InputTensor(name="images", datatype="BYTES", shape=shape, raw=bytes(2**22))
    tracemalloc.start()
    try:
        with pytest.raises(ServingError, match=r"more than 2 elements|may have 64 candidates"):
            read_inputs([prompt, zeros], Limits())
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/other/ready", 404),
        ("GET", "/v2/models/judge/versions/9/config", 404),
        ("GET", "/v2/models/judge/versions/latest/config", 404),
        ("GET", "/v2/models/judge/versions/01/config", 200),
        ("POST", "/v2/systemsharedmemory/region/mine/register", 501),
        ("POST", "/v2/systemsharedmemory/region/mine/unregister", 200),
        ("POST", "/v2/cudasharedmemory/unregister", 200),
        ("GET", "/v2/cudasharedmemory/status", 200),
        ("GET", "/v2/repository/models/judge/load", 405),
        ("POST", "/v2/repository/models/judge/load", 501),
        ("POST", "/v2/repository/models/judge/drop", 404),
        ("GET", "/v2/models/judge/infer", 405),
        ("DELETE", "/v2/health/live", 405),
        ("POST", "/v2/models/judge/generate", 501),
        ("POST", "/v2/repository/index", 200),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/health/live", 200),
    ],
)
def test_every_route_answers_in_the_one_form(served, method, path, status):
    response = httpx.request(method, f"http://{served.http}{path}")
    assert response.status_code == status
    if status != 200:
        assert refused(response)


def test_a_repository_index_must_be_asked_for_in_json(served):
    url = f"http://{served.http}/v2/repository/index"
    assert httpx.post(url, json={"ready": True}).json()[0]["state"] == "READY"
    for body in (b"[]", b"{"):
        response = httpx.post(url, content=body)
        assert response.status_code == 400
        assert "JSON" in refused(response)


def test_encodings(served):
    body = json.dumps(VALID).encode()
    for encoding, encoded in (
        ("gzip", gzip.compress(body)),
        ("deflate", zlib.compress(body)),
        ("identity", body),
    ):
        response = infer(served, encoded, **{"Content-Encoding": encoding, "Accept-Encoding": encoding})
        assert response.status_code == 200
        assert response.headers.get("content-encoding", "identity") == encoding
        assert response.json()["model_name"] == "judge"
    for encoding, encoded, status, message in (
        ("br", body, 501, "unknown Content-Encoding"),
        ("gzip", body, 400, "no gzip data"),
        ("gzip", gzip.compress(body)[:-9], 400, "truncated"),
    ):
        response = infer(served, encoded, **{"Content-Encoding": encoding})
        assert response.status_code == status
        assert message in refused(response)


def test_errors_and_metadata_are_never_compressed(served):
    # The stock aio client always accepts compression, and decompresses the answers of infer alone.
    accept = {"Accept-Encoding": "gzip, deflate"}
    assert "content-encoding" not in httpx.get(f"http://{served.http}/v2", headers=accept).headers
    assert "content-encoding" not in infer(served, {}, **accept).headers


def test_a_compressed_bomb_is_not_inflated_beyond_the_limit():
    bomb = gzip.compress(bytes(10_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="limit of 1000 bytes"):
            decompress(bomb, "gzip", limit=1000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert decompress(gzip.compress(bytes(1000)), "gzip", limit=1000) == bytes(1000)


def test_all_members_of_a_gzip_body_are_read_and_nothing_else():
    words = [b"one ", b"", b"two " * 50_000, b"three"]
    body = b"".join(gzip.compress(word, mtime=0) for word in words)
    whole = b"".join(words)
    assert decompress(body, "gzip", limit=len(whole)) == whole
    with pytest.raises(TooLargeError):
        decompress(body, "gzip", limit=len(whole) - 1)
    for more, message in ((b"x", "truncated"), (b"garbage", "no gzip data"), (body[:-1], "truncated")):
        with pytest.raises(InvalidRequestError, match=message):
            decompress(body + more, "gzip", limit=2 * len(whole))
    with pytest.raises(InvalidRequestError, match="goes on for 7 bytes after its end"):
        decompress(zlib.compress(b"one") + b"garbage", "deflate", limit=100)
    with pytest.raises(InvalidRequestError, match="after its end"):
        decompress(gzip.compress(b"") * 10_001, "gzip", limit=100)


def test_a_body_beyond_the_limit_is_a_413(groups, scorer):
    limits = Limits(request_bytes=2000)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served:
        response = infer(served, b" " * 5_000_000)
        assert response.status_code == 413
        assert "5000000 bytes or more; the limit is 2000" in refused(response)
        response = infer(served, gzip.compress(b" " * 5_000_000), **{"Content-Encoding": "gzip"})
        assert response.status_code == 413
        assert refused(response)
        assert infer(served, VALID).status_code == 200


def raw_answer(served, request, body=()):
    """What comes back, up to the connection's end, and how many pieces of the body were taken."""
    host, port = served.http.split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        sent = 0
        with contextlib.suppress(ConnectionError):
            for piece in body:
                connection.sendall(piece)
                sent += 1
        answer = b""
        with contextlib.suppress(ConnectionError):
            while more := connection.recv(2**16):
                answer += more
    return answer, sent


def test_a_body_that_never_comes_is_a_408_and_the_end_of_the_connection(scorer):
    limits = Limits(deadline_s=0.3)
    with background(JudgeServer(scorer, ModelInfo(name="judge"), limits=limits)) as served:
        for path in (b"/v2/models/judge/infer", b"/v1/score"):
            head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
            answer, _ = raw_answer(served, head)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer.lower()
            assert answer.endswith(b'{"error":"the request\'s body did not come within 0.3 s"}')
        assert infer(served, VALID).status_code == 200


def test_a_client_that_leaves_while_sending_harms_nobody(served, metric, until):
    host, port = served.http.split(":")
    gone = 'prefrm_requests_total{code="CANCELLED",model="",wire="http"}'
    before = metric(served, gone)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v2/models/judge/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"
        )
    until(lambda: metric(served, gone) == before + 1)
    assert infer(served, VALID).status_code == 200


@settings(deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-5, 300).map(str) | st.text(max_size=5))
@example(b'{"inputs":[{"name":"prompt","shape":[1],"datatype":"BYTES","data":[[["a"]]]}]}', None)
def test_arbitrary_bytes_raise_nothing_but_a_refusal(body, header):
    try:
        request, _ = finish(
            parse_request(body, json_size(len(body), header), model="judge", version="", limits=Limits())
        )
        read_inputs(request.inputs, Limits())
    except ServingError as error:
        assert error.http_status == 400


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
FIELD = st.sampled_from(["name", "datatype", "shape", "data", "parameters", "inputs", "outputs", "id"])


@settings(deadline=None)
@given(
    st.dictionaries(FIELD, JSON | st.lists(st.dictionaries(FIELD, JSON, max_size=5), max_size=3), max_size=6)
)
def test_arbitrary_json_raises_nothing_but_a_refusal(value):
    try:
        body = json.dumps(value).encode()
        request, _ = finish(parse_request(body, len(body), model="judge", version="", limits=Limits()))
        read_inputs(request.inputs, Limits())
    except ServingError as error:
        assert error.http_status in (400, 501)


@settings(deadline=None)
@given(st.lists(st.lists(st.binary(max_size=9), min_size=2, max_size=2), min_size=1, max_size=4))
def test_raw_bytes_tensors_are_those_of_the_stock_client(rows):
    from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

    array = encode_groups([Group(prompt="", candidates=tuple(row)) for row in rows])["images"]
    assert pack(array) == serialize_byte_tensor(array).item()
    assert list(deserialize_bytes_tensor(pack(array))) == list(array.flat)


def test_elements_are_exact():
    floats = np.array([[0.1, np.nan], [1 / 3, 0.5]], np.float32)
    text = finish(write_json(to_elements(floats)))
    back = np.array(json.loads(text), dtype=np.float32).reshape(2, 2)
    np.testing.assert_array_equal(back, floats)


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("", None),
        ("br", None),
        ("gzip", "gzip"),
        ("br;q=1.0, deflate", "deflate"),
        ("gzip;q=0, deflate;q=0.5", "deflate"),
        ("gzip; q=0.0", None),
        ("GZIP", "gzip"),
    ],
)
def test_accept_encoding(accepted, encoding):
    assert finish(compress(b"body", accepted))[1] == encoding


def test_an_unknown_content_encoding_is_named():
    with pytest.raises(UnsupportedError, match="'br'"):
        decompress(b"", "br", limit=10)


def test_long_strings_of_json_are_what_was_sent(served, png):
    """A long id, a long parameter, an escaped prompt, and images in base64 as MLServer has them."""
    prompt = PROMPT | {"data": ['"\u00e9" \U0001f34e\\' * 300]}
    large = [base64.b64encode(png(shade) + bytes(200_000)).decode() for shade in (3, 200)]
    images = IMAGES | {"data": large, "parameters": {"content_type": "base64"}}
    body = {"inputs": [prompt, images], "id": "i" * 3000, "parameters": {"note": "n" * 3000}}
    for text in (json.dumps(body), json.dumps(body, ensure_ascii=False).replace("/", "\\/")):
        answer = infer(served, text.encode()).json()
        assert answer["id"] == "i" * 3000
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        assert outputs["valid"] == [True] * 4 or outputs["error"] == ["", ""]
    body["parameters"] = {"note": "n" * 33_000}
    assert "the parameter 'note' must be a number, text" in refused(infer(served, body))
    broken = IMAGES | {"data": [large[0][:-2] + "-=", large[1]], "parameters": {"content_type": "base64"}}
    assert "not base64" in refused(infer(served, {"inputs": [PROMPT, broken]}))
