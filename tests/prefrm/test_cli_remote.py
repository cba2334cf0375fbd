"""Commands that ask a server: token, certificates and deadline reach it, and mistakes are one line."""

import pytest

from prefrm.cli import run
from prefrm.records import Comparison, PreferenceGroup, write_groups
from tests.prefrm.client.fakes import fake
from tests.prefrm.client.tls import Authority, encrypted, server_side

TOKEN = "s3cret-t0ken"


@pytest.fixture
def score(tmp_path, png):
    paths = [tmp_path / f"{n}.png" for n in range(2)]
    for n, path in enumerate(paths):
        path.write_bytes(png(n, 4, 4))
    return lambda url, *options: run(["score", url, "--prompt", "a cat", *map(str, paths), *options])


@pytest.fixture
def dataset(tmp_path, png):
    images = (png(1, 4, 4), png(2, 4, 4))
    group = PreferenceGroup(
        id="g", prompt="p", images=images, comparisons=(Comparison.preferred(0, 1),), texts=("a", "b")
    )
    write_groups([group], tmp_path / "data", "test")
    return str(tmp_path / "data")


def authorizations(server):
    return {one.headers.get("authorization") for one in server.seen}


@pytest.mark.parametrize("wire", ["grpc", "http"])
def test_the_token_comes_from_the_environment_or_a_file(score, wire, tmp_path, monkeypatch):
    with fake(wire) as server:
        monkeypatch.delenv("PREFRM_TOKEN", raising=False)
        assert score(server.url) == 0
        assert authorizations(server) == {None}
        server.seen.clear()
        monkeypatch.setenv("PREFRM_TOKEN", TOKEN)
        assert score(server.url) == 0
        assert authorizations(server) == {f"Bearer {TOKEN}"}
        server.seen.clear()
        (tmp_path / "token").write_text("another\n")
        assert score(server.url, "--token-file", str(tmp_path / "token")) == 0
        assert authorizations(server) == {"Bearer another"}


def test_each_command_that_asks_a_server_shows_its_token(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("PREFRM_TOKEN", TOKEN)
    with fake("grpc") as server, fake("grpc") as other:
        commands = [
            ["label", server.url, dataset, "--split", "test", "--out", str(tmp_path / "labels")],
            ["eval", server.url, dataset, "--out", str(tmp_path / "eval"), "--against", other.url],
        ]
        for command in commands:
            server.seen.clear()
            assert run(command) == 0
            assert server.inferences and authorizations(server) == {f"Bearer {TOKEN}"}
        assert other.inferences and authorizations(other) == {f"Bearer {TOKEN}"}


def test_certificates_and_the_deadline_reach_the_server(score, tmp_path):
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    context = server_side(*authority.issue("server"), client_ca=authority.ca)
    with fake("grpc") as server, encrypted(server.url.split("/")[2], context) as address:
        files = ["--ca", str(authority.ca), "--cert", str(cert), "--key", str(key)]
        assert score(f"grpcs://{address}/judge", *files, "--deadline", "7") == 0
        (request,) = server.inferences
        assert 5_000_000 < request.timeout <= 7_000_000


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("grpc://gpu-7/judge", [], "plain text to grpc://gpu-7:8001/judge"),
        ("grpcs://gpu-7/judge", ["--ca", "nothing.pem"], "tls ca: nothing.pem is no file"),
        ("grpc://gpu-7/judge", ["--ca", "nothing.pem"], "--ca, --cert and --key are for grpcs://"),
        ("grpcs://gpu-7/judge", ["--cert", "a.pem"], "cert and key together"),
        ("grpcs://gpu-7/judge", ["--token-file", "nothing"], "--token-file nothing: No such file"),
        ("grpcs://gpu-7/judge", ["--deadline", "0"], "deadline must be a positive number"),
    ],
)
def test_a_mistake_is_one_line_without_the_token(score, url, options, said, monkeypatch, capsys):
    monkeypatch.setenv("PREFRM_TOKEN", TOKEN)
    assert score(url, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert TOKEN not in line


def test_a_token_may_travel_in_plain_text_if_told_so(score, monkeypatch, capsys):
    monkeypatch.setenv("PREFRM_TOKEN", TOKEN)
    assert score("grpc://no-such-host.invalid/judge", "--allow-plaintext-token", "--deadline", "0.3") == 2
    assert "is not available" in capsys.readouterr().err
