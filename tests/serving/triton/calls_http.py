"""HTTP as it is on the wire: bodies, headers and routes that the stock client never sends."""

import gzip
import json
import zlib

from tests.serving.triton.registry import add, on

INFER = "/v2/models/judge/infer"
LENGTH = "Inference-Header-Content-Length"


def body(**fields):
    """A request whose images are text, so that JSON can carry them; none can be decoded."""
    prompt = {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["é"]}
    images = {"name": "images", "datatype": "BYTES", "shape": [1, 2], "data": ["ä", "b"]}
    return {"inputs": [prompt, images], "outputs": [{"name": "valid"}, {"name": "error"}], **fields}


def post(name, content, **headers):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    add(name, lambda wire: wire.http("POST", INFER, content=raw, headers=headers), "http")


def without(part, where="inputs"):
    changed = body()
    del changed[where][0][part]
    return changed


def changed(part, value):
    other = body()
    other["inputs"][1][part] = value
    return other


ENCODED = json.dumps(body(), ensure_ascii=False).encode()

post("json", body())
post("json_nested", changed("data", [["ä", "b"]]))
post("json_with_an_id", body(id="r-1"))
post("json_with_an_empty_id", body(id=""))
post("json_with_an_unknown_field", body(mine=1))
post("json_of_numbers_that_are_none", body(outputs=[{"name": "win_matrix"}]))
post("json_with_every_output", {"inputs": body()["inputs"]})
post("json_with_no_output", body(outputs=[]))
post("json_with_a_nul", changed("data", ["a\0b", "b"]))
post("json_with_headers_parameter", body(parameters={"headers": "a"}))
post("json_timeout_that_is_over", body(parameters={"timeout": 1}))
post("json_too_few_elements", changed("data", ["ä"]))
post("json_too_many_elements", changed("data", ["ä", "b", "c"]))
post("json_without_data", without("data"))
post("json_unknown_datatype", changed("datatype", "TEXT"))
post("json_without_a_tensor", body(inputs=[]))
post("json_parameter_that_is_an_object", body(parameters={"mine": {"a": 1}}))
post("json_parameter_that_is_a_list", body(parameters={"mine": [1]}))
post("json_parameter_that_is_null", body(parameters={"mine": None}))
post("json_reserved_parameter", body(parameters={"triton_mine": 1}))
post("json_huge_extent", changed("shape", [2**62, 4]))

# What is no request at all, or of the wrong JSON kind.
post("json_malformed", b'{"inputs": [')
post("json_followed_by_more", ENCODED + b"xyz")
post("json_list", b"[]")
post("json_without_inputs", {})
post("json_inputs_of_another_kind", body(inputs={}))
post("json_outputs_of_another_kind", body(outputs={}))
post("json_outputs_null", body(outputs=None))
post("json_output_without_a_name", without("name", "outputs"))
post("json_input_without_a_name", without("name"))
post("json_input_without_a_shape", without("shape"))
post("json_input_without_a_datatype", without("datatype"))
post("json_id_that_is_a_number", body(id=5))
post("json_parameters_of_another_kind", body(parameters=[]))
post("json_timeout_as_text", body(parameters={"timeout": "5"}))
post("json_timeout_as_fraction", body(parameters={"timeout": 5.5}))
post("json_negative_timeout", body(parameters={"timeout": -1}))
post("json_priority_as_text", body(parameters={"priority": "5"}))
post("json_element_that_is_a_number", changed("data", ["ä", 5]))
post("json_element_that_is_null", changed("data", ["ä", None]))
post("json_extent_as_text", changed("shape", [1, "2"]))
post("json_extent_as_fraction", changed("shape", [1, 2.5]))
post("json_negative_extent", changed("shape", [-1, 2]))
post("json_lone_surrogate", changed("data", ["ä", "\ud800"]))
post("json_that_is_no_utf8", ENCODED.replace(b'"b"', b'"\xff"'))

post("empty_body", b"")
post("header_length_exact", ENCODED, **{LENGTH: str(len(ENCODED))})
for name, length in {"text": "abc", "too_large": "99999", "negative": "-1", "zero": "0"}.items():
    post(f"header_length_{name}", ENCODED, **{LENGTH: length})
post("header_length_too_small", ENCODED, **{LENGTH: "5"})
post("bytes_that_belong_to_no_input", ENCODED + b"abcd", **{LENGTH: str(len(ENCODED))})

post("body_in_gzip", gzip.compress(ENCODED), **{"Content-Encoding": "gzip"})
post("body_in_deflate", zlib.compress(ENCODED), **{"Content-Encoding": "deflate"})
post("body_as_it_is", ENCODED, **{"Content-Encoding": "identity"})
post("body_that_is_no_gzip", ENCODED, **{"Content-Encoding": "gzip"})
post("body_in_truncated_gzip", gzip.compress(ENCODED)[:-12], **{"Content-Encoding": "gzip"})
post("body_in_an_unknown_encoding", ENCODED, **{"Content-Encoding": "br"})


@on("http")
def binary_input_too_long(wire):
    inputs = [{**tensor, "parameters": {"binary_data_size": 100}} for tensor in body()["inputs"]]
    for tensor in inputs:
        del tensor["data"]
    content = json.dumps({"inputs": inputs}).encode()
    return wire.http("POST", INFER, content=content + b"abcd", headers={LENGTH: str(len(content))})


for name, accepted in {
    "gzip": "gzip",
    "deflate": "deflate",
    "neither": "identity",
    "no_gzip": "gzip;q=0",
}.items():

    def encoding(wire, accepted=accepted):
        return wire.http_headers("POST", INFER, content=ENCODED, headers={"Accept-Encoding": accepted}).get(
            "content-encoding"
        )

    add(f"answer_in_{name}", encoding, "http")


def binary(wire, **fields):
    """Whether the tensors are raw, by the type of the answer and by where its JSON ends."""
    content = json.dumps(fields | {"parameters": {"binary_data_output": True}})
    headers = wire.http_headers("POST", INFER, content=content, headers={"Accept-Encoding": "identity"})
    ends = LENGTH in headers and 0 < int(headers[LENGTH]) < int(headers["content-length"])
    return ends, headers["content-type"]


@on("http")
def binary_answer(wire):
    return binary(wire, inputs=body()["inputs"])


@on("http")
def binary_answer_of_named_outputs(wire):
    return binary(wire, **body())


@on("http")
def type_of_an_error(wire):
    return wire.http_headers("GET", "/v2/models/judge/versions/7/ready")["content-type"]


# Method, path and body of each.
for name, (method, path, content) in {
    "route_unknown": ("GET", "/v3", b""),
    "route_root": ("GET", "/", b""),
    "route_with_a_slash": ("GET", "/v2/", b""),
    "route_models": ("GET", "/v2/models", b""),
    "route_health": ("GET", "/v2/health", b""),
    "route_health_unknown": ("GET", "/v2/health/nope", b""),
    "route_live": ("GET", "/v2/health/live", b""),
    "route_live_post": ("POST", "/v2/health/live", b""),
    "route_ready": ("GET", "/v2/health/ready", b""),
    "route_infer_get": ("GET", INFER, b""),
    "route_infer_slash": ("POST", f"{INFER}/", ENCODED),
    "route_infer_version": ("POST", "/v2/models/judge/versions/1/infer", ENCODED),
    "route_infer_no_version": ("POST", "/v2/models/judge/versions//infer", ENCODED),
    "route_infer_unknown_version": ("POST", "/v2/models/judge/versions/7/infer", ENCODED),
    "route_infer_unknown_model": ("POST", "/v2/models/nobody/infer", ENCODED),
    "route_model_post": ("POST", "/v2/models/judge", b""),
    "route_model_delete": ("DELETE", "/v2/models/judge", b""),
    "route_model_slash": ("GET", "/v2/models/judge/", b""),
    "route_model_unknown": ("GET", "/v2/models/nobody", b""),
    "route_model_quoted": ("GET", "/v2/models/%6audge/ready", b""),
    "route_model_odd": ("GET", "/v2/models/a%20b%2Fc", b""),
    "route_model_versions": ("GET", "/v2/models/judge/versions", b""),
    "route_model_action": ("GET", "/v2/models/judge/nope", b""),
    "route_model_ready": ("GET", "/v2/models/judge/ready", b""),
    "route_model_ready_post": ("POST", "/v2/models/judge/ready", b""),
    "route_model_ready_unknown": ("GET", "/v2/models/nobody/ready", b""),
    "route_version_ready_unknown": ("GET", "/v2/models/judge/versions/7/ready", b""),
    "route_statistics_post": ("POST", "/v2/models/stats", b""),
    "route_config_post": ("POST", "/v2/models/judge/config", b""),
    "route_generate": ("POST", "/v2/models/judge/generate", b"{}"),
    "route_generate_stream": ("POST", "/v2/models/judge/generate_stream", b"{}"),
    "route_index": ("POST", "/v2/repository/index", b""),
    "route_index_get": ("GET", "/v2/repository/index", b""),
    "route_index_ready": ("POST", "/v2/repository/index", b'{"ready": true}'),
    "route_index_malformed": ("POST", "/v2/repository/index", b'{"ready'),
    "route_index_of_another_kind": ("POST", "/v2/repository/index", b'{"ready": "yes"}'),
    "route_load_get": ("GET", "/v2/repository/models/judge/load", b""),
    "route_repository_action": ("POST", "/v2/repository/models/judge/nope", b"{}"),
    "route_shared_memory_region": ("GET", "/v2/systemsharedmemory/region/r/status", b""),
}.items():
    add(
        name,
        lambda wire, method=method, path=path, content=content: wire.http(method, path, content=content),
        "http",
    )
