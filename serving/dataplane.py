"""The one place where a client's questions are decided; the wires translate to and from it.

Knows no HTTP and no gRPC.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt

from prefrm.errors import ProtocolError
from prefrm.protocol import GRADIENT, OUTPUTS, UTILITIES, decode_groups, encode_matrices
from prefrm.winmatrix import Group, WinMatrix, with_refusals
from serving.descriptions import (
    conflicting_field,
    describe_config,
    describe_model,
    describe_server,
    parse_config,
)
from serving.errors import InvalidRequestError, NotReadyError, UnsupportedError
from serving.gradients import read_pixels
from serving.inflight import InFlightBytes, Lease
from serving.limits import Limits
from serving.models import UNKNOWN, ModelInfo, ModelRepository, ServedModel
from serving.observing.metrics import Metrics
from serving.observing.requests import Observer, Request, Watch
from serving.steps import beside_loop
from serving.tensors import InputTensor, read_inputs

__all__ = ["DataPlane", "InferRequest", "InferResponse"]

# Inputs of more bytes, and matrices of more entries in all, are read and written beside the event loop.
BYTES_ON_LOOP = 2**20
ENTRIES_ON_LOOP = 2**14
# What an entry of a win matrix takes, with its order gap, tie and validity, as arrays and as text.
ENTRY_BYTES = 64

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """An inference request as a wire received it.

    Attributes:
        model: the name that was asked for.
        version: "" for any.
        id: chosen by the client, echoed; "" if it sent none.
        inputs: unchecked.
        outputs: names of the wanted outputs, in order; none for all.
        timeout: seconds that it may take, or None.
    """

    model: str
    version: str = ""
    id: str = ""
    inputs: Sequence[InputTensor]
    outputs: Sequence[str] = ()
    timeout: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InferResponse:
    """The answer: named arrays in the order they were asked for."""

    model: str
    version: str
    id: str
    outputs: Mapping[str, npt.NDArray[Any]]


class DataPlane:
    """All that a server's wires may ask. Lives in one event loop.

    Args:
        models: what is served.
        limits: what is accepted.
        metrics: of the server.
        observers: told of each inference request, besides the metrics.

    Attributes:
        in_flight: the budget of bytes that the wires lease for each request.
    """

    def __init__(
        self,
        models: ModelRepository,
        limits: Limits,
        metrics: Metrics,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.limits = limits
        self.in_flight = InFlightBytes(limits)
        self.metrics = metrics
        self.models = models
        self._watch = Watch((metrics.observe, *observers))
        metrics.in_flight.set_function(lambda: self._watch.open)
        metrics.in_flight_bytes.set_function(lambda: self.in_flight.used)
        self._accepting = False
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether every model answers."""
        return self._ready and all(model.ready for model in self.models.all())

    def start(self) -> None:
        """Accept requests, on the running event loop."""
        self.models.start()
        self._accepting = self._ready = True

    async def drain(self) -> None:
        """Be not ready, then accept no more, and finish what was accepted; as the limits say, how long."""
        self._ready = False
        await asyncio.sleep(self.limits.notice_s)
        self._accepting = False
        await self.models.drain(self.limits.drain_s)

    def model_ready(self, model: str, version: str) -> bool:
        """Whether the model can be asked. Raises `UnknownModelError`."""
        return self._ready and self.models.get(model, version).ready

    def observed(self, wire: str, headers: Iterable[tuple[str, str]] = ()) -> AbstractContextManager[Request]:
        """The block in which a wire answers an inference request; metrics and logs are told how it ended."""
        return self._watch.request(wire, headers)

    def refused(self, wire: str, code: str) -> None:
        """Tell metrics and logs of a request that a wire turned away before it read anything of it."""
        self._watch.refused(wire, code)

    async def infer(
        self, request: InferRequest, record: Request, lease: Lease | None = None
    ) -> InferResponse:
        """Score one request's groups, given as tensors, which are freed once the groups are made of them.

        Args:
            request: pass no reference that is kept.
            record: filled for the observers.
            lease: as `score` has it.

        Raises:
            InvalidRequestError: it is malformed or breaks a limit.
            Exception: as `score`.
        """
        record.id = record.id or request.id
        model = self._model(request.model, request.version, record)
        names, id_, timeout = _selected(request.outputs), request.id, request.timeout
        size = sum(tensor.content_bytes for tensor in request.inputs)
        if lease is not None:
            lease.add(size)
        began = time.monotonic()
        groups = await _called(size > BYTES_ON_LOOP, _groups, request.inputs, self.limits)
        record.input_s = time.monotonic() - began
        del request
        matrices = await self._score(model, groups, timeout, record, lease)
        began = time.monotonic()
        outputs = await _called(_entries(groups) > ENTRIES_ON_LOOP, encode_matrices, matrices, names)
        record.output_s = time.monotonic() - began
        return InferResponse(model=model.info.name, version=model.info.version, id=id_, outputs=outputs)

    async def gradient(
        self, request: InferRequest, record: Request, lease: Lease | None = None
    ) -> InferResponse:
        """The gradient of one group's utilities in its pixels, as tensors.

        Args:
            request: without wanted outputs: both are given.
            record: filled for the observers.
            lease: as `score` has it.

        Raises:
            UnsupportedError: the model gives no gradient.
            InvalidRequestError: it is malformed, breaks a limit, or the judge refuses it.
            Exception: as `prefrm.differentiable` and `serving.gradients.Gradients.of`.
        """
        record.id = record.id or request.id
        model = self._model(request.model, request.version, record)
        if model.gradients is None:
            raise UnsupportedError(
                f"{request.model!r} gives no gradient; start the server with --gradients, on a bundle"
            )
        timeout = self.limits.deadline_s if request.timeout is None else request.timeout
        expires = asyncio.get_running_loop().time() + min(timeout, self.limits.deadline_s)
        size = sum(tensor.content_bytes for tensor in request.inputs)
        if lease is not None:
            # The pixels, their copy, and their gradient.
            lease.add(2 * size)
        group = await _called(size > BYTES_ON_LOOP, read_pixels, request.inputs, self.limits)
        record.groups, record.candidates, record.content_bytes = 1, len(group.pixels), size
        utilities, gradient = await model.gradients.of(group, expires)
        return InferResponse(
            model=model.info.name,
            version=model.info.version,
            id=request.id,
            outputs={UTILITIES.name: utilities, GRADIENT.name: gradient},
        )

    async def score(
        self,
        model: str,
        version: str,
        groups: Sequence[Group],
        timeout: float | None,
        record: Request,
        lease: Lease | None = None,
    ) -> list[WinMatrix]:
        """Score one request's groups, of any sizes; one that is beyond the limits, or that the model does not
        read, is answered as not judged.

        Args:
            model: its name.
            version: "" for any.
            groups: at least one.
            timeout: seconds that it may take, or None.
            record: filled for the observers.
            lease: of the bytes that the wire holds for the request; of those of the groups and the answer
                from then on.

        Raises:
            UnknownModelError, NotReadyError, InvalidRequestError, TooLargeError: before anything is queued.
            OverloadedError, ExpiredError, FailedError: as `Batcher.submit`.
        """
        return await self._score(self._model(model, version, record), groups, timeout, record, lease)

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and protocol extensions of the server."""
        return describe_server()

    def model_metadata(self, model: str, version: str) -> dict[str, Any]:
        """The model's inputs and outputs. Raises `UnknownModelError`."""
        infos = [one.info for one in self.models.versions(model, version)]
        return describe_model(model, [info.version for info in infos], infos[-1].inputs)

    def model_config(self, model: str, version: str) -> dict[str, Any]:
        """The model's configuration in Triton's form. Raises `UnknownModelError`."""
        return describe_config(self.models.get(model, version).info, self.limits.request_groups)

    async def load(self, model: str, parameters: Mapping[str, object]) -> None:
        """Load a model, or load it again.

        Args:
            model: its name.
            parameters: of the protocol; only `config` is supported, which the model must agree with.

        Raises:
            UnsupportedError: this server loads no models, or a parameter is a file.
            InvalidRequestError: another parameter is unknown or malformed; or as `ModelRepository.load`.
        """
        # Triton's words, which its clients look for; `ModelRepository.load` has them as well.
        failed = f"failed to load {model!r}: "
        if any(name.startswith("file:") for name in parameters):
            raise UnsupportedError(f"{failed}a model comes from the server's own folders; send no files")
        if unknown := sorted(parameters.keys() - {"config"}):
            raise InvalidRequestError(f"{failed}unknown parameter {unknown[0]!r}; send 'config' or none")
        try:
            requested = parse_config(parameters["config"]) if parameters else {}
        except ValueError as error:
            raise InvalidRequestError(f"{failed}'config' is not a model configuration: {error}") from error

        def check(info: ModelInfo) -> None:
            config = describe_config(info, self.limits.request_groups)
            if field := conflicting_field(requested, config):
                raise InvalidRequestError(
                    f"'config' has another value of {field!r}; a model's configuration follows from its "
                    "bundle and the server's options, so leave it out"
                )

        await self.models.load(model, check)

    def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Counts and durations since the start; for "" of every model. Raises `UnknownModelError`."""
        found = self.models.versions(model, version) if model else self.models.all()
        return {
            "model_stats": [
                {"name": one.info.name, "version": one.info.version} | one.metrics.snapshot() for one in found
            ]
        }

    def repository_index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """The models and their states."""
        rows = self.models.index()
        if not self._ready:
            rows = [row | {"state": "UNAVAILABLE", "reason": "the server is not ready"} for row in rows]
        return [row for row in rows if not ready_only or row["state"] == "READY"]

    def _model(self, name: str, version: str, record: Request) -> ServedModel:
        model = self.models.get(name, version)
        record.model, record.version = model.info.name, model.info.version
        if not (self._accepting and model.ready):
            raise NotReadyError(
                f"{UNKNOWN}: {name!r} version {model.info.version} is not at ready state; "
                "it is starting, stopping or hanging, so try again"
            )
        return model

    async def _score(
        self,
        model: ServedModel,
        groups: Sequence[Group],
        timeout: float | None,
        record: Request,
        lease: Lease | None,
    ) -> list[WinMatrix]:
        record.groups = len(groups)
        record.candidates = sum(group.size for group in groups)
        record.content_bytes = sum(group.content_bytes for group in groups)
        self.limits.check_sizes([group.size for group in groups])
        if lease is not None:
            lease.keep(record.content_bytes)
            lease.add(ENTRY_BYTES * _entries(groups))
        inputs = model.info.inputs
        refusals = [self.limits.refusal(group) or inputs.refusal(group) for group in groups]
        accepted = [group for group, refusal in zip(groups, refusals, strict=True) if not refusal]
        matrices = await self._submit(model, accepted, timeout, record) if accepted else []
        large = bool(any(refusals)) and _entries(groups) > ENTRIES_ON_LOOP
        return await _called(large, with_refusals, groups, refusals, matrices)

    async def _submit(
        self, model: ServedModel, groups: Sequence[Group], timeout: float | None, record: Request
    ) -> list[WinMatrix]:
        seconds = self.limits.deadline_s if timeout is None else min(timeout, self.limits.deadline_s)
        scored = await model.batcher.submit(groups, expires=record.started + seconds)
        record.cost, record.queue_s, record.compute_s = scored.cost, scored.queue_s, scored.compute_s
        return scored.matrices


async def _called(is_large: bool, call: Callable[..., T], *arguments: Any) -> T:
    return await beside_loop(call, *arguments) if is_large else call(*arguments)


def _entries(groups: Sequence[Group]) -> int:
    return sum(group.size**2 for group in groups)


def _groups(inputs: Sequence[InputTensor], limits: Limits) -> list[Group]:
    try:
        return decode_groups(read_inputs(inputs, limits))
    except ProtocolError as error:
        raise InvalidRequestError(str(error)) from error


def _selected(names: Sequence[str]) -> Sequence[str]:
    known = [spec.name for spec in OUTPUTS]
    if unknown := [name for name in names if name not in known]:
        raise InvalidRequestError(f"unknown output {unknown[0]!r}; the outputs are {', '.join(known)}")
    return list(dict.fromkeys(names)) or known
