"""Whether a server may listen where it was told to: beyond this machine only with tokens, unless told so."""

import ipaddress
import logging
import socket

from prefrm.errors import ConfigError

__all__ = ["check_exposure", "is_loopback"]

logger = logging.getLogger(__name__)


def check_exposure(host: str, *, tokens: bool, tls: bool, no_token: bool) -> None:
    """Refuse to be open to a network without tokens, and warn of tokens that travel in the clear.

    Args:
        host: the interface to listen on.
        tokens: whether requests need a token.
        tls: whether connections are encrypted.
        no_token: whether the user said that none is wanted.

    Raises:
        ConfigError: other machines can reach the host, and nobody said that they need no token.
    """
    if is_loopback(host):
        return
    if not tokens and not no_token:
        raise ConfigError(
            f"--host {host} lets other machines use the judge, and there is no token; give --token-file FILE "
            "or say --no-token if the network keeps strangers out"
        )
    if not tokens:
        logger.warning("everyone who can reach %s may use the judge: no token is needed", host)
    elif not tls:
        logger.warning("tokens and images travel to %s unencrypted; give --tls-cert and --tls-key", host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the interface; a name counts by all its addresses."""
    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM)
    # What is no host of this machine cannot be listened on either, which is said elsewhere.
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)
