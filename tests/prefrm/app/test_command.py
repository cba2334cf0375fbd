"""Command lines of `prefrm app`: mistakes before gradio or a judge is loaded, and a server that is absent."""

import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from prefrm.cli import run
from prefrm.sockets import bind


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is nothing to show: give a judge"),
        (["--data", "data"], "--data: for the audit of a judge"),
        (["--watch", "nowhere"], "--watch nowhere is not a folder; name the output folder of a run"),
        (["a/judge", "b/judge"], "two judges are called 'judge'; name them, such as judge-2=b/judge"),
        (["one=BUNDLE", "--ca", "ca.pem"], "--ca: for a judge behind a URL"),
        (["grpc://localhost/judge", "--dtype", "float16"], "--dtype: for a bundle on this machine"),
        (["BUNDLE", "--host", "0.0.0.0"], "there is no token; give --token-file FILE or say --no-token"),
        (["nowhere"], "nowhere"),
        (["BUNDLE"], "not a bundle"),
        (["BUNDLE", "--tls-cert", "cert.pem"], "--tls-cert and --tls-key belong together"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    (tmp_path / "judge").mkdir()
    assert run(["app", *(word.replace("BUNDLE", str(tmp_path / "judge")) for word in arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_an_absent_gradio_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert run(["app", str(tmp_path)]) == 2
    assert "pip install 'prefrm[app]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_that_is_not_there_is_named_on_the_terminal_while_the_page_is_served() -> None:
    pytest.importorskip("gradio", reason="gradio is not installed")
    with bind("127.0.0.1", 0, "nothing", "--port") as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "prefrm", "app", "--port", "0", f"far=grpc://127.0.0.1:{port}/judge"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            url = process.stdout.readline().removeprefix("ready: ").strip()
            warning = next(line for line in process.stderr if "warning" in line)
            with urlopen(url) as page:
                assert page.status == 200
        finally:
            process.terminate()
    assert warning.startswith("prefrm: warning: judge 'far': ") and f"127.0.0.1:{port}" in warning
    assert warning.rstrip().endswith("(it is asked again when a page needs it)")
