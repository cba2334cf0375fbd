"""The remote scorers: asyncio, and its blocking form through the portal.

A scorer is its endpoints, policy and credentials. Connections are made at the first use, and again in each
process and event loop that it finds itself in. So it survives a fork, and can be pickled and sent to workers.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Self

from prefrm.client import _portal
from prefrm.client._core import PARTS_PER_REPLICA, Connections, home
from prefrm.client._credentials import TLS, Credentials, secured
from prefrm.client._endpoint import Endpoint, joint_url, parse_url
from prefrm.client._policy import DEFAULT_DEADLINE_S, DEFAULT_UNAVAILABLE_TIMEOUT_S, RetryPolicy
from prefrm.winmatrix import Group, Inputs, WinMatrix, check_groups

__all__ = ["AsyncRemoteScorer", "Remote", "RemoteScorer"]


class Remote:
    """What remote scorers and gradients are made of."""

    def __init__(self, endpoints: Sequence[Endpoint], policy: RetryPolicy, credentials: Credentials) -> None:
        self._endpoints, self._policy, self._credentials = tuple(endpoints), policy, credentials

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        token: str | None = None,
        tls: TLS | bool | None = None,
        deadline: float = DEFAULT_DEADLINE_S,
        unavailable_timeout: float = DEFAULT_UNAVAILABLE_TIMEOUT_S,
        allow_plaintext_token: bool = False,
    ) -> Self:
        """A scorer that asks the server at `url`, or the servers: replicas that serve the same judge.

        Args:
            url: `grpc://host:port/model` or `http://host:port/model`; `grpcs://` and `https://` are
                encrypted. Several replicas stand beside each other, `grpc://a:8001,b:8001/model`. A port may
                be left out if it is the protocol's own (8001 for gRPC, 8000 for HTTP).
            token: sent with each request as `authorization: Bearer TOKEN`.
            tls: True, or a `TLS` with files, encrypts whatever the URL says.
            deadline: seconds that one call of `score` may take, its retries included. What is left of it
                travels with each request, so that a server does not compute what comes too late.
            unavailable_timeout: seconds to retry while no replica is reachable or ready. A full server is
                asked again until the deadline.
            allow_plaintext_token: send the token unencrypted to other machines, too.

        Raises:
            ConfigError: an argument is not as described, or the token would travel in plain text.
        """
        endpoints, credentials = secured(
            parse_url(url), token=token, tls=tls, allow_plaintext_token=allow_plaintext_token
        )
        policy = RetryPolicy(deadline=deadline, unavailable_timeout=unavailable_timeout)
        return cls(endpoints, policy, credentials)

    @property
    def url(self) -> str:
        """The URL of the judge, with all its replicas."""
        return joint_url(self._endpoints)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self._endpoints, self._policy, self._credentials)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"


class AsyncRemoteScorer(Remote):
    """The asyncio form of `RemoteScorer`. Made by `prefrm.client.connect_async`.

    Tasks of one event loop may share it. In another event loop it opens new connections; close it in the
    loop that used it.
    """

    _connections: Connections | None = None

    async def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """As `RemoteScorer.score`."""
        return await self._connected().score(check_groups(groups))

    async def inputs(self) -> Inputs:
        """As `RemoteScorer.inputs`."""
        return await self._connected().inputs()

    async def identity(self) -> str:
        """As `RemoteScorer.identity`."""
        return await self._connected().bundle() or self.url

    async def close(self) -> None:
        """As `RemoteScorer.close`."""
        here, self._connections = self._connections, None
        if here is not None and here.home == home():
            await here.close()

    def _connected(self) -> Connections:
        if self._connections is None or self._connections.home != home():
            self._connections = Connections(self._endpoints, self._policy, self._credentials)
        return self._connections

    async def __aenter__(self) -> "AsyncRemoteScorer":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class RemoteScorer(Remote):
    """A judge behind a URL; satisfies `prefrm.winmatrix.Scorer`. Made by `prefrm.client.connect`.

    Threads may share it: requests of different threads are scored together where they meet.
    """

    def __init__(self, endpoints: Sequence[Endpoint], policy: RetryPolicy, credentials: Credentials) -> None:
        super().__init__(endpoints, policy, credentials)
        self._scorer = AsyncRemoteScorer(endpoints, policy, credentials)

    @property
    def concurrency(self) -> int:
        """How many calls at once keep every replica busy: one is computed and the next is ready."""
        return PARTS_PER_REPLICA * len(self._endpoints)

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order; groups may differ in size.

        In a group that cannot be sent, or that the server or its judge does not take, nothing is judged: its
        matrix holds the reason in `errors`, and the other groups are judged.

        Raises:
            ServerUnavailableError: no server was reachable or ready for `unavailable_timeout` seconds.
            OverloadedError: every server was full until the deadline.
            DeadlineError: the deadline passed.
            RequestError: a server refused the request as such: no right to it, an unknown model; or it
                answered with a redirect, which is never followed.
            RecordError: the argument is not a list of groups.
            ProtocolError: the answer is not a valid win matrix, or larger than one.
            ScoringError: a server failed while it scored.
            ConfigError: the replicas serve different judges, or one serves another judge than before.
        """
        found = check_groups(groups)
        return _portal.run(lambda: self._scorer.score(found))

    def inputs(self) -> Inputs:
        """What the served judge reads of a group. Raises as `score`."""
        return _portal.run(self._scorer.inputs)

    def identity(self) -> str:
        """The digest of the judge's bundle, which is the same wherever it is served.

        Of a server that names no bundle, the URL. Raises as `score`.
        """
        return _portal.run(self._scorer.identity)

    def close(self) -> None:
        """Release the connections; scoring again opens new ones, which know nothing of the replicas yet."""
        # When the interpreter finalizes, the portal's thread no longer runs.
        if self._scorer._connections and not sys.is_finalizing():
            _portal.run(self._scorer.close)

    def __enter__(self) -> "RemoteScorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
