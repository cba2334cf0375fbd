"""What both wires share: the transport protocols, and tensors in and out of the stock client's objects."""

from typing import Any, Protocol

from prefrm.client._endpoint import Endpoint
from prefrm.errors import (
    DeadlineError,
    OverloadedError,
    ProtocolError,
    RequestError,
    ScoringError,
    ServerUnavailableError,
)
from prefrm.protocol import BUNDLE_PARAMETER, INPUTS, MATRIX_OUTPUTS, Tensors

__all__ = [
    "LOOK_EVERY_S",
    "LOOK_S",
    "AsyncTransport",
    "Setback",
    "TooLarge",
    "Transport",
    "Unfit",
    "bundle_of",
    "gone",
    "inputs_of",
    "late",
    "microseconds",
    "one_line",
    "outputs_of",
    "overloaded",
    "shows_life",
    "unavailable",
]


# A request that takes longer is watched: so often the server is asked for a sign of life, and for so long.
# A machine that loses its power says nothing, and its silence looks like work.
LOOK_EVERY_S = 10.0
LOOK_S = 10.0

# What OpenSSL, gRPC and the HTTP parsers say of a port that speaks another protocol, and what it may be.
_OTHER_PROTOCOLS = {
    "Expected HTTP/": "is this the gRPC port?",
    "before receiving SETTINGS frame": "is this a gRPC port, and is it encrypted?",
    "WRONG_VERSION_NUMBER": "is this port encrypted?",
}


class Setback(Exception):
    """An attempt that says nothing of the request, which may be repeated: nobody answered, or the server is
    full or not ready. `pause` is how many seconds the server asked to be left alone, if it did."""

    def __init__(self, error: ServerUnavailableError | OverloadedError, pause: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.pause = pause


class Unfit(RequestError):
    """A request that cannot be sent or is not taken as it is; a smaller part of its groups may pass."""


class TooLarge(Unfit):
    """The request, or the answer to it, is larger than the server takes."""


class Transport(Protocol):
    """Sends one request and returns the named tensors of its answer."""

    def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt of at most `timeout` seconds. Raises `Setback`, or a subclass of `ScoringError`."""
        ...

    def bundle(self, *, timeout: float) -> str | None:
        """The digest of the served bundle, or None if the server names none. Raises as `infer`."""
        ...

    def live(self, *, timeout: float) -> bool:
        """Whether the server gives any sign of life within `timeout` seconds. Raises nothing."""
        ...

    def close(self) -> None:
        """Release the connections; requests that are under way may fail."""
        ...


class AsyncTransport(Protocol):
    """The asyncio form of `Transport`."""

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        """One attempt of at most `timeout` seconds. Raises `Setback`, or a subclass of `ScoringError`."""
        ...

    async def bundle(self, *, timeout: float) -> str | None:
        """The digest of the served bundle, or None if the server names none. Raises as `infer`."""
        ...

    async def live(self, *, timeout: float) -> bool:
        """Whether the server gives any sign of life within `timeout` seconds. Raises nothing."""
        ...

    async def close(self) -> None:
        """Release the connections; requests that are under way may fail."""
        ...


def inputs_of(tensors: Tensors, input_class: Any) -> list[Any]:
    """The tensors as the wire's `InferInput` objects."""
    inputs = []
    for spec in INPUTS:
        array = tensors[spec.name]
        tensor = input_class(spec.name, list(array.shape), spec.datatype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    return inputs


def outputs_of(result: Any, endpoint: Endpoint) -> Tensors:
    """The named arrays of an `InferResult`. Raises `ProtocolError` where they cannot be read."""
    try:
        arrays = {spec.name: result.as_numpy(spec.name) for spec in MATRIX_OUTPUTS}
    # The stock client parses the answer without checking it, so a malformed one raises whatever it meets.
    except Exception as error:
        raise ProtocolError(f"{endpoint.url} sent tensors that cannot be read: {one_line(error)}") from error
    return {name: array for name, array in arrays.items() if array is not None}


def bundle_of(config: Any) -> str | None:
    """The digest of the bundle in a model's configuration as JSON, or None if it names none."""
    try:
        return str(config["parameters"][BUNDLE_PARAMETER]["string_value"]) or None
    except (KeyError, TypeError):
        return None


def unavailable(endpoint: Endpoint, reason: object, pause: float | None = None) -> Setback:
    """For a server that did not answer or is not ready; one that says when to come back is full."""
    if pause is not None:
        return overloaded(endpoint, reason, pause)
    hints = [hint for words, hint in _OTHER_PROTOCOLS.items() if words in str(reason)]
    said = "; ".join([one_line(reason), *hints])
    return Setback(ServerUnavailableError(f"{endpoint.url} is not available: {said}"))


def gone(endpoint: Endpoint) -> Setback:
    """For a server that shows no life while it is waited for."""
    return unavailable(endpoint, f"no sign of life for {LOOK_S:g} s while it was waited for")


def overloaded(endpoint: Endpoint, reason: object, pause: float | None = None) -> Setback:
    """For a server that is full."""
    return Setback(OverloadedError(f"{endpoint.url} is overloaded: {one_line(reason)}"), pause)


def shows_life(error: Setback | ScoringError) -> bool:
    """Whether a server is alive whose answer to that question was this: a refusal is an answer."""
    return not isinstance(error, (Setback, DeadlineError))


def late(endpoint: Endpoint, timeout: float) -> DeadlineError:
    """The error for an attempt that ran out of time."""
    return DeadlineError(
        f"{endpoint.url} did not answer within {timeout:.3g} s; "
        "raise `deadline` or score fewer groups at a time"
    )


def microseconds(seconds: float) -> int:
    """The protocol's `timeout` parameter, at least 1: the server drops what has waited longer than this."""
    return max(1, int(seconds * 1e6))


def one_line(reason: object, *, longest: int = 300) -> str:
    """A message of another library, on one line and of bounded length."""
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= longest else text[:longest] + "..."
