"""How long a server runs: until a signal in `run`, while a block lasts in `background`."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from prefrm.shutdown import on_first_signal
from serving.server import Addresses, Server

__all__ = ["background", "run"]


def run(server: Server, *, on_ready: Callable[[Addresses], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted. A second signal ends the process at once.

    A scorer that is still busy then stays in its daemon thread: end the process with `exit_process`.

    Args:
        server: not yet started.
        on_ready: called once, when requests are accepted.

    Raises:
        ConfigError: a port cannot be had.
    """
    with _runner() as runner:
        runner.run(_until_signal(server, on_ready))


async def _until_signal(server: Server, on_ready: Callable[[Addresses], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    with on_first_signal((signal.SIGINT, signal.SIGTERM), lambda: loop.call_soon_threadsafe(stop.set)):
        addresses = await server.start()
        try:
            on_ready(addresses)
            await stop.wait()
        finally:
            await server.stop()


def _runner() -> asyncio.Runner:
    """An event loop: uvloop's, which takes a tenth off each request, wherever it runs."""
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


@contextmanager
def background(server: Server) -> Iterator[Addresses]:
    """Serve from a thread of this process while the block runs. Raises `ConfigError` as `run`."""
    ready: Future[Addresses] = Future()
    leaving: Future[None] = Future()

    async def main() -> None:
        try:
            addresses = await server.start()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(addresses)
        await asyncio.wrap_future(leaving)
        await server.stop()

    def serve() -> None:
        with _runner() as runner:
            runner.run(main())

    thread = threading.Thread(target=serve, name="judge-server")
    try:
        thread.start()
        # Ctrl-C may end the wait: a server that is ready after it stops at once.
        yield ready.result()
    finally:
        leaving.set_result(None)
        thread.join()
