"""The gRPC wire of the remote scorers, on `tritonclient.grpc` and its `aio`. Retries nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import (
    Setback,
    TooLarge,
    bundle_of,
    inputs_of,
    late,
    microseconds,
    one_line,
    outputs_of,
    overloaded,
    shows_life,
    unavailable,
)
from prefrm.errors import DeadlineError, RequestError, ScoringError
from prefrm.protocol import MATRIX_OUTPUTS, Tensors

__all__ = ["AsyncGrpcTransport", "GrpcTransport", "StockClient"]

# No bound on messages, as the stock client has it. gRPC's own backoff between connection attempts grows
# to two minutes, and requests fail unsent during it: ours must be able to see a server that came back.
CHANNEL_ARGS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# Where a server says how long to stay away, and whether to come back at all: gRFC A6.
PUSHBACK = "grpc-retry-pushback-ms"
# A protobuf message is at most 2 GiB; a little is left for what is not content.
MESSAGE_BYTES = 2**31 - 2**20

REFUSALS = frozenset(
    {
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)


class StockClient(triton.InferenceServerClient):  # type: ignore[misc]
    """The stock client, without work to do when it is dropped."""

    def __del__(self) -> None:
        # The stock one closes its channel here, which fails in a program that ends without having closed it:
        # gRPC's own modules may be gone by then. A channel that is dropped releases its connection itself.
        pass


class GrpcTransport:
    """Blocking requests; may be used from several threads."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._client = _client(StockClient, endpoint, credentials)

    def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.Transport` says."""
        request = _request(self._endpoint, self._credentials, tensors, timeout)
        with _translating(self._endpoint, self._credentials, timeout):
            result = self._client.infer(**request)
        return outputs_of(result, self._endpoint)

    def bundle(self, *, timeout: float) -> str | None:
        """As `prefrm.client._transport.Transport` says."""
        question = _question(self._endpoint, self._credentials, timeout)
        try:
            with _translating(self._endpoint, self._credentials, timeout):
                answer = self._client.get_model_config(**question)
        except RequestError as error:
            if _unsupported(error):
                return None
            raise
        return bundle_of(answer.get("config"))

    def live(self, *, timeout: float) -> bool:
        """As `prefrm.client._transport.Transport` says."""
        try:
            with _translating(self._endpoint, self._credentials, timeout):
                self._client.is_server_live(self._credentials.headers(), client_timeout=timeout)
        except (Setback, ScoringError) as error:
            return shows_life(error)
        return True

    def close(self) -> None:
        """Close the channel."""
        self._client.close()


class AsyncGrpcTransport:
    """Requests on the running event loop."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._client = _client(triton_aio.InferenceServerClient, endpoint, credentials)

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.AsyncTransport` says."""
        request = _request(self._endpoint, self._credentials, tensors, timeout)
        with _translating(self._endpoint, self._credentials, timeout):
            result = await self._client.infer(**request)
        return outputs_of(result, self._endpoint)

    async def bundle(self, *, timeout: float) -> str | None:
        """As `prefrm.client._transport.AsyncTransport` says."""
        question = _question(self._endpoint, self._credentials, timeout)
        try:
            with _translating(self._endpoint, self._credentials, timeout):
                answer = await self._client.get_model_config(**question)
        except RequestError as error:
            if _unsupported(error):
                return None
            raise
        return bundle_of(answer.get("config"))

    async def live(self, *, timeout: float) -> bool:
        """As `prefrm.client._transport.AsyncTransport` says."""
        try:
            with _translating(self._endpoint, self._credentials, timeout):
                await self._client.is_server_live(self._credentials.headers(), client_timeout=timeout)
        except (Setback, ScoringError) as error:
            return shows_life(error)
        return True

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()


def _client(client_class: Any, endpoint: Endpoint, credentials: Credentials) -> Any:
    # gRPC would take a proxy that the environment names even to this machine; the HTTP clients never do.
    arguments = [*CHANNEL_ARGS, ("grpc.enable_http_proxy", 0)] if endpoint.is_loopback else CHANNEL_ARGS
    if endpoint.secure:
        # gRPC would call a server unavailable whose certificate it cannot check for want of a readable file.
        credentials.tls.context()
    ca, cert, key = credentials.tls.paths()
    return client_class(
        endpoint.address,
        channel_args=arguments,
        ssl=endpoint.secure,
        root_certificates=ca,
        certificate_chain=cert,
        private_key=key,
    )


def _question(endpoint: Endpoint, credentials: Credentials, timeout: float) -> dict[str, Any]:
    return {
        "model_name": endpoint.model,
        "as_json": True,
        "client_timeout": timeout,
        "headers": credentials.headers(),
    }


def _request(
    endpoint: Endpoint, credentials: Credentials, tensors: Tensors, timeout: float
) -> dict[str, Any]:
    size = sum(len(element) for array in tensors.values() for element in array.flat)
    if size > MESSAGE_BYTES:
        raise TooLarge(f"a gRPC message holds at most {MESSAGE_BYTES:,} bytes; the request has {size:,}")
    return {
        "model_name": endpoint.model,
        "inputs": inputs_of(tensors, triton.InferInput),
        "outputs": [triton.InferRequestedOutput(spec.name) for spec in MATRIX_OUTPUTS],
        "timeout": microseconds(timeout),
        "client_timeout": timeout,
        "headers": credentials.headers(),
    }


@contextmanager
def _translating(endpoint: Endpoint, credentials: Credentials, timeout: float) -> Iterator[None]:
    try:
        yield
    except InferenceServerException as error:
        raise _translated(error, endpoint, credentials, timeout) from error
    # Another thread found the server gone, and closed the channel.
    except (ValueError, grpc.aio.UsageError) as error:
        if "closed" not in str(error):
            raise
        raise unavailable(endpoint, error) from error


def _unsupported(error: RequestError) -> bool:
    cause = error.__cause__
    return isinstance(cause, InferenceServerException) and _code(cause) == "UNIMPLEMENTED"


def _code(error: InferenceServerException) -> str:
    return str(error.status()).removeprefix("StatusCode.")


def _translated(
    error: InferenceServerException, endpoint: Endpoint, credentials: Credentials, timeout: float
) -> Setback | ScoringError:
    code, message = _code(error), one_line(credentials.hidden(error.message()))
    # gRPC itself uses this code for a message beyond a size limit, which no waiting makes smaller.
    if code == "OUT_OF_RANGE" or (code == "RESOURCE_EXHAUSTED" and "larger than max" in message):
        return TooLarge(f"{endpoint.url} refused the request: {message}")
    match code:
        case "UNAVAILABLE" | "CANCELLED":
            return _unless_forbidden(unavailable(endpoint, message, _pushback(error)))
        case "RESOURCE_EXHAUSTED":
            return _unless_forbidden(overloaded(endpoint, message, _pushback(error)))
        # The server's own limit may be shorter than the time that was left.
        case "DEADLINE_EXCEEDED" if message != "Deadline Exceeded":
            return DeadlineError(f"{endpoint.url} gave up: {message}")
        case "DEADLINE_EXCEEDED":
            return late(endpoint, timeout)
        case _ if code in REFUSALS:
            return RequestError(f"{endpoint.url} refused the request: {message}")
        case _:
            return ScoringError(f"{endpoint.url} failed to score ({code}): {message}")


def _unless_forbidden(setback: Setback) -> Setback | ScoringError:
    return setback.error if setback.pause is not None and setback.pause < 0 else setback


def _pushback(error: InferenceServerException) -> float | None:
    """Seconds to stay away, negative to never come back; None if the server did not say."""
    # The stock client raises its own error while it handles gRPC's, and says `from None`.
    call = error.__context__
    metadata = call.trailing_metadata() if isinstance(call, grpc.RpcError) else None
    for name, value in metadata or ():
        if name == PUSHBACK:
            # What is no number forbids a retry, too.
            return int(value) / 1000 if str(value).lstrip("-").isdecimal() else -1.0
    return None
