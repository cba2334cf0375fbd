"""The bearer tokens that a server accepts, from a file that is read again while it serves.

Knows no HTTP and no gRPC: `serving.access.guards` and `prefrm.app.guard` ask it for them.
"""

import functools
import hashlib
import hmac
import logging
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefrm.access.reloading import Reloading
from prefrm.errors import ConfigError
from prefrm.files import read_regular

__all__ = ["TokenFile"]

logger = logging.getLogger(__name__)

# 16 random characters of this alphabet are 96 bits.
MIN_LENGTH = 16
# 16,000 tokens of `openssl rand -hex 32`. Each request is compared with all of them.
MOST_BYTES = 2**20
# RFC 6750, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
# HTTP/1.1 servers strip blanks around a header's value (RFC 9110, section 5.5), gRPC does not.
_BEARER = re.compile(rb"[ \t]*bearer +(\S+)[ \t]*", re.IGNORECASE)


class TokenFile:
    """Tokens, one a line; blank lines and what follows a `#` are skipped.

    The file is read again when it may have changed, so that a token can be added or withdrawn while the
    server runs. A file that vanishes, holds no token or breaks a rule leaves the last good tokens in force,
    and the log says so, once.

    Raises:
        ConfigError: at the start, the file cannot be read, holds no token, or one that is short or malformed.
    """

    def __init__(self, path: Path) -> None:
        self._tokens = Reloading(
            functools.partial(_read, path),
            what=f"the token file {path}",
            kept="the tokens that were read before stay in force",
        )
        if path.stat().st_mode & stat.S_IROTH:
            logger.warning("the token file %s can be read by every user of this machine; chmod 600 it", path)

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self._tokens.latest().digests)

    def refusal(self, authorizations: Sequence[bytes]) -> str:
        """Why a request with these `authorization` headers is not let in; "" if it is.

        Takes as long for one wrong token as for another: neither its length nor its place among the right
        ones shows.
        """
        if not authorizations:
            return "a token is required: send the header `authorization: Bearer TOKEN`"
        bearer = _BEARER.fullmatch(authorizations[0])
        if len(authorizations) > 1 or bearer is None:
            return "the header `authorization` must be sent once, as `Bearer TOKEN`"
        given = hashlib.sha256(bearer[1]).digest()
        admitted = False
        for known in self._tokens.latest().digests:
            admitted |= hmac.compare_digest(known, given)
        return "" if admitted else "the token is not one of this server's"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tokens:
    """The file's content, and the digests of its tokens."""

    content: bytes
    digests: list[bytes]


def _read(path: Path, previous: _Tokens | None) -> _Tokens:
    try:
        content = read_regular(path, MOST_BYTES)
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be read: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"the token file {error}") from error
    if previous is not None and content == previous.content:
        return previous
    tokens = _Tokens(content=content, digests=_digests(content, path))
    if previous is not None:
        logger.info("the token file %s has changed; its tokens are now: %d", path, len(tokens.digests))
    return tokens


def _digests(content: bytes, path: Path) -> list[bytes]:
    # Of one length, so that comparing them tells nothing of the tokens'.
    digests = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        token = line.partition("#")[0].strip()
        if not token:
            continue
        # The token itself must not reach a terminal or a log.
        if not _TOKEN.fullmatch(token):
            raise ConfigError(
                f"{path}, line {number}: a token is made of letters, digits and -._~+/ and may end in =; "
                "write one a line"
            )
        if len(token) < MIN_LENGTH:
            raise ConfigError(
                f"{path}, line {number}: a token has at least {MIN_LENGTH} characters, this one has "
                f"{len(token)}; `openssl rand -hex 32` makes a good one"
            )
        digests.append(hashlib.sha256(token.encode()).digest())
    if not digests:
        raise ConfigError(f"the token file {path} holds no token; write one a line")
    return digests
