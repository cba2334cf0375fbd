"""The gRPC wire of the remote scorers, on `tritonclient.grpc` and its `aio`. Retries nothing."""

import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import bundle_of, inputs_of, late, one_line, outputs_of, unavailable
from prefrm.errors import OverloadedError, RequestError, ScoringError
from prefrm.protocol import MATRIX_OUTPUTS, Tensors

__all__ = ["AsyncGrpcTransport", "GrpcTransport"]

# No bound on messages, as the stock client has it. gRPC's own backoff between connection attempts grows
# to two minutes, and requests fail unsent during it: ours must be able to see a server that came back.
CHANNEL_ARGS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]

REFUSALS = frozenset(
    {
        "ALREADY_EXISTS",
        "FAILED_PRECONDITION",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "UNIMPLEMENTED",
    }
)


class GrpcTransport:
    """Blocking requests; may be used from several threads."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._outputs = [triton.InferRequestedOutput(spec.name) for spec in MATRIX_OUTPUTS]
        self._client = triton.InferenceServerClient(endpoint.address, channel_args=_channel_args(endpoint))

    def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.Transport` says."""
        try:
            result = self._client.infer(
                self._endpoint.model,
                inputs_of(tensors, triton.InferInput),
                outputs=self._outputs,
                client_timeout=timeout,
            )
        except InferenceServerException as error:
            raise _translated(error, self._endpoint, timeout) from error
        return outputs_of(result, self._endpoint)

    def bundle(self, *, timeout: float) -> str | None:
        """As `prefrm.client._transport.Transport` says."""
        try:
            answer = self._client.get_model_config(self._endpoint.model, as_json=True, client_timeout=timeout)
        except InferenceServerException as error:
            raise _translated(error, self._endpoint, timeout) from error
        return bundle_of(answer.get("config"))

    def close(self) -> None:
        """Close the channel."""
        self._client.close()


class AsyncGrpcTransport:
    """Requests on the running event loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._outputs = [triton.InferRequestedOutput(spec.name) for spec in MATRIX_OUTPUTS]
        self._client = triton_aio.InferenceServerClient(
            endpoint.address, channel_args=_channel_args(endpoint)
        )

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt. Raises as `prefrm.client._transport.AsyncTransport` says."""
        try:
            result = await self._client.infer(
                self._endpoint.model,
                inputs_of(tensors, triton.InferInput),
                outputs=self._outputs,
                client_timeout=timeout,
            )
        except InferenceServerException as error:
            raise _translated(error, self._endpoint, timeout) from error
        return outputs_of(result, self._endpoint)

    async def close(self) -> None:
        """Close the channel."""
        await self._client.close()


def _channel_args(endpoint: Endpoint) -> list[tuple[str, int]]:
    # gRPC would take a proxy that the environment names even to this machine; the HTTP clients never do.
    return [*CHANNEL_ARGS, ("grpc.enable_http_proxy", 0)] if endpoint.is_loopback else CHANNEL_ARGS


def _translated(error: InferenceServerException, endpoint: Endpoint, timeout: float) -> ScoringError:
    code = str(error.status()).removeprefix("StatusCode.")
    message = one_line(error.message())
    # gRPC itself uses this code for a message beyond a size limit, which no waiting makes smaller.
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in message:
        return RequestError(f"{endpoint.url} refused the request: {message}; send fewer or smaller images")
    match code:
        case "UNAVAILABLE" | "CANCELLED":
            return unavailable(endpoint, message)
        case "RESOURCE_EXHAUSTED":
            return OverloadedError(f"{endpoint.url} is overloaded: {message}")
        case "DEADLINE_EXCEEDED":
            return late(endpoint, timeout)
        case _ if code in REFUSALS:
            return RequestError(f"{endpoint.url} refused the request: {message}")
        case _:
            return ScoringError(f"{endpoint.url} failed to score ({code}): {message}")
