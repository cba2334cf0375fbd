"""The JSON of the Open Inference Protocol, for the OpenAPI document alone: reads and writes no request.

After https://github.com/kserve/open-inference-protocol, `specification/protocol/open_inference_rest.yaml`.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from prefrm.protocol import IMAGES, PIXELS, PROMPT, TensorSpec

__all__ = [
    "GradientRequest",
    "IndexRequest",
    "InferenceRequest",
    "InferenceResponse",
    "JsonObject",
    "Liveness",
    "LoadRequest",
    "ModelMetadata",
    "ModelReadiness",
    "ModelState",
    "PixelsInput",
    "Readiness",
    "RequestInput",
    "RequestedOutput",
    "ResponseOutput",
    "ServerMetadata",
    "TensorMetadata",
    "describe_request",
    "request_schemas",
]

JsonObject = dict[str, Any]

REFERENCE = "#/components/schemas/{model}"


def _example(spec: TensorSpec, data: list[str]) -> JsonObject:
    shape = [1, len(data)]
    return {"name": spec.name, "datatype": spec.datatype, "shape": shape, "data": data}


EXAMPLE: JsonObject = {"inputs": [_example(PROMPT, ["a red cube"]), _example(IMAGES, ["", ""])]}

PIXELS_EXAMPLE: JsonObject = {
    "inputs": [
        _example(PROMPT, ["a red cube"]),
        {"name": PIXELS.name, "datatype": PIXELS.datatype, "shape": [2, 3, 1, 1], "data": [0.5] * 6},
    ]
}


class _Message(BaseModel):
    # Names such as `model_name` are the protocol's.
    model_config = ConfigDict(protected_namespaces=())


class Liveness(_Message):
    """Whether the server is alive."""

    live: bool


class Readiness(_Message):
    """Whether the server is ready for requests."""

    ready: bool


class ModelReadiness(_Message):
    """Whether a model is ready for requests."""

    name: str
    ready: bool


class ServerMetadata(_Message):
    """Name, version and extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Message):
    """A tensor of a model; an extent of -1 is any."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Message):
    """Inputs and outputs of a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class RequestInput(_Message):
    """A tensor of a request."""

    name: str
    datatype: Literal["BYTES"]
    shape: list[int]
    data: Annotated[
        list[Any],
        Field(description="Strings, row-major, flat or nested; in base64 if `content_type` says so."),
    ]
    parameters: Annotated[
        JsonObject, Field(description='`{"content_type": "base64"}` for encoded images and videos.')
    ] = {}


class RequestedOutput(_Message):
    """A tensor that is asked for."""

    name: str
    parameters: JsonObject = {}


class InferenceRequest(_Message):
    """Groups of one size: `prompt`, one of `images` and `texts`, and perhaps `context` and `criterion`.

    A model's metadata lists those that it reads. Tensors in binary, after the JSON, are the extension
    `binary_tensor_data`.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str = ""
    parameters: JsonObject = {}
    inputs: list[RequestInput]
    outputs: Annotated[list[RequestedOutput], Field(description="All, if none is named.")] = []


class PixelsInput(RequestInput):
    """A tensor of a request for a gradient: `prompt` BYTES [1, 1] or `pixels` FP32 [K, 3, H, W]."""

    datatype: Literal["BYTES", "FP32"]  # type: ignore[assignment]


class GradientRequest(_Message):
    """One prompt and the pixels of its candidates, in [0, 1]. Tensors in binary may follow the JSON."""

    model_config = ConfigDict(json_schema_extra={"examples": [PIXELS_EXAMPLE]})

    id: str = ""
    parameters: JsonObject = {}
    inputs: list[PixelsInput]
    outputs: list[RequestedOutput] = []


class ResponseOutput(_Message):
    """A tensor of an answer."""

    name: str
    datatype: Literal["FP32", "BOOL", "BYTES"]
    shape: list[int]
    data: Annotated[
        list[float | bool | str | None],
        Field(description="Row-major and flat. A null is a number that is not known."),
    ]


class InferenceResponse(_Message):
    """The answer to an inference request."""

    model_name: str
    model_version: str
    id: str = ""
    outputs: list[ResponseOutput]


class IndexRequest(_Message):
    """Which models to list."""

    ready: bool = False


class ModelState(_Message):
    """A model's state."""

    name: str
    version: str
    state: Literal["READY", "UNAVAILABLE"]
    reason: str = ""


class LoadRequest(_Message):
    """How to load a model."""

    parameters: Annotated[
        JsonObject,
        Field(description="`config`: a configuration, as JSON in a string, that the model must agree with."),
    ] = {}


def describe_request(path: str, body: type[BaseModel] | None = None) -> JsonObject:
    """The part of an OpenAPI operation that says what is sent: the path's parameters and the body.

    Args:
        path: with its parameters in braces.
        body: one of those of `request_schemas`; None if nothing is sent.
    """
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)", path)
    ]
    described: JsonObject = {"parameters": parameters} if parameters else {}
    if body is not None:
        content = {"application/json": {"schema": {"$ref": REFERENCE.format(model=body.__name__)}}}
        described["requestBody"] = {
            "required": body in (InferenceRequest, GradientRequest),
            "content": content,
        }
    return described


def request_schemas() -> JsonObject:
    """The JSON schemas of all requests, by name: FastAPI knows those of answers alone."""
    requests = (InferenceRequest, GradientRequest, IndexRequest, LoadRequest)
    _, schemas = models_json_schema([(kind, "validation") for kind in requests], ref_template=REFERENCE)
    definitions: JsonObject = schemas["$defs"]
    return definitions
