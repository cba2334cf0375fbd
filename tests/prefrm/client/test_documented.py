"""The clients that the documentation shows run as they stand, but for the server's address."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize(
    ("page", "asks"), [("client.md", "connect("), ("serving.md", "triton."), ("serving.md", "connect(")]
)
def test_the_first_snippet_of_a_page_that_asks_so_runs_alone(page, asks, served, png, tmp_path):
    snippets = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    snippet = next(one for one in snippets if asks in one)
    assert "127.0.0.1:8001" in snippet
    for n, name in enumerate(("a.png", "b.png", "c.png")):
        (tmp_path / name).write_bytes(png(n, 4, 4))
    command = [sys.executable, "-c", snippet.replace("127.0.0.1:8001", served.grpc)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"[\[\]\d\s.e-]+", done.stdout)
