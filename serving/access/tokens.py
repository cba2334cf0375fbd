"""The bearer tokens that a server accepts, from a file that is read again while it serves.

Knows no HTTP and no gRPC; `serving.access.guards` asks it for both.
"""

import hashlib
import hmac
import logging
import re
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from prefrm.errors import ConfigError

__all__ = ["TokenFile"]

logger = logging.getLogger(__name__)

# 16 random characters of this alphabet are 96 bits.
MIN_LENGTH = 16
# How old an answer from the file may be, in seconds.
RECHECK_S = 1.0
# RFC 6750, section 2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_BEARER = re.compile(rb"bearer +(\S+) *", re.IGNORECASE)


class TokenFile:
    """Tokens, one a line; blank lines and what follows a `#` are skipped.

    The file is read again when it may have changed, so that a token can be added or withdrawn while the
    server runs. A file that vanishes, holds no token or breaks a rule leaves the last good tokens in force,
    and the log says so, once.

    Raises:
        ConfigError: at the start, the file cannot be read, holds no token, or one that is short or malformed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._content = path.read_bytes()
            mode = path.stat().st_mode
        except OSError as error:
            raise ConfigError(f"the token file {path} cannot be read: {error.strerror}") from error
        self._digests = _digests(self._content, path)
        self._checked = time.monotonic()
        self._problem = ""
        if mode & stat.S_IROTH:
            logger.warning("the token file %s can be read by every user of this machine; chmod 600 it", path)

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self._digests)

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
        self._refresh()
        given = hashlib.sha256(bearer[1]).digest()
        admitted = False
        for known in self._digests:
            admitted |= hmac.compare_digest(known, given)
        return "" if admitted else "the token is not one of this server's"

    def _refresh(self) -> None:
        now = time.monotonic()
        if now < self._checked + RECHECK_S:
            return
        self._checked = now
        try:
            content = self._path.read_bytes()
            if content != self._content:
                self._digests, self._content = _digests(content, self._path), content
                logger.info("the token file %s has changed; its tokens are now: %d", self._path, len(self))
            self._problem = ""
        except OSError as error:
            self._report(f"the token file {self._path} cannot be read: {error.strerror}")
        except ConfigError as error:
            self._report(str(error))

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            logger.warning("%s; the tokens that were read before stay in force", problem)
        self._problem = problem


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
