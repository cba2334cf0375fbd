"""Metadata and configuration of the server and its models, as plain values.

In the shape of the Open Inference Protocol's JSON, from which the gRPC messages are filled as well.
"""

import json
from collections.abc import Mapping, MutableMapping, MutableSequence
from importlib.metadata import version as package_version
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from tritonclient.grpc.model_config_pb2 import ModelConfig

from prefrm.protocol import KINDS_PARAMETER, OUTPUTS, TensorSpec, input_tensors
from prefrm.winmatrix import Inputs
from serving.models import ModelInfo

__all__ = [
    "conflicting_field",
    "describe_config",
    "describe_model",
    "describe_server",
    "parse_config",
    "to_triton_json",
]

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "BOOL": "TYPE_BOOL"}


def describe_server() -> dict[str, Any]:
    """Name, version and protocol extensions of the server."""
    return {"name": "prefrm", "version": package_version("prefrm"), "extensions": list(EXTENSIONS)}


def describe_model(name: str, versions: list[str], inputs: Inputs) -> dict[str, Any]:
    """A model's inputs and outputs."""
    return {
        "name": name,
        "versions": versions,
        "platform": "prefrm",
        "inputs": [_tensor_metadata(spec) for spec in input_tensors(inputs)],
        "outputs": [_tensor_metadata(spec) for spec in OUTPUTS],
    }


def describe_config(info: ModelInfo, max_batch_size: int) -> dict[str, Any]:
    """A model's configuration in Triton's form, its facts among the parameters; defaults are left out."""
    facts = {**info.facts, KINDS_PARAMETER: ",".join(info.inputs.kinds)}
    return {
        "name": info.name,
        "platform": "prefrm",
        "backend": "prefrm",
        "version_policy": {"all": {}},
        "max_batch_size": max_batch_size,
        # By these, tools that size requests know that several share a batch, and of different sizes, too.
        "dynamic_batching": {},
        "instance_group": [{"name": f"{info.name}_0", "count": 1} | _device_kind(info.device)],
        "input": [_input_config(*tensor) for tensor in input_tensors(info.inputs).items()],
        "output": [_tensor_config(spec) for spec in OUTPUTS],
        "optimization": {},
        "parameters": {key: {"string_value": value} for key, value in facts.items()},
    }


def to_triton_json(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as Triton's HTTP endpoint prints it.

    Fields at their defaults are there, enums are names, and 64-bit integers are numbers, which protobuf's own
    JSON has as strings.
    """
    return _message_json(ParseDict(dict(config), ModelConfig()))


def parse_config(text: object) -> dict[str, Any]:
    """The fields of a model configuration that a client sent as JSON in a string, by name.

    Raises:
        ValueError: it is not a string, not JSON, or not a `ModelConfig`.
    """
    if not isinstance(text, str):
        raise ValueError(f"it must be JSON in a string; received {type(text).__name__}")
    try:
        sent = json.loads(text)
        if not isinstance(sent, dict):
            raise ValueError(f"it must be a JSON object; received {type(sent).__name__}")
        message = ParseDict(sent, ModelConfig())
    except (ParseError, RecursionError) as error:
        # protobuf lists all fields that there are on a second line.
        raise ValueError(str(error).partition("\n")[0]) from error
    return {
        field.name: getattr(message, field.name)
        for field in ModelConfig.DESCRIPTOR.fields
        # protobuf's JSON has a field under either of its names.
        if sent.keys() & {field.name, field.json_name}
    }


def conflicting_field(requested: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The first field of `parse_config` whose value `describe_config` does not have; "" if there is none."""
    served = ParseDict(dict(config), ModelConfig())
    return next((name for name, value in requested.items() if getattr(served, name) != value), "")


def _message_json(message: Any) -> dict[str, Any]:
    return {
        field.name: _field_json(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _field_json(field: FieldDescriptor, value: Any) -> Any:
    if isinstance(value, MutableMapping):
        inner = field.message_type.fields_by_name["value"]
        return {str(key): _value_json(inner, one) for key, one in value.items()}
    if isinstance(value, MutableSequence):
        return [_value_json(field, one) for one in value]
    return _value_json(field, value)


def _value_json(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        return _message_json(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value


def _device_kind(device: str) -> dict[str, Any]:
    kind, _, index = device.partition(":")
    return {"kind": "KIND_CPU"} if kind == "cpu" else {"kind": "KIND_GPU", "gpus": [int(index or 0)]}


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _input_config(spec: TensorSpec, optional: bool) -> dict[str, Any]:
    # Groups of different sizes may share a batch.
    found = _tensor_config(spec) | {"allow_ragged_batch": True}
    return found | {"optional": True} if optional else found


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    # Triton's configuration leaves the batch dimension out where max_batch_size is given.
    return {"name": spec.name, "data_type": CONFIG_TYPES[spec.datatype], "dims": list(spec.shape[1:])}
