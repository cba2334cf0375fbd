"""Certificates are checked at the start, and followed on disk: a handshake shows the newest that fit."""

import logging
import os
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from prefrm.access import reloading
from prefrm.access.tls import ServerTls
from prefrm.errors import ConfigError
from tests.certificates import Authority, encrypted


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ours")


@pytest.fixture
def stranger(tmp_path):
    return Authority(tmp_path / "theirs")


@pytest.fixture(autouse=True)
def read_at_once(monkeypatch):
    monkeypatch.setattr(reloading, "RECHECK_S", 0.0)


def shaken(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None = "127.0.0.1") -> bytes:
    """The server's certificate after a handshake over memory; `ssl.SSLError` if either side refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server, server_hostname=name)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    while len(done) < 2:
        for side in (near, far):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
    return near.getpeercert(binary_form=True)


def der(cert) -> bytes:
    return ssl.PEM_cert_to_DER_cert(cert.read_text())


@contextmanager
def grpc_server(tls: ServerTls):
    """The address of a gRPC server that knows no method."""
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_secure_port("127.0.0.1:0", tls.grpc_credentials())
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def grpc_code(address: str, authority: Authority, *pair) -> grpc.StatusCode:
    """What a call ends in: UNIMPLEMENTED once the connection is made, UNAVAILABLE if it is not."""
    read = [path.read_bytes() for path in reversed(pair)] or [None, None]
    credentials = grpc.ssl_channel_credentials(authority.root.read_bytes(), *read)
    # One channel's connections are not shared with the next.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.secure_channel(address, credentials, options) as channel:
        try:
            channel.unary_unary("/none/None", None, None)(b"", timeout=10)
        except grpc.RpcError as error:
            return error.code()
    raise AssertionError("nobody has that method")


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", None])
def test_http_shows_the_certificate_as_it_is_now(authority, name):
    cert, key = authority.issue("server")
    tls = ServerTls(cert=cert, key=key)
    server, client = tls.ssl_context(), authority.trusting()
    client.check_hostname = name is not None
    assert shaken(server, client, name) == der(cert)
    first = der(cert)
    authority.issue("server")
    assert shaken(server, client, name) == der(cert) != first


def test_grpc_shows_the_certificate_as_it_is_now(authority, stranger):
    cert, key = authority.issue("server")
    with grpc_server(ServerTls(cert=cert, key=key)) as address:
        assert grpc_code(address, authority) is grpc.StatusCode.UNIMPLEMENTED
        assert grpc_code(address, stranger) is grpc.StatusCode.UNAVAILABLE
        for old, new in zip((cert, key), stranger.issue("server"), strict=True):
            old.write_bytes(new.read_bytes())
        assert grpc_code(address, stranger) is grpc.StatusCode.UNIMPLEMENTED
        assert grpc_code(address, authority) is grpc.StatusCode.UNAVAILABLE


def test_http_wants_a_certificate_of_the_client_ca(authority, stranger):
    cert, key = authority.issue("server")
    server = ServerTls(cert=cert, key=key, client_ca=authority.root).ssl_context()
    assert shaken(server, authority.trusting(*authority.issue("trainer", "trainer")))
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shaken(server, authority.trusting())
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shaken(server, authority.trusting(*stranger.issue("trainer", "trainer")))


def test_http_follows_the_client_ca(authority, stranger):
    cert, key = authority.issue("server")
    ca = authority.folder / "clients.pem"
    ca.write_bytes(authority.root.read_bytes())
    server = ServerTls(cert=cert, key=key, client_ca=ca).ssl_context()
    ours, theirs = (
        authority.trusting(*issuer.issue("trainer", "trainer")) for issuer in (authority, stranger)
    )
    assert shaken(server, ours)
    ca.write_bytes(stranger.root.read_bytes())
    assert shaken(server, theirs)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shaken(server, ours)


def test_grpc_wants_a_certificate_of_the_client_ca(authority, stranger):
    cert, key = authority.issue("server")
    with grpc_server(ServerTls(cert=cert, key=key, client_ca=authority.root)) as address:
        pair = authority.issue("trainer", "trainer")
        assert grpc_code(address, authority, *pair) is grpc.StatusCode.UNIMPLEMENTED
        assert grpc_code(address, authority) is grpc.StatusCode.UNAVAILABLE
        pair = stranger.issue("trainer", "trainer")
        assert grpc_code(address, authority, *pair) is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("breakage", ["junk", "gone", "another key", "fifo"])
def test_a_broken_renewal_leaves_the_last_good_certificate_in_use(authority, breakage, caplog):
    cert, key = authority.issue("server")
    good = der(cert)
    server, client = ServerTls(cert=cert, key=key).ssl_context(), authority.trusting()
    if breakage == "junk":
        cert.write_text("junk")
    elif breakage == "gone":
        cert.unlink()
    elif breakage == "fifo":
        cert.unlink()
        os.mkfifo(cert)
    else:
        _, other = authority.issue("other")
        key.write_bytes(other.read_bytes())
    for _ in range(2):
        assert shaken(server, client) == good
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "stays in use" in caplog.text
    if breakage == "fifo":
        cert.unlink()
    with caplog.at_level(logging.INFO):
        authority.issue("server")
        assert shaken(server, client) == der(cert) != good
    assert "was renewed" in caplog.text


def test_old_protocols_are_refused(authority):
    cert, key = authority.issue("server")
    server, client = ServerTls(cert=cert, key=key).ssl_context(), authority.trusting()
    assert server.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert shaken(server, client)


def test_mistakes_are_one_clear_line_at_the_start(authority, tmp_path):
    cert, key = authority.issue("server")
    _, other = authority.issue("other")
    locked, junk, absent = encrypted(key), tmp_path / "junk.pem", tmp_path / "absent.pem"
    junk.write_text("-----BEGIN NOTHING-----\n")
    for files, reason in (
        ({"cert": absent, "key": key}, r"the certificate .*absent.pem cannot be read: No such file"),
        ({"cert": cert, "key": absent}, r"the private key .*absent.pem cannot be read: No such file"),
        ({"cert": cert, "key": tmp_path}, "the private key .* cannot be read: Is a directory"),
        ({"cert": junk, "key": key}, "no valid pair of PEM files"),
        ({"cert": cert, "key": junk}, "no valid pair of PEM files"),
        ({"cert": cert, "key": other}, "belongs to another certificate"),
        ({"cert": cert, "key": locked}, "is encrypted; give one without a passphrase"),
        ({"cert": cert, "key": key, "client_ca": absent}, "the client CA .*absent.pem cannot be read"),
        ({"cert": cert, "key": key, "client_ca": junk}, "holds no PEM certificate"),
        ({"cert": cert, "key": key, "client_ca": key}, "holds no PEM certificate"),
    ):
        with pytest.raises(ConfigError, match=reason) as caught:
            ServerTls(**files)
        assert "\n" not in str(caught.value)
