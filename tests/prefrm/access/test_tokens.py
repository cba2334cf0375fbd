"""Which tokens a file holds, how it is re-read, and how a header is held against them."""

import hashlib
import hmac
import logging
import os

import pytest

from prefrm.access import reloading
from prefrm.access.tokens import TokenFile
from prefrm.errors import ConfigError

ANN, BOB = "ann-0123456789abcdef", "bob/0123456789+ABCDEF=="


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tokens"
    path.write_text(f"# the trainers\n{ANN}\n\n  {BOB}  # until March\r\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def read_at_once(monkeypatch):
    monkeypatch.setattr(reloading, "RECHECK_S", 0.0)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def admitted(tokens: TokenFile, token: str) -> bool:
    return not tokens.refusal([f"Bearer {token}".encode()])


def test_comments_and_blank_lines_are_no_tokens(file):
    tokens = TokenFile(file)
    assert len(tokens) == 2
    assert admitted(tokens, ANN) and admitted(tokens, BOB)
    for wrong in ("# the trainers", "", ANN[:-1], ANN + "0", ANN.upper(), "#", "the"):
        assert not admitted(tokens, wrong)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "a token is required"),
        ([b"Bearer"], "must be sent once"),
        ([b""], "must be sent once"),
        ([b"Basic " + ANN.encode()], "must be sent once"),
        ([ANN.encode()], "must be sent once"),
        ([b"Bearer " + ANN.encode()] * 2, "must be sent once"),
        ([b"Bearer " + ANN.encode() + b" " + BOB.encode()], "must be sent once"),
        ([b"Bearer \xff\xfe\x00"], "not one of"),
        ([b"bearer   " + ANN.encode()], ""),
        # HTTP/1.1 servers strip these blanks, gRPC passes them on.
        ([b" \tBearer " + ANN.encode() + b" \t"], ""),
        ([b"BEARER " + ANN.encode() + b" "], ""),
    ],
)
def test_one_bearer_header_is_wanted(file, headers, reason):
    refusal = TokenFile(file).refusal(headers)
    assert reason in refusal
    assert bool(refusal) == bool(reason)


def test_every_token_is_compared_by_a_digest_whichever_is_right(file, monkeypatch):
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    tokens = TokenFile(file)
    for token in (ANN, BOB, "x"):
        compared.clear()
        assert admitted(tokens, token) == (token != "x")
        assert compared == [(digest(known), digest(token)) for known in (ANN, BOB)]


def test_a_changed_file_adds_and_withdraws_tokens(file, caplog):
    tokens = TokenFile(file)
    with caplog.at_level(logging.INFO):
        file.write_text("carol-0123456789abcdef")
        assert not admitted(tokens, ANN)
        assert admitted(tokens, "carol-0123456789abcdef")
    assert "has changed; its tokens are now: 1" in caplog.text


def test_the_file_is_not_read_for_every_request(file, monkeypatch):
    now = 100.0
    monkeypatch.setattr(reloading, "RECHECK_S", 1.0)
    monkeypatch.setattr(reloading.time, "monotonic", lambda: now)
    tokens = TokenFile(file)
    file.write_text("carol-0123456789abcdef")
    now = 100.9
    assert admitted(tokens, ANN)
    now = 101.0
    assert not admitted(tokens, ANN)


@pytest.mark.parametrize("content", [None, "", "# nobody\n", f"{ANN}\nshort\n", f"{ANN} {BOB}\n"])
def test_a_broken_file_leaves_the_last_good_tokens_in_force(file, content, caplog):
    tokens = TokenFile(file)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    for _ in range(3):
        assert admitted(tokens, ANN) and admitted(tokens, BOB)
        assert not admitted(tokens, "short")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "stay in force" in caplog.text
    file.write_text("carol-0123456789abcdef")
    assert not admitted(tokens, ANN)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("fifo", "is not a regular file"),
        ("device", "is not a regular file"),
        ("folder", "cannot be read: Is a directory"),
        ("huge", "has more than 1048576 bytes"),
    ],
)
def test_a_file_that_becomes_something_else_is_neither_waited_for_nor_read(file, kind, reason, caplog):
    tokens = TokenFile(file)
    content = file.read_bytes()
    file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(content + b"#" * 2**20)
    assert admitted(tokens, ANN)
    assert reason in caplog.text and "stay in force" in caplog.text
    with pytest.raises(ConfigError, match=f"^the token file {file} {reason}"):
        TokenFile(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "holds no token"),
        ("\n#x\n", "holds no token"),
        (f"\n{ANN[:15]}", "line 2: a token has at least 16 characters, this one has 15"),
        (f"{ANN} {BOB}", "line 1: a token is made of"),
        ("secret-grün-0123456789", "line 1: a token is made of"),
        (b"\xff\xfe\x00secret-0123456789", "line 1: a token is made of"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_at_the_start(tmp_path, content, reason):
    path = tmp_path / "tokens"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=reason) as caught:
        TokenFile(path)
    assert "secret" not in str(caught.value) and ANN[:15] not in str(caught.value)


@pytest.mark.parametrize("name", ["absent", "."])
def test_an_unreadable_file_is_refused_at_the_start(tmp_path, name):
    with pytest.raises(ConfigError, match=r"the token file .* cannot be read"):
        TokenFile(tmp_path / name)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_everyone_can_read_is_warned_of(file, mode, warned, caplog):
    file.chmod(mode)
    TokenFile(file)
    assert ("can be read by every user" in caplog.text) == warned
