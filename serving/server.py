"""One process's server: a data plane, its two wires and its metrics on three ports, started and stopped.

`JudgeServer` lives in a running event loop; `run` gives it one until a signal, `background` a thread.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import make_asgi_app
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from prefrm.errors import ConfigError
from prefrm.winmatrix import Scorer
from serving.cache import ImageCache
from serving.dataplane import DataPlane, ModelInfo
from serving.grpc import InferenceService
from serving.http import create_app
from serving.limits import Limits

__all__ = ["Addresses", "JudgeServer", "background", "check_ports", "run"]

# Bounds on how long accepted requests may take to finish once the server is asked to stop, and then their
# answers to arrive.
DRAIN_S = 30.0
GRACE_S = 1.0
# Longer than the pause between two steps of most trainers, so that a client's connection survives it.
KEEP_ALIVE_S = 75
INFERENCE_SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a started server listens, each as `host:port`, and the name of its model."""

    http: str
    grpc: str
    metrics: str
    model: str

    @property
    def http_url(self) -> str:
        """What `prefrm.client.connect` takes, over HTTP."""
        return f"http://{self.http}/{self.model}"

    @property
    def grpc_url(self) -> str:
        """What `prefrm.client.connect` takes, over gRPC."""
        return f"grpc://{self.grpc}/{self.model}"


class JudgeServer:
    """Serves one scorer.

    Args:
        scorer: what judges; it is called from one thread, one call at a time.
        model: the name and version it is served under.
        host: the interface to listen on.
        http_port: 0 for any free port, as for the two others.
        grpc_port: of the gRPC wire.
        metrics_port: of the Prometheus metrics.
        limits: what is accepted.
        cache: the scorer's cache of images, if the metrics are to tell of it.
    """

    def __init__(
        self,
        scorer: Scorer,
        model: ModelInfo,
        *,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        limits: Limits | None = None,
        cache: ImageCache | None = None,
    ) -> None:
        self._plane = DataPlane(scorer, model, limits or Limits(), cache)
        self._host = host
        self._ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._health = health.aio.HealthServicer()
        self._http_servers: list[_HttpServer] = []
        self._cleanups = AsyncExitStack()

    async def start(self) -> Addresses:
        """Listen, and accept requests. Raises `ConfigError` if a port cannot be had; then nothing listens."""
        async with AsyncExitStack() as started:
            http = await self._start_http("http", create_app(self._plane), started)
            metrics = await self._start_http("metrics", make_asgi_app(self._plane.stats.registry), started)
            grpc_address = await self._start_grpc(started)
            self._plane.start()
            self._cleanups = started.pop_all()
        return Addresses(http=http, grpc=grpc_address, metrics=metrics, model=self._plane.model_name)

    async def stop(self) -> None:
        """Say that it is not ready, finish what was accepted (within `DRAIN_S`), and close the ports."""
        await self._health.enter_graceful_shutdown()
        await self._plane.drain(DRAIN_S)
        # Both at once, since each takes a moment to notice.
        for server in self._http_servers:
            server.should_exit = True
        await self._cleanups.aclose()

    async def _start_http(self, which: str, app: Any, started: AsyncExitStack) -> str:
        listener = _bound(self._host, self._ports[which], which)
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(GRACE_S),
        )
        server = _HttpServer(config)
        self._http_servers.append(server)
        task = asyncio.create_task(server.serve(sockets=[listener]), name=which)
        started.push_async_callback(server.finish, task)
        await server.listening.wait()
        return _address(listener)

    async def _start_grpc(self, started: AsyncExitStack) -> str:
        port = self._ports["grpc"]
        # gRPC reports a port in use as several lines on stderr, so ask the system first.
        with _bound(self._host, port, "grpc"):
            pass
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._plane.limits.request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
            ]
        )
        add_GRPCInferenceServiceServicer_to_server(InferenceService(self._plane), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._health.set(INFERENCE_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        try:
            port = server.add_insecure_port(_joined(self._host, port))
        except RuntimeError as error:
            raise _port_in_use(self._host, port, "grpc") from error
        await server.start()
        started.push_async_callback(server.stop, GRACE_S)
        return _joined(self._host, port)


class _HttpServer(uvicorn.Server):
    """Uvicorn on a listening socket, which leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    def capture_signals(self) -> Any:
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def finish(self, task: asyncio.Task[None]) -> None:
        self.should_exit = True
        await task


def run(server: JudgeServer, *, on_ready: Callable[[Addresses], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was accepted. A second signal kills the process.

    Args:
        server: not yet started.
        on_ready: called once, when requests are accepted.

    Raises:
        ConfigError: a port cannot be had.
    """
    asyncio.run(_until_signal(server, on_ready))


async def _until_signal(server: JudgeServer, on_ready: Callable[[Addresses], None]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal() -> None:
        stop.set()
        for number in before:
            loop.remove_signal_handler(number)
            # The system's own action, which no busy thread delays.
            signal.signal(number, signal.SIG_DFL)

    addresses = await server.start()
    for number in before:
        loop.add_signal_handler(number, on_signal)
    try:
        on_ready(addresses)
        await stop.wait()
    finally:
        await server.stop()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


@contextmanager
def background(server: JudgeServer) -> Iterator[Addresses]:
    """Serve from a thread of this process while the block runs. Raises `ConfigError` as `run`."""
    ready: Future[tuple[Addresses, Callable[[], None]]] = Future()

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            addresses = await server.start()
        except BaseException as error:
            ready.set_exception(error)
            return

        def halt() -> None:
            loop.call_soon_threadsafe(stop.set)

        ready.set_result((addresses, halt))
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="judge-server")
    thread.start()
    try:
        addresses, halt = ready.result()
        try:
            yield addresses
        finally:
            halt()
    finally:
        thread.join()


def check_ports(host: str, ports: Mapping[str, int]) -> None:
    """Raise `ConfigError` unless these ports, by their wire, can all be had at this moment; 0 is any."""
    with ExitStack() as held:
        for which, port in ports.items():
            held.enter_context(_bound(host, port, which))


def _bound(host: str, port: int, which: str) -> socket.socket:
    if not host:
        raise ConfigError(
            "--host is empty; give 127.0.0.1 for this machine alone, 0.0.0.0 for all others too"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off on each connection; without it, every
    # answer would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise _port_in_use(host, port, which, getattr(error, "strerror", None) or str(error)) from error
    return listener


def _port_in_use(host: str, port: int, which: str, reason: str = "it is in use") -> ConfigError:
    return ConfigError(
        f"cannot listen on {_joined(host, port)} for {which}: {reason}; "
        f"choose another --host or --{which}-port, 0 for any free port"
    )


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return _joined(host, port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
