"""Reading JSON without decoding its long strings: the same values as `json`, in bounded memory and steps."""

import base64
import json
import time
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.errors import InvalidRequestError
from serving.inflight import InFlightBytes
from serving.limits import Limits
from serving.steps import finish
from serving.wire.http_codec import parse_request
from serving.wire.json_reading import LongString, read_json
from serving.wire.score_reading import read_scoring
from serving.wire.score_schema import request_model
from tests.serving.step_times import longest_step

LIMITS = Limits()
MEBIBYTE = 2**20


def read(body):
    return finish(read_json(body, len(body), LIMITS))


def plain(value):
    """The value with its long strings decoded."""
    if isinstance(value, LongString):
        return value.text(MEBIBYTE)
    if isinstance(value, list):
        return [plain(element) for element in value]
    return {key: plain(element) for key, element in value.items()} if isinstance(value, dict) else value


STRINGS = st.text(max_size=10) | st.builds(
    lambda part, times: part * times,
    st.text('ab"\\/\n\u00e9\U0001f600', min_size=1, max_size=5),
    st.integers(0, 400),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | STRINGS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@given(JSON, st.booleans(), st.sampled_from([None, 2]))
@example(["\\" * 65_536, "\\" * 255 + '"', '"' * 65_535 + "\\", "a" * 65_535 + '"' + "b" * 300], True, None)
@example(["x" * 65_537 + "\U0001f600" * 300], True, None)
def test_values_are_those_of_json(value, ascii_, indent):
    body = json.dumps(value, ensure_ascii=ascii_, indent=indent).encode()
    assert plain(read(body)) == value


LONG = '"' + "x" * 1000 + '"'


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1", '["', '["a', '["\\"]', '["\\\\"', LONG[:-1], f"{{{LONG}: 1}}", f"[{LONG} {LONG}]",
     f"{LONG}x", "NaN", f"[NaN, {LONG}]", f"[{LONG}, NaN]", f"[{LONG}, Infinity]", "[-Infinity]", "[01]",
     "\ufeff{}", "[" * 60_000, "9" * 5000, '["\t"]'],
)  # fmt: skip
def test_what_is_no_json_is_refused(text):
    with pytest.raises(InvalidRequestError, match="the request is no JSON: "):
        read(text.encode())


@pytest.mark.parametrize("body", [b'["\xff"]', b"\xff\xfe[\0]\0", b"[\xc3]"])
def test_what_is_no_utf8_is_refused(body):
    with pytest.raises(InvalidRequestError, match="the request is no JSON: 'utf-8' codec"):
        read(body)


@pytest.mark.parametrize("inside", [b"\t", b"\n", b"\x00", b"\xff", b"\\x", b"\\u12", b"\\"])
def test_a_long_string_is_checked_when_it_is_decoded(inside):
    string = read(b'"' + b"x" * 1000 + inside + b' "')
    with pytest.raises(InvalidRequestError, match="no JSON: "):
        string.text(MEBIBYTE)


BIG = 8 * MEBIBYTE
HOSTILE = {
    "a string with an emoji": "\U0001f600".encode() + b"a" * BIG,
    "escaped quotes": b'\\"' * (BIG // 2),
    "backslashes": b"\\\\" * (BIG // 2),
    "surrogates": b"\\ud83d\\ude00" * (BIG // 12),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_huge_string_is_not_decoded(text):
    body = b'{"groups": [{"prompt": "' + text + b'", "images": [null, null]}]}'
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match=r"groups\[0\].prompt: a text has \d+ bytes"):
            finish(read_scoring(body, request_model(LIMITS), LIMITS, InFlightBytes(LIMITS).lease()))
        assert tracemalloc.get_traced_memory()[1] < 2 * MEBIBYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [b" " * BIG + b"[]", b"9" * BIG, b"[" + b"1," * BIG + b"1]", b'["a"' + b',"a"' * BIG + b"]", b"[" * BIG],
    ids=["blanks", "digits", "numbers", "strings", "brackets"],
)  # fmt: skip
def test_a_huge_rest_is_not_parsed(body):
    started = time.process_time()
    with pytest.raises(InvalidRequestError, match="71680 commas and brackets, 71680 strings, or 45"):
        read(body)
    assert time.process_time() - started < 1


def test_steps_are_short():
    """No step holds the interpreter's lock for long, in a body of two huge strings and many values."""
    values = b"[1]," * 30_000
    body = b'["' + b"x" * BIG + b'",' + values + b'"' + b'\\"' * (BIG // 2) + b'"]'
    assert longest_step(read_json(body, len(body), LIMITS)) < 0.05


def test_long_numbers_are_refused():
    body = b'{"id": [' + b",".join([b"9" * 4000] * 1000) + b"]}"
    with pytest.raises(InvalidRequestError, match="a whole number has 4000 digits; 64 are allowed"):
        read(body)


def elements(text, count, **parameters):
    """The work of reading a request whose images are of that text."""
    data = b'"' + b'","'.join([text] * count) + b'"'
    fields = {"name": "images", "datatype": "BYTES", "shape": [1, count], "parameters": parameters}
    body = b'{"inputs": [%b, "data": [%b]}]}' % (json.dumps(fields)[:-1].encode(), data)
    return parse_request(body, len(body), model="judge", version="", limits=LIMITS)


@pytest.mark.parametrize(
    ("text", "count", "parameters"),
    [("\U0001f600".encode() + b"a" * 190_000, 60, {}), (b"QUJD" * MEBIBYTE, 16, {"content_type": "base64"})],
    ids=["text", "base64"],
)
def test_elements_are_read_in_short_steps_without_growing(text, count, parameters):
    work = elements(text, count, **parameters)
    tracemalloc.start()
    try:
        assert longest_step(work) < 0.05
        assert tracemalloc.get_traced_memory()[1] < 1.5 * len(text) * count
    finally:
        tracemalloc.stop()


def scored(image):
    body = b'{"groups": [{"prompt": "", "images": [null, "' + image + b'"]}]}'
    asked = finish(read_scoring(body, request_model(LIMITS), LIMITS, InFlightBytes(LIMITS).lease()))
    return asked.groups[0].candidates[1]


@pytest.mark.parametrize("size", [1, 2, 3, 49_151, 49_152, 49_153, 200_000])
def test_base64_is_read_in_pieces(size):
    image = bytes(range(250, 256)) * 40_000
    image = image[:size]
    text = base64.b64encode(image)
    assert scored(text) == image
    # As PHP and .NET write it.
    escaped = text.replace(b"/", b"\\/").replace(b"+", b"\\u002B")
    assert scored(escaped) == image
    assert scored(b"data:image\\/png;base64," + escaped) == image


@pytest.mark.parametrize("at", [4, 65_532, 65_536, 65_540, 99_996])
@pytest.mark.parametrize(
    "inside", [b"====", b"AA==", b"AAA=", b"A", b"\\n", b"-", b"\\u00e9", "\u00e9".encode()]
)
def test_base64_is_checked_in_every_piece(at, inside):
    text = b"A" * at + inside + b"A" * (100_000 - at)
    with pytest.raises(InvalidRequestError, match=r"groups\[0\].images\[1\] is no base64"):
        scored(text)
