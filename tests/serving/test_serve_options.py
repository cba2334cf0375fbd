"""The options of `prefrm serve` that say who may come in and how it logs: mistakes, and a whole server."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import typer
from typer.testing import CliRunner

from prefrm.errors import BundleError, ConfigError
from serving.commands import serve
from tests.certificates import Authority
from tests.serving.chat_calls import jpeg, messages

TOKEN = "ann-0123456789abcdef"
PORTS = ["--http-port=0", "--grpc-port=0", "--metrics-port=0"]


@pytest.fixture
def folder(tmp_path):
    """Tokens, certificates and files that are none of them."""
    (tmp_path / "tokens").write_text(TOKEN)
    (tmp_path / "tokens").chmod(0o600)
    (tmp_path / "empty").write_text("")
    (tmp_path / "bare.txt").write_text("{image}{image}{prompt}\n{answer}\n1\n2\n")
    (tmp_path / "single.txt").write_text("{image}{prompt}")
    (tmp_path / "own.txt").write_text("{image}{image}For {prompt}, which?\n{answer}Number{space}\n1\n2\n")
    authority = Authority(tmp_path)
    authority.issue("server")
    authority.issue("other")
    authority.issue("trainer", "trainer")
    return tmp_path


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host=0.0.0.0"], "there is no token; give --token-file FILE or say --no-token"),
        (["--token-file={}/tokens", "--no-token"], "contradict each other"),
        (["--token-file={}/absent"], "the token file .*absent cannot be read"),
        (["--token-file={}/empty"], "holds no token"),
        (["--tls-cert={}/server.pem"], "--tls-cert and --tls-key belong together"),
        (["--tls-key={}/server.key"], "--tls-cert and --tls-key belong together"),
        (["--tls-client-ca={}/ca.pem"], "--tls-client-ca needs --tls-cert"),
        (["--tls-cert={}/server.pem", "--tls-key={}/other.key"], "belongs to another certificate"),
        (["--chat-template={}/absent"], "the template file .*absent cannot be read"),
        (["--chat-template={}/bare.txt"], "has no text beside its prompt"),
        (["--chat-template={}/single.txt"], "must show two images .* received 1 images and 0 answers"),
        (["--host=0.0.0.0", "--no-token"], "far enough"),
        (["--host=0.0.0.0", "--token-file={}/tokens"], "far enough"),
        (["--tls-cert={}/server.pem", "--tls-key={}/server.key", "--tls-client-ca={}/ca.pem"], "far enough"),
    ],
)
def test_mistakes_are_said_before_the_judge_is_loaded(folder, monkeypatch, options, reason):
    def load(path):
        raise BundleError("far enough")

    monkeypatch.setattr("serving.bundles.inspect_bundle", load)
    app = typer.Typer()
    app.command()(serve)
    given = [option.format(folder) for option in options]
    result = CliRunner().invoke(app, [str(folder), *PORTS, *given])
    assert isinstance(result.exception, ConfigError | BundleError)
    with pytest.raises((ConfigError, BundleError), match=reason):
        raise result.exception


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_with_everything(folder, until, png, log_format):
    addresses, log = folder / "address.json", folder / "log"
    options = [
        f"--address-file={addresses}",
        f"--token-file={folder}/tokens",
        f"--tls-cert={folder}/server.pem",
        f"--tls-key={folder}/server.key",
        f"--tls-client-ca={folder}/ca.pem",
        f"--log-format={log_format}",
        f"--chat-template={folder}/own.txt",
    ]
    command = [sys.executable, "-m", "tests.serving.light_serve", str(folder), *PORTS, *options]
    root = Path(__file__).parents[2]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            until(lambda: addresses.exists() or process.poll() is not None)
            at = SimpleNamespace(**json.loads(addresses.read_text()))
            assert at.secure
            host, port = at.grpc.split(":")
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(b"no handshake")
                while stranger.recv(100):
                    pass
            trusting = Authority.context(folder / "ca.pem", folder / "trainer.pem", folder / "trainer.key")
            with httpx.Client(verify=trusting) as client:
                headers = {"authorization": f"Bearer {TOKEN}", "x-request-id": "mine"}
                url = f"https://{at.http}/v2/models/judge/infer"
                assert client.post(url, json={"inputs": []}).status_code == 401
                assert client.post(url, json={"inputs": []}, headers=headers).status_code == 400
                url = f"https://{at.http}/v1/chat/completions"
                asked = {"messages": messages([jpeg(png(9)), png(9)], "For a red cube, which?")}
                answer = client.post(url, json=asked, headers=headers)
                assert answer.json()["choices"][0]["message"]["content"] == "Number 1"
                metrics = client.get(f"https://{at.metrics}/metrics", headers=headers).text
            assert 'prefrm_requests_total{code="UNAUTHENTICATED",model="",wire="http"} 1.0' in metrics
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            assert said.splitlines() == [
                f"ready: grpcs://{at.grpc}/judge https://{at.http}/judge",
                f"metrics: https://{at.metrics}/metrics",
                f"docs: https://{at.http}/docs",
            ]
        finally:
            process.kill()
    lines = log.read_text().splitlines()
    assert TOKEN not in "\n".join(lines)
    if log_format == "json":
        records = [json.loads(line) for line in lines]
        assert "judge: judge: a judge" in [record["message"] for record in records]
        codes = [record["code"] for record in records if record["message"] == "request"]
        assert codes == ["UNAUTHENTICATED", "INVALID_ARGUMENT", "OK"]
        said = [record["message"] for record in records if record["logger"] == "serving.server"]
        assert said == ["started", "stopping", "stopped"]
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in lines)
        assert sum("judge: judge: a judge" in line for line in lines) == 1
        assert sum("request_id=mine" in line for line in lines) == 2
