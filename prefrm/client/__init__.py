"""Remote scorers: a judge on another machine behind `score(groups)`, over gRPC or HTTP.

    from prefrm.client import connect

    with connect("grpc://127.0.0.1:8001/judge") as judge:
        matrices = judge.score(groups)

`connect_async` gives the same with `await judge.score(groups)`. Either sends nothing before its first
`score`. Both are built on the stock tritonclient, and neither imports torch.
"""

from prefrm.client._endpoint import Endpoint
from prefrm.client._retry import DEFAULT_DEADLINE_S, DEFAULT_PATIENCE_S, RetryPolicy
from prefrm.client._scorer import AsyncRemoteScorer, RemoteScorer

__all__ = ["AsyncRemoteScorer", "RemoteScorer", "connect", "connect_async"]


def connect(
    url: str, *, deadline: float = DEFAULT_DEADLINE_S, patience: float = DEFAULT_PATIENCE_S
) -> RemoteScorer:
    """A scorer that asks the server at `url`.

    Args:
        url: `grpc://host:port/model` or `http://host:port/model`; the port may be left out if it is the
            protocol's own (8001 for gRPC, 8000 for HTTP).
        deadline: seconds that one call of `score` may take, its retries included.
        patience: seconds to go on trying while nobody answers or the server is not ready. A full server
            is asked again until the deadline.

    Raises:
        ConfigError: the URL, the deadline or the patience is not as described.
    """
    return RemoteScorer(Endpoint.parse(url), RetryPolicy(deadline=deadline, patience=patience))


def connect_async(
    url: str, *, deadline: float = DEFAULT_DEADLINE_S, patience: float = DEFAULT_PATIENCE_S
) -> AsyncRemoteScorer:
    """The asyncio form of `connect`, with the same arguments and errors."""
    return AsyncRemoteScorer(Endpoint.parse(url), RetryPolicy(deadline=deadline, patience=patience))
