"""What the protocol wants to know of models: their metadata and configuration, as plain values.

In the shape of the Open Inference Protocol's JSON, from which the gRPC messages are filled as well.
"""

from importlib.metadata import version as package_version
from typing import Any

from prefrm.protocol import INPUTS, OUTPUTS, TensorSpec
from serving.models import ModelInfo

__all__ = ["describe_config", "describe_model", "describe_server"]

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "BOOL": "TYPE_BOOL"}


def describe_server() -> dict[str, Any]:
    """Name, version and protocol extensions of the server."""
    return {"name": "prefrm", "version": package_version("prefrm"), "extensions": list(EXTENSIONS)}


def describe_model(name: str, versions: list[str]) -> dict[str, Any]:
    """A model's inputs and outputs."""
    return {
        "name": name,
        "versions": versions,
        "platform": "prefrm",
        "inputs": [_tensor_metadata(spec) for spec in INPUTS],
        "outputs": [_tensor_metadata(spec) for spec in OUTPUTS],
    }


def describe_config(info: ModelInfo, max_batch_size: int) -> dict[str, Any]:
    """A model's configuration in Triton's form, its facts among the parameters."""
    return {
        "name": info.name,
        "platform": "prefrm",
        "backend": "prefrm",
        "version_policy": {"all": {}},
        "max_batch_size": max_batch_size,
        # By these, tools that size requests know that several share a batch, and of different sizes, too.
        "dynamic_batching": {},
        "instance_group": [{"name": f"{info.name}_0", "count": 1}],
        "input": [_tensor_config(spec) | {"allow_ragged_batch": True} for spec in INPUTS],
        "output": [_tensor_config(spec) for spec in OUTPUTS],
        "parameters": {key: {"string_value": value} for key, value in info.facts.items()},
    }


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def _tensor_config(spec: TensorSpec) -> dict[str, Any]:
    # Triton's configuration leaves the batch dimension out where max_batch_size is given.
    return {"name": spec.name, "data_type": CONFIG_TYPES[spec.datatype], "dims": list(spec.shape[1:])}
