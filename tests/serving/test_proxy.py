"""The proxy configuration in docs/serving: read by a parser, and run by nginx where it is installed."""

import shutil
import socket
import subprocess
from pathlib import Path

import crossplane
import httpx
import numpy as np
import pytest

from prefrm.client import TLS, connect
from serving.access.connections import STREAMS
from serving.limits import Limits
from tests.certificates import Authority

CONFIGURATION = Path("docs/serving/nginx.conf")


def directives(block):
    for directive in block:
        yield directive
        yield from directives(directive.get("block", ()))


def test_the_configuration_is_valid_and_has_the_servers_bounds():
    read = crossplane.parse(str(CONFIGURATION))
    assert read["status"] == "ok" and not read["errors"]
    found = {d["directive"]: d["args"] for d in reversed(list(directives(read["config"][0]["parsed"])))}
    assert found["http2_max_concurrent_streams"] == [str(STREAMS)]
    assert found["client_max_body_size"] == [f"{Limits().request_bytes >> 20}m"]
    assert found["proxy_read_timeout"] == found["grpc_read_timeout"] == [f"{Limits().deadline_s:g}s"]


@pytest.fixture
def proxied(served, tmp_path):
    """The port of nginx before the server, and the authority of its certificate."""
    if (nginx := shutil.which("nginx")) is None:
        pytest.skip("nginx is not installed")
    authority = Authority(tmp_path)
    # Writes server.pem and server.key.
    authority.issue("server")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = CONFIGURATION.read_text(encoding="utf-8")
    for old, new in (
        ("127.0.0.1:8001", served.grpc),
        ("127.0.0.1:8000", served.http),
        ("listen 443", f"listen 127.0.0.1:{port}"),
    ):
        assert old in text
        text = text.replace(old, new)
    here = f"daemon off; master_process off; pid {tmp_path}/pid; error_log stderr;"
    (tmp_path / "nginx.conf").write_text(here.replace("; ", ";\n") + text, encoding="utf-8")
    command = [nginx, "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")]
    subprocess.run([*command, "-t"], check=True)
    process = subprocess.Popen(command)
    try:
        yield port, authority
    finally:
        process.terminate()
        process.wait(10)


def test_both_wires_work_through_nginx(proxied, scorer, groups, until):
    port, authority = proxied

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until(listens)
    for scheme in ("grpcs", "https"):
        with connect(f"{scheme}://127.0.0.1:{port}/judge", tls=TLS(ca=authority.root)) as judge:
            for matrix, expected in zip(judge.score(groups), scorer.score(groups), strict=True):
                np.testing.assert_array_equal(matrix.p, expected.p)
    ready = httpx.get(f"https://127.0.0.1:{port}/v2/health/ready", verify=authority.trusting())
    assert ready.status_code == 200
