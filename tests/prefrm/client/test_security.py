"""Tokens and TLS: who is believed, what is refused before anything is sent, and that no token is shown."""

import copy
import pickle

import pytest

from prefrm.client import TLS, connect, connect_async
from prefrm.errors import ConfigError, ServerUnavailableError
from tests.prefrm.client.test_remote_scorers import WAYS, agree
from tests.prefrm.client.tls import Authority, encrypted, server_side

TOKEN = "s3cret-t0ken"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def tls_of(served, authority):
    """Addresses of the real server behind TLS, by wire and by whether it asks for a certificate."""
    server = authority.issue("server")
    plain, mutual = server_side(*server), server_side(*server, client_ca=authority.ca)
    with (
        encrypted(served.grpc, plain) as grpc,
        encrypted(served.grpc, mutual) as grpc_mutual,
        encrypted(served.http, plain) as http,
        encrypted(served.http, mutual) as http_mutual,
    ):
        yield {"grpc": (grpc, grpc_mutual), "http": (http, http_mutual)}


@pytest.mark.parametrize("way", WAYS)
class TestTls:
    def test_a_server_whose_certificate_is_signed_is_believed(
        self, ask, way, tls_of, authority, pair, scorer
    ):
        wire = way.split()[0]
        address = tls_of[wire][0]
        for scheme in (wire, wire + "s"):
            answer = ask(way, f"{scheme}://{address}/judge", [pair], tls=TLS(ca=authority.ca), token=TOKEN)
            assert agree(answer, scorer.score([pair]))

    def test_any_other_certificate_is_not(self, ask, way, tls_of, stranger, pair):
        wire = way.split()[0]
        for tls in (TLS(ca=stranger.ca), True):
            with pytest.raises(ServerUnavailableError, match=r"(?i)certificate|handshake"):
                ask(way, f"{wire}s://{tls_of[wire][0]}/judge", [pair], tls=tls, unavailable_timeout=0)

    def test_a_certificate_for_another_host_is_not(self, ask, way, served, authority, pair):
        wire = way.split()[0]
        context = server_side(*authority.issue("elsewhere", host="10.9.8.7"))
        with (
            encrypted(getattr(served, wire), context) as address,
            pytest.raises(ServerUnavailableError),
        ):
            ask(way, f"{wire}s://{address}/judge", [pair], tls=TLS(ca=authority.ca), unavailable_timeout=0)

    def test_a_server_may_ask_for_the_clients_certificate(
        self, ask, way, tls_of, authority, stranger, pair, scorer
    ):
        wire = way.split()[0]
        url = f"{wire}s://{tls_of[wire][1]}/judge"
        cert, key = authority.issue("client")
        mine = TLS(ca=authority.ca, cert=cert, key=key)
        assert agree(ask(way, url, [pair], tls=mine), scorer.score([pair]))
        cert, key = stranger.issue("client")
        for tls in (TLS(ca=authority.ca), TLS(ca=authority.ca, cert=cert, key=key)):
            with pytest.raises(ServerUnavailableError):
                ask(way, url, [pair], tls=tls, unavailable_timeout=0)

    def test_plain_text_to_an_encrypted_server_is_no_answer(self, ask, way, tls_of, pair):
        wire = way.split()[0]
        with pytest.raises(ServerUnavailableError):
            ask(way, f"{wire}://{tls_of[wire][0]}/judge", [pair], unavailable_timeout=0, deadline=5)

    def test_files_that_are_no_certificates_are_a_mistake(self, ask, way, tls_of, tmp_path, authority, pair):
        _, key = authority.issue("client")
        (tmp_path / "no.pem").write_text("no certificate")
        wire = way.split()[0]
        for tls in (TLS(ca=tmp_path / "no.pem"), TLS(ca=authority.ca, cert=tmp_path / "no.pem", key=key)):
            with pytest.raises(ConfigError, match="the files of `tls` cannot be used"):
                ask(way, f"{wire}s://{tls_of[wire][0]}/judge", [pair], tls=tls)


class TestWhatIsRefused:
    @pytest.mark.parametrize("make", [connect, connect_async])
    def test_a_token_in_plain_text_to_another_machine(self, make):
        for url in ("grpc://gpu-7/judge", "http://10.0.0.7/judge", "grpc://127.0.0.1,gpu-7/judge"):
            with pytest.raises(ConfigError, match=r"plain text to .*; use grpcs://") as caught:
                make(url, token=TOKEN)
            assert "allow_plaintext_token=True" in str(caught.value)
            assert TOKEN not in str(caught.value)
            assert make(url, token=TOKEN, allow_plaintext_token=True)
            assert make(url, token=TOKEN, tls=True).url.startswith(("grpcs://", "https://"))
        assert make("grpc://localhost,127.0.0.1/judge", token=TOKEN)
        assert make("grpcs://gpu-7/judge", token=TOKEN)

    @pytest.mark.parametrize("token", ["", "two words", "line\nfeed", "tab\t", "naïve", "\x00"])
    def test_a_token_that_no_header_can_carry(self, token):
        with pytest.raises(ConfigError, match="token must be visible ASCII") as caught:
            connect("grpc://localhost/judge", token=token)
        assert not token or token not in str(caught.value)

    def test_tls_that_contradicts_itself(self, tmp_path, authority):
        with pytest.raises(ConfigError, match="tls=False contradicts grpcs://gpu-7:8001/judge"):
            connect("grpcs://gpu-7/judge", tls=False)
        with pytest.raises(ConfigError, match="cert and key together"):
            TLS(cert=authority.ca)
        with pytest.raises(ConfigError, match=r"ca: .* is no file"):
            TLS(ca=tmp_path / "nothing.pem")

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            # Taken for True, it would believe the system's authorities instead of this one.
            ({"tls": "ca.pem"}, r"tls must be True, False or TLS\(ca=...\).*received 'ca.pem'"),
            ({"tls": {"ca": "ca.pem"}}, "tls must be True, False or TLS"),
            ({"token": TOKEN.encode()}, "token must be a string; received bytes"),
            ({"token": TOKEN, "allow_plaintext_token": "no"}, "must be True or False; received 'no'"),
        ],
    )
    def test_what_is_of_another_type(self, options, said):
        for make in (connect, connect_async):
            with pytest.raises(ConfigError, match=said) as caught:
                make("grpcs://gpu-7/judge", **options)
            assert TOKEN not in str(caught.value)


def test_a_copy_keeps_the_token_and_no_repr_shows_it():
    judge = connect("grpcs://gpu-7/judge", token=TOKEN)
    for twin in (copy.deepcopy(judge), pickle.loads(pickle.dumps(judge))):  # noqa: S301
        assert twin._credentials.token == TOKEN
        assert TOKEN not in repr(twin) + repr(twin._credentials) + repr(twin._endpoints)
