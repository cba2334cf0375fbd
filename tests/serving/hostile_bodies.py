"""HTTP requests that nobody means well with, as Hypothesis draws them: methods, paths, headers and bodies."""

import base64
import gzip
import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.serving.hostile_images import PICTURE, encoded

__all__ = ["INFER", "RAW", "HostileRequest", "hostile_requests"]

IMAGE = base64.b64encode(encoded(PICTURE, "PNG")).decode()
INFER = "/v2/models/judge/infer"
MODEL_PATHS = ("", "/ready", "/config", "/stats", "/infer", "/generate", "/trace/setting", "/nothing")
PATHS = (
    "/",
    "/v2",
    "/v2/health/live",
    "/v2/models/stats",
    "/v2/repository/index",
    "/v2/repository/models/judge/load",
    "/v2/repository/models/judge/unload",
    "/v2/systemsharedmemory/region/x/register",
    "/v2/logging",
    "/v2/../../etc/passwd",
    "/v2/models/%00/infer",
    "/v2/models/judge%2Finfer",
    "/v2//models//judge//infer",
    "/v2/models/judge/infer/",
    "/%ff%fe",
)
LENGTHS = st.one_of(
    st.sampled_from(["", "-1", "0", "1", "9" * 30, "1e3", "0x10", " 5", "5 "]),
    st.integers(0, 3000).map(str),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Inference-Header-Content-Length": LENGTHS,
        "Content-Encoding": st.sampled_from(["gzip", "deflate", "br", "identity", "", "gzip, gzip"]),
        "Content-Type": st.sampled_from(["application/json", "text/html", "multipart/form-data", "x" * 500]),
        "Accept-Encoding": st.sampled_from(["gzip", "deflate", "gzip;q=0", ";;;,,", "*"]),
        "Accept": st.sampled_from(["text/html", "*/*", ""]),
        "X-Request-Id": st.sampled_from(["x" * 5000, "a=b\tc", '"']),
        "Traceparent": st.sampled_from(["00-0-0-0", f"00-{'a' * 32}-{'b' * 16}-01", "x" * 3000]),
        "Authorization": st.sampled_from(["", "Bearer", "Basic Og=="]),
        "Expect": st.sampled_from(["100-continue", "nothing"]),
    },
)
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.sampled_from(
            ["BYTES", "FP32", "images", "judge", IMAGE, "\ud800", 2**63, -(2**70), 10**400, 10**4000, 1e308]
        ),
    ),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=10), children, max_size=4)
    ),
    max_leaves=8,
)
RAW = (
    b"",
    b"null",
    b"[]",
    b'"',
    b"{" * 100_000,
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b'{"inputs": NaN}',
    b'{"id": "a", "id": 5}',
    b"9" * 10_000,
    gzip.compress(bytes(40_000_000)),
    zlib.compress(bytes(40_000_000)),
    gzip.compress(b"{}")[:-3],
    gzip.compress(gzip.compress(b"{}")),
    b"[" + b"[]," * 1_000_000 + b"1]",
    b'{"inputs": [' + b"{}," * 500_000 + b"{}]}",
    b'{"inputs": [{"name": "images", "shape": [1, 2], "data": [' + b'"",' * 10**6 + b'""]}]}',
    *(
        b'{"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [%d, 1], "data": []},'
        b'{"name": "images", "datatype": "BYTES", "shape": [%d, %d], "data": []}]}' % (groups, groups, size)
        for groups, size in ((0, 2**62), (10**4000, 10**4000), (1, 0), (0, -(10**4000)), (2**62, 2**62))
    ),
    *(
        b'{"inputs": [{"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["p"]},'
        b'{"name": "texts", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]},'
        b'{"name": "context", "datatype": "BYTES", "shape": [1, %d], "data": [%s""]}]}'
        % (size, b'"",' * some)
        for size, some in ((10**4000, 0), (-1, 0), (0, 0), (100_000, 99_999), (60, 59))
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileRequest:
    """What is sent."""

    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(repr=False)


@st.composite
def hostile_requests(draw: st.DrawFn) -> HostileRequest:
    """Mostly POSTs to a model's infer route whose document is mutated; all else as well."""
    document: Any = _document(draw)
    for _ in range(draw(st.integers(0, 3))):
        document = _mutated(document, draw)
    body = draw(
        st.one_of(
            st.just(json.dumps(document).encode("utf-8", "surrogatepass")),
            st.just(json.dumps(document).encode("utf-8", "surrogatepass")),
            JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
            st.sampled_from(RAW),
            st.binary(max_size=200),
        )
    )
    headers = draw(HEADERS)
    encoding = headers.get("Content-Encoding")
    if encoding in ("gzip", "deflate") and len(body) < 10_000 and draw(st.booleans()):
        body = gzip.compress(body, mtime=0) if encoding == "gzip" else zlib.compress(body)
    usual = draw(st.integers(0, 9)) < 7
    method = (
        "POST"
        if usual
        else draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]))
    )
    return HostileRequest(method=method, path=_path(draw, usual), headers=headers, body=body)


def _path(draw: st.DrawFn, usual: bool) -> str:
    if usual:
        return INFER
    if draw(st.booleans()):
        return draw(st.sampled_from(PATHS))
    model = draw(st.sampled_from(["judge", "nobody", "x" * 2000, "%0a", "judge%00"]))
    version = draw(
        st.sampled_from(["", "/versions/1", "/versions/2", "/versions/-1", f"/versions/{'9' * 500}"])
    )
    return f"/v2/models/{model}{version}{draw(st.sampled_from(MODEL_PATHS))}"


def _document(draw: st.DrawFn) -> dict[str, Any]:
    """A request for a group of images or of texts, perhaps with context images and a criterion."""
    more = [
        {"name": "context", "datatype": "BYTES", "shape": [1, 2], "data": ["\0", ""]},
        {"name": "criterion", "datatype": "BYTES", "shape": [1, 1], "data": ["hue"]},
    ]
    return {
        "id": "7",
        "parameters": {"binary_data_output": False, "timeout": 60_000_000},
        "inputs": [
            {"name": "prompt", "datatype": "BYTES", "shape": [1, 1], "data": ["a red cube"]},
            {
                "name": draw(st.sampled_from(["images", "texts"])),
                "datatype": "BYTES",
                "shape": [1, 2],
                "data": [["", "a"]],
            },
            *draw(st.sampled_from([[], more, more[:1], more[1:]])),
        ],
        "outputs": [{"name": "win_matrix", "parameters": {"binary_data": False}}, {"name": "error"}],
    }


def _mutated(document: Any, draw: st.DrawFn) -> Any:
    """The document with one value anywhere in it replaced, doubled, renamed or left out."""
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 5)) == 0:
        return draw(JSON)
    if isinstance(document, list):
        place = draw(st.integers(0, len(document) - 1))
        value = _mutated(document[place], draw)
        return (
            document[:place]
            + draw(st.sampled_from([[], [value], [value], [value, value]]))
            + document[place + 1 :]
        )
    key = draw(st.sampled_from(sorted(document)))
    rest = {name: value for name, value in document.items() if name != key}
    name = draw(
        st.sampled_from([key, key, key, "binary_data_size", "shared_memory_region", "classification", "x"])
    )
    return (
        rest | draw(st.sampled_from([{}, {name: None}]))
        if draw(st.integers(0, 4)) == 0
        else {**rest, name: _mutated(document[key], draw)}
    )
