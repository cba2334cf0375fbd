"""The one place where a served model's questions are decided; the wires translate to and from it.

Answers are plain values in the shape of the Open Inference Protocol's JSON, from which the gRPC messages
are filled as well. Knows no HTTP and no gRPC.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as package_version
from typing import Any

import numpy.typing as npt

from prefrm.errors import ConfigError, ProtocolError
from prefrm.protocol import INPUTS, OUTPUTS, TensorSpec, decode_groups, encode_matrices
from prefrm.winmatrix import Group, Scorer
from serving.batcher import Batcher
from serving.cache import ImageCache
from serving.errors import InvalidRequestError, NotReadyError, UnknownModelError
from serving.limits import GuardedScorer, Limits
from serving.stats import Stats
from serving.tensors import InputTensor, read_inputs

__all__ = ["DataPlane", "InferRequest", "InferResponse", "ModelInfo"]

EXTENSIONS = ("binary_tensor_data", "model_configuration", "parameters", "statistics")
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "BOOL": "TYPE_BOOL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What the served model is called, and facts about it that its configuration shows as parameters.

    Raises:
        ConfigError: the name does not fit into a URL as it is.
    """

    name: str
    version: str = "1"
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ConfigError(
                f"a model's name is made of letters, digits, '.', '_' and '-'; received {self.name!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """An inference request as a wire received it.

    Attributes:
        model: the name that was asked for.
        version: "" for any.
        id: chosen by the client, echoed; "" if it sent none.
        inputs: unchecked.
        outputs: names of the wanted outputs, in order; none for all.
        timeout: seconds it may wait for its turn, or None.
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
    """A scorer behind a queue, with a name. Lives in one event loop.

    Args:
        scorer: what judges.
        model: its name and version.
        limits: what is accepted.
        cache: the scorer's cache of images, for the metrics.
    """

    def __init__(
        self, scorer: Scorer, model: ModelInfo, limits: Limits, cache: ImageCache | None = None
    ) -> None:
        self.limits = limits
        self.stats = Stats(cache)
        self._model = model
        self._batcher = Batcher(GuardedScorer(scorer, limits.image), limits, self.stats)
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether inference requests are accepted."""
        return self._ready

    @property
    def model_name(self) -> str:
        """The name of the one model."""
        return self._model.name

    def start(self) -> None:
        """Accept requests, on the running event loop."""
        self._batcher.start()
        self._ready = True

    async def drain(self, timeout: float) -> None:
        """Accept no more, and finish what was accepted, for at most `timeout` seconds."""
        self._ready = False
        await self._batcher.drain(timeout)

    def model_ready(self, model: str, version: str) -> bool:
        """Whether the model can be asked. Raises `UnknownModelError`."""
        self._require(model, version)
        return self._ready

    async def infer(self, request: InferRequest) -> InferResponse:
        """Score one request's groups.

        Raises:
            UnknownModelError, NotReadyError, InvalidRequestError: before anything is queued.
            OverloadedError, ExpiredError, FailedError: as `Batcher.submit`.
        """
        self._require(request.model, request.version)
        if not self._ready:
            raise NotReadyError(f"the model {request.model!r} is not ready")
        names = _selected(request.outputs)
        try:
            groups = decode_groups(read_inputs(request.inputs))
        except ProtocolError as error:
            raise InvalidRequestError(str(error)) from error
        self._require_within_limits(groups)
        tensors = encode_matrices(await self._batcher.submit(groups, timeout=request.timeout))
        return InferResponse(
            model=self._model.name,
            version=self._model.version,
            id=request.id,
            outputs={name: tensors[name] for name in names},
        )

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and protocol extensions of the server."""
        return {"name": "prefrm", "version": package_version("prefrm"), "extensions": list(EXTENSIONS)}

    def model_metadata(self, model: str, version: str) -> dict[str, Any]:
        """The model's inputs and outputs. Raises `UnknownModelError`."""
        self._require(model, version)
        return {
            "name": self._model.name,
            "versions": [self._model.version],
            "platform": "prefrm",
            "inputs": [_tensor_metadata(spec) for spec in INPUTS],
            "outputs": [_tensor_metadata(spec) for spec in OUTPUTS],
        }

    def model_config(self, model: str, version: str) -> dict[str, Any]:
        """The model's configuration in Triton's form, its facts among the parameters."""
        self._require(model, version)
        return {
            "name": self._model.name,
            "platform": "prefrm",
            "backend": "prefrm",
            "max_batch_size": self.limits.request_groups,
            "input": [_tensor_config(spec) for spec in INPUTS],
            "output": [_tensor_config(spec) for spec in OUTPUTS],
            "parameters": {key: {"string_value": value} for key, value in self._model.facts.items()},
        }

    def statistics(self, model: str = "", version: str = "") -> dict[str, Any]:
        """Counts and durations since the start; for "" of every model, which is the one."""
        if model:
            self._require(model, version)
        identity = {"name": self._model.name, "version": self._model.version}
        return {"model_stats": [identity | self.stats.snapshot()]}

    def repository_index(self, *, ready_only: bool = False) -> list[dict[str, str]]:
        """The models and their states."""
        if ready_only and not self._ready:
            return []
        state = "READY" if self._ready else "UNAVAILABLE"
        return [{"name": self._model.name, "version": self._model.version, "state": state}]

    def _require(self, model: str, version: str) -> None:
        if model != self._model.name:
            raise UnknownModelError(f"unknown model {model!r}; this server has {self._model.name!r}")
        if version not in ("", self._model.version):
            raise UnknownModelError(
                f"unknown version {version!r} of the model {model!r}; this server has {self._model.version!r}"
            )

    def _require_within_limits(self, groups: Sequence[Group]) -> None:
        if len(groups) > self.limits.request_groups:
            raise InvalidRequestError(
                f"a request may have {self.limits.request_groups} groups; received {len(groups)}"
            )
        if groups[0].size > self.limits.group_size:
            raise InvalidRequestError(
                f"a group may have {self.limits.group_size} candidates; received {groups[0].size}"
            )


def _selected(names: Sequence[str]) -> Sequence[str]:
    known = [spec.name for spec in OUTPUTS]
    if unknown := [name for name in names if name not in known]:
        raise InvalidRequestError(f"unknown output {unknown[0]!r}; the outputs are {', '.join(known)}")
    if len(set(names)) < len(names):
        raise InvalidRequestError(f"an output was asked for twice: {', '.join(names)}")
    return names or known


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    # Triton's configuration leaves the batch dimension out where max_batch_size is given.
    return {"name": spec.name, "data_type": CONFIG_TYPES[spec.datatype], "dims": list(spec.shape[1:])}
