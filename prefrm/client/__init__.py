"""Remote scorers: a judge on other machines behind `score(groups)`, over gRPC or HTTP.

    from prefrm.client import connect

    with connect("grpc://a:8001,b:8001/judge") as judge:
        matrices = judge.score(groups)

`connect_async` gives the same with `await judge.score(groups)`. Either sends nothing before its first
`score`, and neither imports torch. `RemoteGradient` gives the derivatives of a judge's utilities in pixels.
"""

from prefrm.client._credentials import TLS
from prefrm.client._gradients import RemoteGradient
from prefrm.client._policy import DEFAULT_DEADLINE_S
from prefrm.client._scorers import AsyncRemoteScorer, RemoteScorer

__all__ = [
    "DEFAULT_DEADLINE_S",
    "TLS",
    "AsyncRemoteScorer",
    "RemoteGradient",
    "RemoteScorer",
    "connect",
    "connect_async",
]

connect = RemoteScorer.connect
connect_async = AsyncRemoteScorer.connect
