"""The options of a command that may call a server: a token, TLS files and the deadline."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefrm.errors import ConfigError
from prefrm.options import given_options
from prefrm.scorers import connect_url, is_url, sources

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from prefrm.client import RemoteGradient
    from prefrm.scorers.chat import ChatGenerator
    from prefrm.winmatrix import IdentifiedScorer

__all__ = ["TOKEN_VARIABLE", "Connection", "Remote"]

# A token on the command line could be read by everybody on the machine.
TOKEN_VARIABLE = "PREFRM_TOKEN"

_VISIBLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach the judge behind a URL, as options of a command; each None is the client's own default.

    The token is that of the variable `PREFRM_TOKEN`.
    """

    ca: Annotated[
        Path | None, typer.Option(help="PEM file of the CAs that sign the server's certificate")
    ] = None
    cert: Annotated[Path | None, typer.Option(help="PEM file of a client certificate (mutual TLS)")] = None
    key: Annotated[Path | None, typer.Option(help="PEM file of that certificate's private key")] = None
    deadline: Annotated[
        float | None, typer.Option(help="timeout of one call to the server, in seconds", show_default="300")
    ] = None
    allow_plaintext_token: Annotated[
        bool,
        typer.Option("--allow-plaintext-token", help="allow sending the token unencrypted to other machines"),
    ] = False

    def require_url(self, *targets: str | None) -> None:
        """Raise `ConfigError` if an option was given and these scorers lead to no URL."""
        given = given_options(self)
        if given and not any(map(is_url, sources(*targets))):
            raise ConfigError(f"{given}: for a judge behind a URL; {targets[0]} is a bundle on this machine")

    def connect(self, url: str, **own: Any) -> "AbstractContextManager[IdentifiedScorer]":
        """The scorer at a URL, of a server or of a chat endpoint; `own` replaces options, such as `token`.

        Raises:
            ConfigError: the token's file cannot be read or holds none, or the client refuses these settings.
        """
        return connect_url(url, **self.options(url, **own))

    def gradient(self, url: str, **own: Any) -> "RemoteGradient":
        """The gradient of the judge at a URL. Raises as `connect`."""
        from prefrm.client import RemoteGradient

        return RemoteGradient.connect(url, **self.options(url, **own))

    def generator(self, url: str) -> "ChatGenerator":
        """The judge at a URL of a chat endpoint that answers in words. Raises as `connect`."""
        from prefrm.scorers.chat import ChatGenerator

        return ChatGenerator.connect(url, **self.options(url))

    def options(self, url: str, **own: Any) -> dict[str, Any]:
        """Keywords of what opens a URL. Raises as `connect`."""
        from prefrm.client import DEFAULT_DEADLINE_S, TLS

        files = {"ca": self.ca, "cert": self.cert, "key": self.key}
        encrypted = any(path is not None for path in files.values())
        if encrypted and not url.startswith(("grpcs://", "https://", "chat+https://")):
            raise ConfigError(f"--ca, --cert and --key are for grpcs:// and https://; received {url}")
        return {
            "token": own["token"] if "token" in own else self._token(),
            "tls": TLS(**files) if encrypted else None,
            "deadline": DEFAULT_DEADLINE_S if self.deadline is None else self.deadline,
            "allow_plaintext_token": self.allow_plaintext_token,
        }

    def _token(self) -> str | None:
        return os.environ.get(TOKEN_VARIABLE) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote(Connection):
    """A connection whose token may stand in a file."""

    token_file: Annotated[
        Path | None,
        typer.Option(help=f"a file with the token for the server first; else the variable {TOKEN_VARIABLE}"),
    ] = None

    def options(self, url: str, **own: Any) -> dict[str, Any]:
        """As of `Connection`, with the token of the file."""
        if "token" in own and self.token_file is not None:
            raise ConfigError(
                f"--token-file {self.token_file}: for one server; write `token_env: PREFRM_TOKEN_NAME` "
                "beside each URL of the scorer file"
            )
        return Connection.options(self, url, **own)

    def _token(self) -> str | None:
        if self.token_file is None:
            return Connection._token(self)
        try:
            return _first_token(self.token_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = "it is not a text file" if isinstance(error, UnicodeDecodeError) else error
            reason = getattr(error, "strerror", None) or reason
            raise ConfigError(f"--token-file {self.token_file}: {reason}") from error


def _first_token(text: str) -> str:
    """Of a file such as `prefrm serve` takes: one token a line, without what follows a `#`."""
    for number, line in enumerate(text.splitlines(), start=1):
        token = line.partition("#")[0].strip()
        # The token itself must not reach a terminal or a log.
        if token and not _VISIBLE.fullmatch(token):
            raise ValueError(f"line {number} is not a valid token: visible ASCII without spaces")
        if token:
            return token
    raise ValueError("it has no token; write one per line")
