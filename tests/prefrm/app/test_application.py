"""One server of several views, each with a page and endpoints."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

# Apart, since gradio leaves event loops open.
TWO_VIEWS = """
import sys
from pathlib import Path
import gradio
from fastapi import APIRouter
from fastapi.testclient import TestClient
from prefrm.app.application import View, create_application
from prefrm.app.media import MediaStore

router = APIRouter()
router.add_api_route("/next", lambda: {"pair": [0, 1]})
views = [
    View(name="Try", build=lambda: gradio.Textbox(label="Prompt of a trial")),
    View(name="Collect", build=lambda: gradio.Textbox(label="Pairs to answer"), router=router),
]
with TestClient(create_application(views, MediaStore(Path(sys.argv[1])))) as client:
    assert "Prompt of a trial" in client.get("/").text
    assert "Pairs to answer" in client.get("/collect").text
    assert client.get("/api/collect/next").json() == {"pair": [0, 1]}
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="gradio is not installed")
def test_an_application_has_a_page_and_endpoints_for_each_view(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", TWO_VIEWS, str(tmp_path)], check=True)
