"""The gRPC wire of the remote scorers, with the stock client's messages. Retries nothing.

It uses grpc's blocking channel, whose calls report their end to the event loop. `grpc.aio` keeps a thread
inside gRPC, where a forked child then crashes, and all event loops share it.
"""

import asyncio
from contextlib import suppress
from typing import Any

import grpc
import tritonclient.grpc.service_pb2 as pb
from google.protobuf.message import DecodeError

from prefrm.client._credentials import Credentials
from prefrm.client._endpoint import Endpoint
from prefrm.client._transport import Failure, Question
from prefrm.errors import ProtocolError
from prefrm.protocol import (
    BUNDLE_PARAMETER,
    INPUTS,
    KINDS_PARAMETER,
    MATRIX_OUTPUTS,
    MAX_ANSWER_BYTES,
    Tensors,
    inputs_named,
)
from prefrm.tensors import RawTensor, pack
from prefrm.winmatrix import Inputs

__all__ = ["GrpcTransport"]

SERVICE = "/inference.GRPCInferenceService/"
METHODS = ("ModelInfer", "ModelConfig", "ServerLive")
# The bound on answers is one on what they inflate to, too. gRPC's own backoff between connection attempts
# grows to two minutes, and requests fail unsent during it: ours must see a server that came back.
CHANNEL_ARGS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
# Where a server says how long to stay away, and whether to come back at all: gRFC A6.
PUSHBACK = "grpc-retry-pushback-ms"
# A protobuf message is at most 2 GiB; a little is left for what is not content.
MESSAGE_BYTES = 2**31 - 2**20
# gRPC's words for an answer beyond the limits of this side.
OWN_LIMITS = ("CLIENT: ", "Decompressed message larger", "metadata size exceeds")


class GrpcTransport:
    """A channel, as `prefrm.client._transport.Transport` describes."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        self._model = endpoint.model
        self._metadata = tuple(credentials.headers().items())
        self._channel = _channel(endpoint, credentials)
        # Without a deserializer: gRPC logs what its own cannot parse.
        self._methods = {name: self._channel.unary_unary(SERVICE + name) for name in METHODS}

    async def infer(self, tensors: Tensors, *, timeout: float) -> Tensors:
        question = Question.of(self._model, tensors, timeout)
        raw = await self._call("ModelInfer", _request(question, tensors), timeout)
        if len(raw) > (most := question.answer_bytes):
            raise ProtocolError(f"it has {len(raw):,} bytes, of the {most:,} that it may have")
        answer = _parsed(pb.ModelInferResponse, raw)
        outputs, contents = answer.outputs, answer.raw_output_contents
        if len(outputs) != len(contents):
            raise ProtocolError(f"it has {len(outputs)} outputs with {len(contents)} raw contents")
        received = [
            RawTensor(one.name, one.datatype, list(one.shape), content)
            for one, content in zip(outputs, contents, strict=True)
        ]
        return question.read(answer.model_name, answer.id, received)

    async def bundle(self) -> str:
        return _parameter(await self._config(), BUNDLE_PARAMETER)

    async def inputs(self) -> Inputs:
        config = await self._config()
        tensors = {one.name: one.optional for one in config.input}
        return inputs_named(tensors, _parameter(config, KINDS_PARAMETER))

    async def live(self) -> None:
        await self._call("ServerLive", b"")

    async def close(self) -> None:
        self._channel.close()

    async def _config(self) -> Any:
        request = pb.ModelConfigRequest(name=self._model)
        answer = await self._call("ModelConfig", request.SerializeToString())
        return _parsed(pb.ModelConfigResponse, answer).config

    async def _call(self, method: str, request: bytes, timeout: float | None = None) -> bytes:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def end(_: object) -> None:
            # Unless the loop was closed meanwhile.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))

        try:
            call = self._methods[method].future(request, timeout=timeout, metadata=self._metadata)
        except ValueError as error:
            # The channel was closed, as the server showed no sign of life to another request.
            raise Failure("UNAVAILABLE", error) from error
        call.add_done_callback(end)
        try:
            await ended
        finally:
            call.cancel()
        if call.code() is grpc.StatusCode.OK:
            return bytes(call.result())
        raise _failure(call) from call.exception()


def _channel(endpoint: Endpoint, credentials: Credentials) -> grpc.Channel:
    # gRPC would take a proxy that the environment names even to this machine; the HTTP client never does.
    options = [*CHANNEL_ARGS, ("grpc.enable_http_proxy", 0)] if endpoint.is_loopback else CHANNEL_ARGS
    if not endpoint.secure:
        return grpc.insecure_channel(endpoint.address, options=options)
    # gRPC would call a server unavailable whose certificate it cannot check for want of a readable file.
    credentials.tls.context()
    pem = {name: path.read_bytes() for name, path in credentials.tls.files().items()}
    believed = grpc.ssl_channel_credentials(pem.get("ca"), pem.get("key"), pem.get("cert"))
    return grpc.secure_channel(endpoint.address, believed, options=options)


def _request(question: Question, tensors: Tensors) -> bytes:
    contents = {spec: pack(tensors[spec.name]) for spec in INPUTS if spec.name in tensors}
    if (size := sum(map(len, contents.values()))) > MESSAGE_BYTES:
        most = f"a gRPC message holds at most {MESSAGE_BYTES:,} bytes"
        raise Failure("OUT_OF_RANGE", f"{most}; the request has {size:,}")
    request = pb.ModelInferRequest(model_name=question.model, id=question.id)
    request.parameters["timeout"].int64_param = question.timeout
    for spec, content in contents.items():
        request.inputs.add(name=spec.name, datatype=spec.datatype, shape=tensors[spec.name].shape)
        request.raw_input_contents.append(content)
    for spec in MATRIX_OUTPUTS:
        request.outputs.add(name=spec.name)
    return bytes(request.SerializeToString())


def _parameter(config: Any, name: str) -> str:
    return str(config.parameters[name].string_value)


def _parsed(message: Any, raw: bytes) -> Any:
    try:
        return message.FromString(raw)
    except DecodeError as error:
        raise ProtocolError(f"it is not a {message.DESCRIPTOR.name}") from error


def _failure(call: Any) -> Exception:
    """What a call that did not end in OK raises."""
    code, message = call.code().name, call.details() or ""
    if (code, message) == ("DEADLINE_EXCEEDED", "Deadline Exceeded"):
        # Of this side; the server's own limit may be shorter.
        return TimeoutError()
    if code == "RESOURCE_EXHAUSTED" and any(words in message for words in OWN_LIMITS):
        return ProtocolError(message)
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in message:
        code = "OUT_OF_RANGE"
    return Failure(code, message, _pushback(call))


def _pushback(call: Any) -> float | None:
    """Seconds to stay away, negative to never come back; None if the server did not say."""
    for name, value in call.trailing_metadata() or ():
        if name == PUSHBACK:
            # Anything but a number forbids a retry, too.
            return float(value) / 1000 if value.removeprefix("-").isdecimal() else -1.0
    return None
