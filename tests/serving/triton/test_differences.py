"""The table of differences from Triton names calls that exist, and the documentation shows it."""

from pathlib import Path

from tests.serving.triton import calls_http, calls_inference, calls_server, calls_stream
from tests.serving.triton.calls_control import STEPS
from tests.serving.triton.differences import DIFFERENCES
from tests.serving.triton.registry import CALLS

assert calls_http and calls_inference and calls_server and calls_stream  # Importing them registers the calls.

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "triton.md"


def test_every_named_difference_is_one_of_a_call_and_documented() -> None:
    known = {name for call in CALLS + STEPS for name in (call.name, f"{call.kind}:{call.name}")}
    assert {name for entry in DIFFERENCES for name in entry.calls} <= known
    text = DOCUMENTATION.read_text(encoding="utf-8")
    rows = [f"| {entry.what} | {entry.triton} | {entry.ours} | {entry.why} |" for entry in DIFFERENCES]
    assert [row for row in rows if row not in text] == []
