"""One process's server: a data plane, its two wires and its metrics on three ports, started and stopped."""

import asyncio
import functools
import logging
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc.service_pb2_grpc import add_GRPCInferenceServiceServicer_to_server

from prefrm.access.tls import ServerTls
from prefrm.access.tokens import TokenFile
from prefrm.differentiable import DifferentiableScorer
from prefrm.sockets import address_of, bind, join_address, port_in_use
from prefrm.winmatrix import Scorer, inputs_of
from serving.access.connections import GRPC_CONNECTION_OPTIONS
from serving.access.guards import OPEN_PATHS, TokenInterceptor, TokenMiddleware
from serving.dataplane import DataPlane
from serving.limits import Limits
from serving.models import LoadedModel, ModelInfo, ModelRepository
from serving.observing.cache import ImageCache
from serving.observing.metrics import Metrics
from serving.observing.requests import Observer
from serving.wire.chat_dialects import DIALECTS, Dialect
from serving.wire.docs_page import DOCS_PAGE
from serving.wire.grpc import InferenceService
from serving.wire.http import create_app
from serving.wire.http_protocol import HttpProtocol
from serving.wire.metrics_page import create_metrics_app
from serving.wire.parsing import CarefulRegistrar
from serving.wire.reflection import add_reflection

__all__ = ["Addresses", "JudgeServer", "Server"]

logger = logging.getLogger(__name__)

# How long answers may take to arrive at their clients once the server stops.
GRACE_S = 1.0
# How often it is asked whether a scorer hangs.
WATCH_S = 1.0
# Longer than the pause between two steps of most trainers, so that a client's connection survives it.
KEEP_ALIVE_S = 75
UNAUTHENTICATED = "UNAUTHENTICATED"
INFERENCE_SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where a started server listens, each as `host:port`, the names of its models, whether it uses TLS."""

    http: str
    grpc: str
    metrics: str
    models: tuple[str, ...]
    secure: bool = False

    @property
    def http_url(self) -> str:
        """The URL of the first model over HTTP, for `prefrm.client.connect`."""
        return self.model_urls(self.models[0])[1]

    @property
    def grpc_url(self) -> str:
        """The URL of the first model over gRPC, for `prefrm.client.connect`."""
        return self.model_urls(self.models[0])[0]

    @property
    def metrics_url(self) -> str:
        """The URL of the Prometheus metrics."""
        return f"http{'s' * self.secure}://{self.metrics}/metrics"

    @property
    def docs_url(self) -> str:
        """The URL of the page that documents the HTTP API."""
        return f"http{'s' * self.secure}://{self.http}{DOCS_PAGE}"

    def model_urls(self, model: str) -> tuple[str, str]:
        """The URLs of a model for `prefrm.client.connect`, over gRPC and over HTTP."""
        secure = "s" * self.secure
        return f"grpc{secure}://{self.grpc}/{model}", f"http{secure}://{self.http}/{model}"


class Server:
    """A data plane on its three ports. Lives in one event loop.

    Args:
        plane: not yet started.
        host: the interface to listen on.
        http_port: 0 for any free port, as for the two others.
        grpc_port: of the gRPC wire.
        metrics_port: of the Prometheus metrics.
        tokens: what clients must send, on every port; None if nothing.
        tls: what encrypts every port; None if nothing.
        dialects: of the pairwise questions that the chat route understands.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        tokens: TokenFile | None = None,
        tls: ServerTls | None = None,
        dialects: Sequence[Dialect] = DIALECTS,
    ) -> None:
        self._plane, self._dialects = plane, dialects
        self._tokens, self._tls = tokens, tls
        self._host = host
        self._ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._health = health.aio.HealthServicer()
        self._http_servers: list[_HttpServer] = []
        self._cleanups = AsyncExitStack()

    async def start(self) -> Addresses:
        """Listen, and accept requests. Raises `ConfigError` if a port cannot be had; then nothing listens."""
        async with AsyncExitStack() as started:
            app = create_app(self._plane, None if self._tokens is None else OPEN_PATHS, self._dialects)
            http = await self._start_http("http", app, started)
            metrics = await self._start_http(
                "metrics", create_metrics_app(self._plane.metrics.registry), started
            )
            grpc_address = await self._start_grpc(started)
            self._plane.start()
            started.push_async_callback(_cancelled, asyncio.create_task(self._watch(), name="watch"))
            self._cleanups = started.pop_all()
        logger.info("started", extra={"fields": {"http": http, "grpc": grpc_address, "metrics": metrics}})
        return Addresses(
            http=http,
            grpc=grpc_address,
            metrics=metrics,
            models=tuple(self._plane.models.names()),
            secure=self._tls is not None,
        )

    async def stop(self) -> None:
        """Say that it is not ready, finish what was accepted, and close the ports."""
        logger.info("stopping")
        await self._health.enter_graceful_shutdown()
        await self._plane.drain()
        # Both at once, since each takes a moment to notice.
        for server in self._http_servers:
            server.should_exit = True
        await self._cleanups.aclose()
        logger.info("stopped")

    async def _start_http(self, which: str, app: Any, started: AsyncExitStack) -> str:
        listener = bind(self._host, self._ports[which], which)
        tls = self._tls
        if self._tokens is not None:
            open_paths = OPEN_PATHS if which == "http" else frozenset()
            refused = functools.partial(self._plane.refused, which, UNAUTHENTICATED)
            app = TokenMiddleware(app, self._tokens, refused, open_paths)
        header_s = self._plane.limits.header_s
        config = uvicorn.Config(
            app,
            http=functools.partial(HttpProtocol, header_s=header_s),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(GRACE_S),
            ssl_context_factory=None if tls is None else lambda *_: tls.ssl_context(),
        )
        server = _HttpServer(config, handshake_s=header_s)
        self._http_servers.append(server)
        task = asyncio.create_task(server.serve(sockets=[listener]), name=which)
        started.push_async_callback(server.finish, task)
        await server.listening.wait()
        return address_of(listener)

    async def _start_grpc(self, started: AsyncExitStack) -> str:
        port = self._ports["grpc"]
        # gRPC reports a port in use as several lines on stderr, so ask the system first.
        with bind(self._host, port, "grpc"):
            pass
        interceptors: list[grpc.aio.ServerInterceptor] = []
        if self._tokens is not None:
            refused = functools.partial(self._plane.refused, "grpc", UNAUTHENTICATED)
            interceptors.append(TokenInterceptor(self._tokens, refused))
        server = grpc.aio.server(
            interceptors=interceptors,
            options=[
                ("grpc.max_receive_message_length", self._plane.limits.request_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 0),
                *GRPC_CONNECTION_OPTIONS,
            ],
        )
        registrar = CarefulRegistrar(server, self._plane.limits.deadline_s)
        add_GRPCInferenceServiceServicer_to_server(InferenceService(self._plane), registrar)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, registrar)
        add_reflection([INFERENCE_SERVICE, health.SERVICE_NAME], server)
        await self._health.set(INFERENCE_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        try:
            address = join_address(self._host, port)
            if self._tls is None:
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, self._tls.grpc_credentials())
        except RuntimeError as error:
            raise port_in_use(self._host, port, "grpc") from error
        await server.start()
        started.push_async_callback(server.stop, GRACE_S)
        return join_address(self._host, port)

    async def _watch(self) -> None:
        """Tell gRPC's health service, which pushes, and the log when a scorer hangs or works again."""
        said = True
        while True:
            await asyncio.sleep(WATCH_S)
            hanging = [model.info.name for model in self._plane.models.all() if not model.ready]
            if said == (not hanging):
                continue
            said = not hanging
            status = (
                health_pb2.HealthCheckResponse.SERVING if said else health_pb2.HealthCheckResponse.NOT_SERVING
            )
            for service in ("", INFERENCE_SERVICE):
                await self._health.set(service, status)
            if hanging:
                logger.error("not ready: nothing has moved for longer than hang_s: %s", ", ".join(hanging))
            else:
                logger.info("ready again")


class JudgeServer(Server):
    """Serves one scorer.

    Args:
        scorer: what judges; it is called from one thread, one call at a time.
        model: the name and version it is served under.
        limits: what is accepted.
        cache: the scorer's cache of images, if the metrics are to tell of it.
        host: the interface to listen on, as the ports those of `Server`.
        http_port: 0 for any free port, as for the two others.
        grpc_port: of the gRPC wire.
        metrics_port: of the Prometheus metrics.
        tokens: what clients must send, as `Server` has it.
        tls: what encrypts the ports, likewise.
        observers: told of each inference request, besides the metrics.
        gradient: of the same judge, if clients may ask for it.
    """

    def __init__(
        self,
        scorer: Scorer,
        model: ModelInfo,
        *,
        limits: Limits | None = None,
        cache: ImageCache | None = None,
        host: str = "127.0.0.1",
        http_port: int = 0,
        grpc_port: int = 0,
        metrics_port: int = 0,
        tokens: TokenFile | None = None,
        tls: ServerTls | None = None,
        observers: Sequence[Observer] = (),
        gradient: DifferentiableScorer | None = None,
    ) -> None:
        limits, metrics = limits or Limits(), Metrics()
        info = replace(model, inputs=inputs_of(scorer))
        loaded = LoadedModel(info=info, scorer=scorer, cache=cache, gradient=gradient)
        models = ModelRepository([loaded], limits, metrics)
        super().__init__(
            DataPlane(models, limits, metrics, observers),
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            tokens=tokens,
            tls=tls,
        )


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class _HttpServer(uvicorn.Server):
    """Uvicorn on a listening socket, which leaves the process's signals alone.

    Args:
        config: of uvicorn.
        handshake_s: seconds that a TLS handshake may take.
    """

    def __init__(self, config: uvicorn.Config, *, handshake_s: float) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._handshake_s = handshake_s

    def capture_signals(self) -> Any:
        return nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, which has no time limit for handshakes."""
        config, loop = self.config, asyncio.get_running_loop()

        def connection(_loop: asyncio.AbstractEventLoop | None = None) -> asyncio.Protocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state, _loop=_loop
            )

        self.servers = [
            await loop.create_server(
                connection,
                sock=listener,
                ssl=config.ssl,
                backlog=config.backlog,
                ssl_handshake_timeout=self._handshake_s if config.ssl else None,
            )
            for listener in sockets or ()
        ]
        self.started = True
        self.listening.set()

    async def finish(self, task: asyncio.Task[None]) -> None:
        self.should_exit = True
        await task
