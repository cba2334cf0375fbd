"""Remote scorers: a judge on other machines behind `score(groups)`, over gRPC or HTTP.

    from prefrm.client import connect

    with connect("grpc://a:8001,b:8001/judge") as judge:
        matrices = judge.score(groups)

`connect_async` gives the same with `await judge.score(groups)`. Either sends nothing before its first
`score`, and neither imports torch.
"""

from prefrm.client._credentials import TLS, secured
from prefrm.client._endpoint import parse_url
from prefrm.client._policy import DEFAULT_DEADLINE_S, DEFAULT_UNAVAILABLE_TIMEOUT_S, RetryPolicy
from prefrm.client._scorers import AsyncRemoteScorer, RemoteScorer

__all__ = [
    "DEFAULT_DEADLINE_S",
    "TLS",
    "AsyncRemoteScorer",
    "RemoteScorer",
    "connect",
    "connect_async",
]


def connect(
    url: str,
    *,
    token: str | None = None,
    tls: TLS | bool | None = None,
    deadline: float = DEFAULT_DEADLINE_S,
    unavailable_timeout: float = DEFAULT_UNAVAILABLE_TIMEOUT_S,
    allow_plaintext_token: bool = False,
) -> RemoteScorer:
    """A scorer that asks the server at `url`, or the servers: replicas that serve the same judge.

    Args:
        url: `grpc://host:port/model` or `http://host:port/model`; `grpcs://` and `https://` are encrypted.
            Several replicas stand beside each other, `grpc://a:8001,b:8001/model`. A port may be left out
            if it is the protocol's own (8001 for gRPC, 8000 for HTTP).
        token: sent with each request as `authorization: Bearer TOKEN`.
        tls: True, or a `TLS` with files, encrypts whatever the URL says.
        deadline: seconds that one call of `score` may take, its retries included. What is left of it
            travels with each request, so that a server does not compute what comes too late.
        unavailable_timeout: seconds to retry while no replica is reachable or ready. A full server is asked
            again until the deadline.
        allow_plaintext_token: send the token unencrypted to other machines, too.

    Raises:
        ConfigError: an argument is not as described, or the token would travel in plain text.
    """
    endpoints, credentials = secured(
        parse_url(url), token=token, tls=tls, allow_plaintext_token=allow_plaintext_token
    )
    return RemoteScorer(
        endpoints, RetryPolicy(deadline=deadline, unavailable_timeout=unavailable_timeout), credentials
    )


def connect_async(
    url: str,
    *,
    token: str | None = None,
    tls: TLS | bool | None = None,
    deadline: float = DEFAULT_DEADLINE_S,
    unavailable_timeout: float = DEFAULT_UNAVAILABLE_TIMEOUT_S,
    allow_plaintext_token: bool = False,
) -> AsyncRemoteScorer:
    """The asyncio form of `connect`, with the same arguments and errors."""
    endpoints, credentials = secured(
        parse_url(url), token=token, tls=tls, allow_plaintext_token=allow_plaintext_token
    )
    return AsyncRemoteScorer(
        endpoints, RetryPolicy(deadline=deadline, unavailable_timeout=unavailable_timeout), credentials
    )
