"""Commands that ask a server: token, certificates and deadline reach it, and mistakes are one line."""

import numpy as np
import pytest

from prefrm.access.tokens import TokenFile
from prefrm.cli import run
from prefrm.cli.remote import Remote
from prefrm.cli.shared import require_judge
from prefrm.differentiable import FakeDifferentiableScorer
from prefrm.errors import RequestError
from prefrm.records import Comparison, PreferenceGroup, write_groups
from prefrm.scorers import ScorerFile, Source, write_scorer_file
from prefrm.winmatrix import FakeScorer
from serving.models import ModelInfo
from serving.running import background
from serving.server import JudgeServer
from tests.prefrm.client.fakes import fake
from tests.prefrm.client.tls import Authority, encrypted, server_side

TOKEN = "s3cret-t0ken"
LONG_TOKEN = "t" * 40


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
        id="g",
        prompt="p",
        candidates=images,
        comparisons=(Comparison.preferred(0, 1),),
        completions=("a", "b"),
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


def test_a_gradient_is_asked_for_with_the_token_of_the_environment(tmp_path, monkeypatch):
    (tmp_path / "tokens").write_text(f"{LONG_TOKEN}\n")
    server = JudgeServer(
        FakeScorer(lambda prompt, image: 0.0),
        ModelInfo(name="judge"),
        tokens=TokenFile(tmp_path / "tokens"),
        gradient=FakeDifferentiableScorer(lambda prompt, pixels: pixels.flatten(1).sum(dim=1)),
    )
    pixels = np.ones((2, 3, 1, 1), np.float32)
    with background(server) as addresses:
        monkeypatch.delenv("PREFRM_TOKEN", raising=False)
        with pytest.raises(RequestError, match="token"), Remote().gradient(addresses.http_url) as remote:
            remote.gradient("p", pixels)
        monkeypatch.setenv("PREFRM_TOKEN", LONG_TOKEN)
        with Remote().gradient(addresses.http_url) as remote:
            assert remote.gradient("p", pixels)[0].tolist() == [3.0, 3.0]


def test_the_servers_token_file_is_the_clients_too(score, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text(f"# of the lab\n\n  {TOKEN}  # ours\nanother-token\n")
    with fake("http") as server:
        assert score(server.url, "--token-file", str(tokens)) == 0
        assert authorizations(server) == {f"Bearer {TOKEN}"}


def test_the_token_of_the_environment_goes_to_no_member_that_does_not_name_it(
    score, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PREFRM_TOKEN", TOKEN)
    path = tmp_path / "two.yaml"
    with fake("http") as mine, fake("grpc") as other:
        members = (Source(scorer=mine.url, token_env="PREFRM_TOKEN"), Source(scorer=other.url))
        write_scorer_file(ScorerFile(scorers=members), path)
        assert score(str(path)) == 0
        require_judge(str(path), Remote())
        assert authorizations(mine) == {f"Bearer {TOKEN}"}
        assert authorizations(other) == {None}
        capsys.readouterr()
        (tmp_path / "token").write_text("another\n")
        assert score(str(path), "--token-file", str(tmp_path / "token")) == 2
        assert "for one server; write `token_env:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it has no token"),
        (b"\n# nobody\n", "it has no token"),
        (b"\n" + TOKEN.encode() + b" and more\n", "line 2 is not a valid token"),
        ("s3cret-t0ken-\N{SNOWMAN}".encode(), "line 1 is not a valid token"),
        (b"\xff\xfe", "it is not a text file"),
    ],
)
def test_a_file_without_a_good_token_is_named(score, tmp_path, content, said, capsys):
    (tmp_path / "tokens").write_bytes(content)
    assert score("grpc://localhost/judge", "--token-file", str(tmp_path / "tokens")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--token-file {tmp_path / 'tokens'}: {said}" in line
    assert TOKEN not in line


@pytest.mark.parametrize(
    "options",
    [["--ca", "ca.pem"], ["--deadline", "3", "--token-file", "t"], ["--allow-plaintext-token"]],
)
def test_what_is_for_a_server_is_refused_with_a_bundle(score, dataset, options, tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    bundle, out = str(tmp_path / "bundle"), str(tmp_path / "out")
    for command in (
        lambda: score(bundle, *options),
        lambda: run(["label", bundle, dataset, "--split", "test", "--out", out, *options]),
        lambda: run(["eval", bundle, dataset, "--out", out, "--against", bundle, *options]),
    ):
        assert command() == 2
        (line,) = capsys.readouterr().err.splitlines()
        given = ", ".join(option for option in options if option.startswith("--"))
        assert f"{given}: for a judge behind a URL; {bundle} is a bundle" in line
    assert not (tmp_path / "out").exists()
    # One of the two judges is asked.
    against = ["--against", "grpc://127.0.0.1:1/judge"]
    assert run(["eval", bundle, dataset, "--out", out, *against, *options]) == 2
    assert "for a judge behind a URL" not in capsys.readouterr().err


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
        assert score(f"grpcs://{address}/judge", *files, "--deadline", "60") == 0
        (request,) = server.inferences
        assert 30_000_000 < request.timeout <= 60_000_000


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
