"""Certificates of both protocols: checked at the start, and reloaded when they are renewed on disk.

With a client CA, a client must show a certificate of it (mutual TLS), on every port.
"""

import functools
import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from prefrm.access.reloading import Reloading
from prefrm.errors import ConfigError
from prefrm.files import read_regular

__all__ = ["ServerTls"]

logger = logging.getLogger(__name__)

# Of one file: a bundle of every public authority has a quarter of it.
MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """PEM files: a certificate chain, its unencrypted private key, and the CA of clients, if they need one.

    Raises:
        ConfigError: a file is missing, unreadable or no PEM, the key is encrypted, or belongs to another
            certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    _current: "Reloading[_Loaded]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        current = Reloading(
            functools.partial(_reload, self),
            what=f"the certificate {self.cert} and its key",
            kept="the certificate that was read before stays in use",
        )
        object.__setattr__(self, "_current", current)

    def ssl_context(self) -> ssl.SSLContext:
        """For a server over asyncio. Each handshake takes the files as they are then."""
        context = _load(self).context

        def choose(connection: ssl.SSLObject, name: str | None, base: ssl.SSLContext) -> None:
            connection.context = self._current.latest().context

        # Called in every handshake, also of a client that names no server.
        context.sni_callback = choose
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For a gRPC server. Each handshake takes the files as they are then."""
        sent = self._current.latest()

        def renewed() -> Any:
            nonlocal sent
            latest = self._current.latest()
            if latest is sent:
                return None
            sent = latest
            return latest.grpc_configuration()

        return grpc.dynamic_ssl_server_credentials(
            sent.grpc_configuration(), renewed, require_client_authentication=self.client_ca is not None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """The files' contents at one moment, known to fit together; `client_ca` is empty where there is none."""

    cert: bytes
    key: bytes
    client_ca: bytes
    context: ssl.SSLContext

    def grpc_configuration(self) -> Any:
        return grpc.ssl_server_certificate_configuration(
            [(self.key, self.cert)], root_certificates=self.client_ca or None
        )


def _reload(tls: ServerTls, previous: _Loaded | None) -> _Loaded:
    if previous is None:
        return _load(tls)
    if _contents(tls) == (previous.cert, previous.key, previous.client_ca):
        return previous
    loaded = _load(tls)
    logger.info("the certificate %s was renewed", tls.cert)
    return loaded


def _load(tls: ServerTls) -> _Loaded:
    cert, key, client_ca = _contents(tls)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a callable, an encrypted key's passphrase would be asked for on the terminal.
        context.load_cert_chain(tls.cert, tls.key, password=_refuse_passphrase(tls.key))
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(_why(error, tls)) from error
    if tls.client_ca is not None:
        try:
            context.load_verify_locations(tls.client_ca)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"the client CA {tls.client_ca} holds no PEM certificate") from error
        context.verify_mode = ssl.CERT_REQUIRED
    if _contents(tls) != (cert, key, client_ca):
        raise ConfigError(f"the certificate {tls.cert} or its key changed while it was read")
    return _Loaded(cert=cert, key=key, client_ca=client_ca, context=context)


def _contents(tls: ServerTls) -> tuple[bytes, bytes, bytes]:
    client_ca = b"" if tls.client_ca is None else _read("client CA", tls.client_ca)
    return _read("certificate", tls.cert), _read("private key", tls.key), client_ca


def _read(what: str, path: Path) -> bytes:
    try:
        return read_regular(path, MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"the {what} {path} cannot be read: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"the {what} {error}") from error


def _refuse_passphrase(key: Path) -> Any:
    def ask() -> str:
        raise ConfigError(
            f"the private key {key} is encrypted; give one without a passphrase, such as "
            "`openssl pkey -in KEY -out PLAIN` writes"
        )

    return ask


def _why(error: Exception, tls: ServerTls) -> str:
    if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
        return f"the private key {tls.key} belongs to another certificate than {tls.cert}"
    return f"the certificate {tls.cert} and the private key {tls.key} are no valid pair of PEM files: {error}"
