"""Who the client says it is, and whom it believes: a bearer token and TLS. Opens no connection.

A token is kept out of every `repr`, message and log.
"""

import ssl
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from prefrm.client._endpoint import Endpoint
from prefrm.errors import ConfigError

__all__ = ["TLS", "Credentials", "secured"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How a connection is encrypted: paths of PEM files, which are read whenever a connection is made.

    Attributes:
        ca: the certificates that may have signed the server's; None for those of the system.
        cert: the client's own certificate, for a server that asks for one.
        key: the private key of `cert`.
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError(f"tls needs cert and key together; received cert={self.cert}, key={self.key}")
        for name, path in self.files().items():
            if not path.is_file():
                raise ConfigError(f"tls {name}: {path} is no file")

    def context(self) -> ssl.SSLContext:
        """The SSL context for these files. Raises `ConfigError` if they cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except OSError as error:
            files = ", ".join(f"{name}={path}" for name, path in self.files().items())
            raise ConfigError(f"the files of `tls` cannot be used: {files}: {error}") from error
        return context

    def files(self) -> dict[str, Path]:
        """The files that are given, by attribute."""
        return {name: Path(path) for name, path in asdict(self).items() if path is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The token that each request carries, if any, and the TLS of an encrypted endpoint."""

    token: str | None = field(default=None, repr=False)
    tls: TLS = TLS()

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and not isinstance(token, str):
            raise ConfigError(f"token must be a string; received {type(token).__name__}")
        # One header field of visible ASCII: anything else would break the request, or be two fields.
        if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
            raise ConfigError(
                f"token must be visible ASCII without blanks; received {len(token)} other characters"
            )

    def headers(self) -> dict[str, str]:
        """What each request carries, as HTTP headers or gRPC metadata."""
        return {} if self.token is None else {"authorization": f"Bearer {self.token}"}

    def quoted(self, text: object, longest: int = 300) -> str:
        """A server's words for a message: on one line, printable, without the token, cut.

        Control characters go, terminal escapes and directions of writing (bidi) with them; so the token is
        looked for afterwards.
        """
        shown = " ".join(str(text).split()) or type(text).__name__
        if not shown.isprintable():
            shown = "".join(filter(str.isprintable, shown)) or "unprintable"
        if self.token is not None:
            shown = shown.replace(self.token, "[token]")
        return shown if len(shown) <= longest else shown[:longest] + "..."


def secured(
    endpoints: Iterable[Endpoint],
    *,
    token: str | None,
    tls: TLS | bool | None,
    allow_plaintext_token: bool,
) -> tuple[tuple[Endpoint, ...], Credentials]:
    """The endpoints, encrypted where that is asked for, and the credentials for them.

    Raises `ConfigError` if the arguments contradict each other, or a token would travel in plain text.
    """
    endpoints = tuple(endpoints)
    if tls is not None and not isinstance(tls, (bool, TLS)):
        raise ConfigError(f"tls must be True, False or TLS(ca=...) of prefrm.client; received {tls!r}")
    if not isinstance(allow_plaintext_token, bool):
        raise ConfigError(f"allow_plaintext_token must be True or False; received {allow_plaintext_token!r}")
    if tls is False and endpoints[0].secure:
        raise ConfigError(
            f"tls=False contradicts {endpoints[0].url}; write {endpoints[0].wire}:// for plain text"
        )
    if tls:
        endpoints = tuple(replace(one, secure=True) for one in endpoints)
    exposed = [one.url for one in endpoints if not one.secure and not one.is_loopback]
    if token is not None and exposed and not allow_plaintext_token:
        raise ConfigError(
            f"the token would travel in plain text to {', '.join(exposed)}; use grpcs://, https:// or "
            "tls=..., or say allow_plaintext_token=True on a network that you trust"
        )
    return endpoints, Credentials(token=token, tls=tls if isinstance(tls, TLS) else TLS())
