"""The application on a port, until a signal ends it."""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from prefrm.access.exposure import Door, is_loopback
from prefrm.app.guard import Guard
from prefrm.sockets import address_of

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["serve"]

# What an answer that is being sent has at the end.
GRACE_S = 2


def serve(
    application: "FastAPI", listener: socket.socket, door: Door, on_ready: Callable[[str], object]
) -> None:
    """Serve the pages until SIGINT or SIGTERM.

    Args:
        application: of `create_application`.
        listener: as `prefrm.sockets.bind` makes it.
        door: the tokens and certificates.
        on_ready: called with the URL of the first page once it can be opened.
    """
    import uvicorn

    tls = door.tls
    guard = Guard(
        application, door.tokens, local=is_loopback(listener.getsockname()[0]), secure=tls is not None
    )
    config = uvicorn.Config(
        guard,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ssl_context_factory=None if tls is None else lambda *_: tls.ssl_context(),
    )
    server = uvicorn.Server(config)
    # It listens already: what connects from now on is answered.
    on_ready(f"http{'s' * (tls is not None)}://{address_of(listener)}/")
    server.run(sockets=[listener])
