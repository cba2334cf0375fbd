"""The gRPC wire: messages of the Open Inference Protocol onto the data plane. Decides nothing.

The messages are tritonclient's own: a second copy of their descriptors could not be imported beside it.
"""

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer

from prefrm.protocol import OUTPUTS
from serving.dataplane import DataPlane, InferRequest, InferResponse
from serving.errors import (
    InvalidRequestError,
    OverloadedError,
    ServingError,
    UnknownModelError,
    UnsupportedError,
)
from serving.observing.logs import log_failure
from serving.tensors import InputTensor, pack
from serving.wire.parameters import BASE64, CONTENT_TYPE, read_timeout
from serving.wire.parsing import UNREADABLE, UNREADABLE_MESSAGE

__all__ = ["InferenceService"]

logger = logging.getLogger(__name__)

# Requests of one stream that are worked on at the same time.
STREAM_WINDOW = 64
# gRPC's own name for how long a client should wait before it tries again (gRFC A6).
RETRY_AFTER = "grpc-retry-pushback-ms"
# Said of every streamed answer, as Triton does: a request has one.
FINAL_RESPONSE = "triton_final_response"

Method = Callable[[Any, Any, Any], Awaitable[Any]]

_DATATYPES = {spec.name: spec.datatype for spec in OUTPUTS}


def _translating(method: Method) -> Method:
    """End the call in the status of the error that the method raises."""

    @functools.wraps(method)
    async def call(service: Any, request: Any, context: Any) -> Any:
        try:
            return await method(service, request, context)
        except ServingError as error:
            await context.abort(grpc.StatusCode[error.grpc_status], str(error), _trailers(error))
        except Exception as error:
            log_failure(logger, f"{method.__name__} crashed", error)
            await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}")

    return call


class InferenceService(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The servicer of one data plane, for `grpc.aio`. Its methods are the protocol's."""

    def __init__(self, plane: DataPlane) -> None:
        self._plane = plane

    @_translating
    async def ServerLive(self, request: Any, context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    @_translating
    async def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=self._plane.ready)

    @_translating
    async def ModelReady(self, request: Any, context: Any) -> Any:
        try:
            ready = self._plane.model_ready(request.name, request.version)
        except UnknownModelError:
            ready = False
        return pb.ModelReadyResponse(ready=ready)

    @_translating
    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        return ParseDict(self._plane.server_metadata(), pb.ServerMetadataResponse())

    @_translating
    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        return ParseDict(
            self._plane.model_metadata(request.name, request.version), pb.ModelMetadataResponse()
        )

    @_translating
    async def ModelConfig(self, request: Any, context: Any) -> Any:
        config = self._plane.model_config(request.name, request.version)
        return ParseDict({"config": config}, pb.ModelConfigResponse())

    @_translating
    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        return ParseDict(self._plane.statistics(request.name, request.version), pb.ModelStatisticsResponse())

    @_translating
    async def RepositoryIndex(self, request: Any, context: Any) -> Any:
        if request.repository_name:
            raise UnsupportedError("this server has one repository, which has no name")
        models = self._plane.repository_index(ready_only=request.ready)
        return ParseDict({"models": models}, pb.RepositoryIndexResponse())

    @_translating
    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        await self._plane.load(request.model_name, _parameters(request))
        return pb.RepositoryModelLoadResponse()

    @_translating
    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        await self._plane.models.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    @_translating
    async def ModelInfer(self, request: Any, context: Any) -> Any:
        return await self._infer(request, context)

    async def _infer(self, request: Any, context: Any) -> Any:
        with (
            self._plane.observed("grpc", _metadata(context)) as record,
            self._plane.in_flight.lease() as message,
            self._plane.in_flight.lease() as lease,
        ):
            parsed = _parsed(request, context.time_remaining())
            # gRPC holds the message as long as the call lasts.
            message.add(sum(tensor.content_bytes for tensor in parsed.inputs))
            return _message(await self._plane.infer(parsed, record, lease))

    async def ModelStreamInfer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        # Answers come in the order of the requests, as the stock client may rely on.
        answers: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
        slots = asyncio.Semaphore(STREAM_WINDOW)

        async def read() -> None:
            try:
                async for request in requests:
                    await slots.acquire()
                    answers.put_nowait(asyncio.create_task(self._streamed(request, context)))
            finally:
                answers.put_nowait(None)

        reading = asyncio.create_task(read())
        answer: asyncio.Task[Any] | None = None
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
                slots.release()
        finally:
            # A client that went away wants no more of it.
            for task in (reading, answer, *_left(answers)):
                if task is not None:
                    task.cancel()

    async def _streamed(self, request: Any, context: Any) -> Any:
        # The stock client's stop_stream hangs on a stream that ended in an error, so it travels inside.
        if request is UNREADABLE:
            return pb.ModelStreamInferResponse(error_message=UNREADABLE_MESSAGE)
        try:
            message = await self._infer(request, context)
        except ServingError as error:
            return _stream_error(request, str(error))
        except Exception as error:
            log_failure(logger, "a streamed request crashed", error)
            return _stream_error(request, f"internal error: {type(error).__name__}")
        message.parameters[FINAL_RESPONSE].bool_param = True
        return pb.ModelStreamInferResponse(infer_response=message)

    @_translating
    async def _unsupported(self, request: Any, context: Any) -> Any:
        raise UnsupportedError("this call is not supported")

    # There are never regions: nothing is listed, and to let go of all of them is no mistake.
    @_translating
    async def SystemSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        return pb.SystemSharedMemoryStatusResponse()

    @_translating
    async def SystemSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        return pb.SystemSharedMemoryUnregisterResponse()

    @_translating
    async def CudaSharedMemoryStatus(self, request: Any, context: Any) -> Any:
        return pb.CudaSharedMemoryStatusResponse()

    @_translating
    async def CudaSharedMemoryUnregister(self, request: Any, context: Any) -> Any:
        return pb.CudaSharedMemoryUnregisterResponse()

    SystemSharedMemoryRegister = CudaSharedMemoryRegister = _unsupported
    TraceSetting = LogSettings = _unsupported


def _trailers(error: ServingError) -> tuple[tuple[str, str], ...]:
    if not isinstance(error, OverloadedError):
        return ()
    return ((RETRY_AFTER, str(max(1, round(error.retry_after * 1000)))),)


def _metadata(context: Any) -> list[tuple[str, str]]:
    return [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]


def _left(answers: "asyncio.Queue[asyncio.Task[Any] | None]") -> Iterator[asyncio.Task[Any]]:
    while not answers.empty():
        if (task := answers.get_nowait()) is not None:
            yield task


def _stream_error(request: Any, message: str) -> Any:
    return pb.ModelStreamInferResponse(
        error_message=message, infer_response=pb.ModelInferResponse(id=request.id)
    )


def _parsed(request: Any, time_remaining: float | None) -> InferRequest:
    for output in request.outputs:
        if "shared_memory_region" in output.parameters:
            raise UnsupportedError("shared memory is not supported; take the tensors from the answer")
        if "classification" in output.parameters:
            raise UnsupportedError("the classification extension is not supported")
    timeouts = [time_remaining, read_timeout(_parameters(request))]
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        inputs=_inputs(request),
        outputs=[output.name for output in request.outputs],
        timeout=min((seconds for seconds in timeouts if seconds is not None), default=None),
    )


def _parameters(request: Any) -> dict[str, object]:
    parameters: dict[str, object] = {}
    for name, parameter in request.parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        parameters[name] = kind and getattr(parameter, kind)
        # The protocol has it as int64, and real Triton takes no other.
        if name == "timeout" and kind == "uint64_param":
            raise InvalidRequestError("the parameter 'timeout' must be an int64 of microseconds")
    return parameters


def _inputs(request: Any) -> list[InputTensor]:
    if any("shared_memory_region" in tensor.parameters for tensor in request.inputs):
        raise UnsupportedError("shared memory is not supported; send the tensors in the request")
    raws: list[bytes | None] = list(request.raw_input_contents)
    if raws and len(raws) != len(request.inputs):
        raise InvalidRequestError(f"{len(raws)} raw_input_contents for {len(request.inputs)} inputs")
    if raws and any(tensor.HasField("contents") for tensor in request.inputs):
        raise InvalidRequestError("the inputs are in raw_input_contents or in contents, not in both")
    return [
        InputTensor(
            name=tensor.name,
            datatype=tensor.datatype,
            shape=tuple(tensor.shape),
            raw=raw,
            elements=list(tensor.contents.bytes_contents),
            base64=getattr(tensor.parameters.get(CONTENT_TYPE), "string_param", "") == BASE64,
        )
        for tensor, raw in zip(request.inputs, raws or [None] * len(request.inputs), strict=True)
    ]


def _message(answer: InferResponse) -> Any:
    response = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=answer.id)
    for name, array in answer.outputs.items():
        response.outputs.add(name=name, datatype=_DATATYPES[name], shape=array.shape)
        # Raw, always: the stock client cannot read typed contents.
        response.raw_output_contents.append(pack(array))
    return response
