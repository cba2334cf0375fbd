"""What a log line holds, what it never holds, and that no client can forge one."""

import io
import json
import logging
import re
import warnings
from types import SimpleNamespace

import pytest

from prefrm.winmatrix import Group
from serving.observing.logs import configure, log_failure, log_request
from serving.observing.requests import Request, Watch

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
REQUEST = Request(
    wire="grpc",
    id="step 7",
    model="judge",
    version="2",
    groups=3,
    candidates=12,
    content_bytes=4096,
    cost=700,
    queue_s=0.25,
    compute_s=0.5,
    seconds=0.8,
    traceparent=f"00-{'ab' * 16}-{'cd' * 8}-01",
)
HOSTILE = [
    'x\n2026-01-01T00:00:00.000000Z INFO serving: forged code="OK"',
    "x\r\nforged",
    "x\u2028forged\u0085forged",
    "\x1b[2Jx\x00\x07",
    'a" b=c',
    "\u202egnp.exe",
    "\ud83d",
]


@pytest.fixture(params=["text", "json"])
def format(request):
    return request.param


@pytest.fixture
def stream(format):
    """What is logged, in that format, once it is written."""
    stream = io.BytesIO()
    handler = configure(format, stream.write)

    def written():
        handler.flush()
        return stream.getvalue().decode()

    return SimpleNamespace(getvalue=written)


def test_a_request_is_one_line_with_all_that_is_known_of_it(stream, format):
    log_request(REQUEST)
    (line,) = stream.getvalue().splitlines()
    if format == "text":
        assert re.fullmatch(
            f'{TIME} INFO serving.requests: request request_id="step 7" wire=grpc model=judge version=2 '
            "code=OK "
            "groups=3 candidates=12 cost=700 bytes=4096 queue_s=0.25 compute_s=0.5 total_s=0.8 "
            f"trace_id={'ab' * 16}",
            line,
        )
        return
    fields = json.loads(line)
    assert re.fullmatch(TIME, fields.pop("time"))
    assert fields == {
        "level": "info",
        "logger": "serving.requests",
        "message": "request",
        "request_id": "step 7",
        "wire": "grpc",
        "model": "judge",
        "version": "2",
        "code": "OK",
        "groups": 3,
        "candidates": 12,
        "cost": 700,
        "bytes": 4096,
        "queue_s": 0.25,
        "compute_s": 0.5,
        "total_s": 0.8,
        "trace_id": "ab" * 16,
    }


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_a_client_chose_cannot_forge_a_line(stream, format, hostile):
    log_request(Request(wire="http", id=hostile))
    logging.getLogger("serving").warning("odd: %s", hostile)
    text = stream.getvalue()
    assert len(text.splitlines()) == text.count("\n") == 2
    assert all(line.isprintable() for line in text.splitlines())
    for line in text.splitlines():
        if format == "json":
            assert hostile in (
                json.loads(line).get("request_id"),
                json.loads(line)["message"][len("odd: ") :],
            )
        else:
            assert re.match(TIME, line)


def test_the_servers_own_failures_are_errors(stream):
    for code in ("INTERNAL", "INVALID_ARGUMENT", "OK"):
        log_request(Request(wire="http", code=code))
    levels = re.findall(r"(?i)\b(error|info)\b", stream.getvalue())
    assert [level.lower() for level in levels] == ["error", "info", "info"]


def test_an_exception_comes_with_where_it_was_raised(stream, format):
    try:
        raise FileNotFoundError("of no\nuse")
    except FileNotFoundError:
        logging.getLogger("serving").exception("it failed")
    lines = stream.getvalue().splitlines()
    if format == "json":
        (line,) = lines
        assert "test_an_exception_comes" in json.loads(line)["exception"]
        assert json.loads(line)["exception"].endswith("FileNotFoundError: of no\nuse\n")
    else:
        assert re.fullmatch(f"{TIME} ERROR serving: it failed", lines[0])
        assert len(lines) > 3 and all(line.startswith("    ") for line in lines[1:])


PROMPT, IMAGE = "a naked\nélan", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR and so on"


@pytest.mark.parametrize(
    ("message", "quoted"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", False),
        (f"cannot tokenize: {PROMPT}", True),
        (repr(KeyError(PROMPT)), True),
        (ascii(PROMPT), True),
        (json.dumps({"prompt": PROMPT}), True),
        (f"cannot decode {IMAGE!r:.60}", True),
    ],
)
def test_a_failure_is_explained_unless_that_quotes_the_request(stream, message, quoted):
    try:
        raise RuntimeError(message)
    except RuntimeError as error:
        groups = [Group(prompt=PROMPT, candidates=(IMAGE, None))]
        log_failure(logging.getLogger("serving.queueing.batcher"), "scoring a batch failed", error, groups)
    text = stream.getvalue()
    assert "scoring a batch failed" in text
    assert "test_a_failure_is_explained" in text
    assert ("RuntimeError: (its message may quote a request)" in text) == quoted
    assert ("out of memory" in text) == (not quoted)
    assert "naked" not in text and "IHDR" not in text


def test_a_message_that_nobody_looked_at_is_left_out(stream):
    try:
        raise ValueError(PROMPT)
    except ValueError as error:
        logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
        log_failure(logging.getLogger("serving.wire.grpc"), "ModelInfer crashed", error)
    assert stream.getvalue().count("ValueError: (its message may quote a request)") == 2
    assert "naked" not in stream.getvalue()


def test_warnings_of_libraries_are_records_too(stream, format):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old\nthing", UserWarning, stacklevel=1)
    assert len(re.findall(TIME, stream.getvalue())) == 1
    assert "UserWarning" in stream.getvalue()


def test_other_loggers_say_warnings_only(stream):
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    logging.getLogger("serving.server").info("started")
    assert "chatter" not in stream.getvalue()
    assert "trouble" in stream.getvalue() and "started" in stream.getvalue()


def test_a_request_without_an_id_gets_one_and_a_long_one_is_cut():
    ended = []
    watch = Watch([ended.append])
    for sent in ("", "", "x" * 1000, "mine"):
        with watch.request("http", [("x-request-id", sent)] if sent else []):
            pass
    ours, others, long, mine = (request.id for request in ended)
    assert re.fullmatch("[0-9a-f]{32}", ours) and ours != others
    assert (long, mine) == ("x" * 128, "mine")


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{'0a' * 16}-{'0b' * 8}-01", "0a" * 16),
        (f"01-{'0a' * 16}-{'0b' * 8}-01-later", "0a" * 16),
        ("", ""),
        ("00-xyz", ""),
        (f"00-{'0A' * 16}-{'0b' * 8}-01", ""),
    ],
)
def test_the_trace_of_a_request_is_known_by_its_header(traceparent, trace_id):
    request = Request.from_headers("grpc", [("traceparent", traceparent), ("tracestate", "k=v")])
    assert (request.trace_id, request.tracestate) == (trace_id, "k=v")
