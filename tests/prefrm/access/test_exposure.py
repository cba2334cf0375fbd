"""Where a server may listen with and without tokens."""

import pytest

from prefrm.access.exposure import check_exposure, is_loopback
from prefrm.errors import ConfigError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_alone_needs_no_token(host, caplog):
    assert is_loopback(host)
    check_exposure(host, tokens=False, tls=False, no_token=False)
    assert not caplog.text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "192.168.1.5"])
def test_other_machines_need_one_unless_told_so(host, caplog):
    assert not is_loopback(host)
    with pytest.raises(ConfigError, match="there is no token; give --token-file FILE or say --no-token"):
        check_exposure(host, tokens=False, tls=True, no_token=False)
    check_exposure(host, tokens=True, tls=True, no_token=False)
    assert not caplog.text


def test_what_is_open_or_in_the_clear_is_warned_of(caplog):
    check_exposure("0.0.0.0", tokens=True, tls=False, no_token=False)
    assert "unencrypted" in caplog.text
    caplog.clear()
    check_exposure("0.0.0.0", tokens=False, tls=True, no_token=True)
    assert "everyone who can reach 0.0.0.0 may use the judge" in caplog.text
