"""Who may come in: whether a server may listen where it was told to, and with what tokens and certificates.

Beyond this machine it listens only with tokens, unless told so.
"""

import ipaddress
import logging
import socket
from dataclasses import dataclass
from pathlib import Path

from prefrm.access.tls import ServerTls
from prefrm.access.tokens import TokenFile
from prefrm.errors import ConfigError

__all__ = ["Door", "check_exposure", "is_loopback", "open_door"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What a client must show; None where it needs nothing."""

    tokens: TokenFile | None
    tls: ServerTls | None


def open_door(
    host: str,
    *,
    token_file: Path | None,
    no_token: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
) -> Door:
    """What the options of `prefrm serve` and `prefrm app` ask for.

    Raises:
        ConfigError: they contradict each other, a file is not valid, or the host needs tokens.
    """
    if no_token and token_file is not None:
        raise ConfigError("--token-file and --no-token contradict each other; give one of them")
    if (tls_cert is None) != (tls_key is None):
        raise ConfigError("--tls-cert and --tls-key belong together; give both, or neither")
    if tls_client_ca is not None and tls_cert is None:
        raise ConfigError("--tls-client-ca needs --tls-cert and --tls-key")
    check_exposure(host, tokens=token_file is not None, tls=tls_cert is not None, no_token=no_token)
    tls = None
    if tls_cert is not None and tls_key is not None:
        tls = ServerTls(cert=tls_cert, key=tls_key, client_ca=tls_client_ca)
    return Door(tokens=None if token_file is None else TokenFile(token_file), tls=tls)


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
