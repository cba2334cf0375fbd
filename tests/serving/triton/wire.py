"""One client of one server on one wire, and what a call to it came to, in a form that compares."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from google.protobuf.json_format import MessageToDict
from grpc_health.v1 import health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from prefrm.protocol import encode_groups
from prefrm.winmatrix import Group
from tests.serving.triton.servers import Addresses

__all__ = ["AIO", "BOTH", "Answer", "Refused", "Wire", "ask", "difference", "infer_request", "packed", "rows"]

BOTH = ("grpc", "http")
AIO = ("grpc.aio", "http.aio")
MODULES = {
    "grpc": triton_grpc,
    "http": triton_http,
    "grpc.aio": triton_grpc_aio,
    "http.aio": triton_http_aio,
}
TOLERANCE = 1e-6
PATIENCE_S = 30

# One name for the same refusal on both wires; what has no counterpart in gRPC keeps its number.
GRPC_NAMES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """OK and what was said, or gRPC's name of a refusal (HTTP's number where there is none)."""

    status: str
    payload: Any = None


class Refused(Exception):
    """A raw HTTP answer other than 200."""

    def __init__(self, status: int, payload: object) -> None:
        super().__init__(status, payload)
        self.status = status
        self.payload = payload


class Wire:
    """A server as one kind of client sees it: the stock client, and what lies below it.

    Args:
        kind: one of `BOTH` or `AIO`.
        addresses: of the server.
    """

    def __init__(self, kind: str, addresses: Addresses) -> None:
        self.name = kind.split(".")[0]
        self.module: Any = MODULES[self.name]
        self._kind = kind
        self._address = getattr(addresses, self.name)
        self.client: Any = None if kind in AIO else MODULES[kind].InferenceServerClient(self._address)
        self._http = httpx.Client(base_url=f"http://{addresses.http}", timeout=PATIENCE_S)
        self.channel = grpc.insecure_channel(addresses.grpc)
        self.stub: Any = GRPCInferenceServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def close(self) -> None:
        if self.client is not None:
            self.client.close()
        self._http.close()
        self.channel.close()

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """One call of the stock client; a message comes back as a dict, with the fields that it has."""
        return plain(self._called(method, *args, **options))

    def infer(self, inputs: Sequence[Any], model: str = "judge", **options: Any) -> dict[str, Any]:
        return result(self._called("infer", model, inputs, **options))

    def send(self, request: Any, *, timeout: float = PATIENCE_S) -> dict[str, Any]:
        """One gRPC inference request as it stands, read by the stock client."""
        return result(triton_grpc.InferResult(self.stub.ModelInfer(request, timeout=timeout)))

    def stream(self, *requests: Any) -> list[dict[str, Any]]:
        """What a stream of these requests answers, without the texts of its errors."""
        answers = []
        for answer in self.stub.ModelStreamInfer(iter(requests), timeout=PATIENCE_S):
            inner = answer.infer_response
            answers.append(
                {
                    "refused": bool(answer.error_message),
                    "answer": answer.HasField("infer_response"),
                    "outputs": [(output.name, list(output.shape)) for output in inner.outputs],
                    "raw": len(inner.raw_output_contents),
                }
                | {name: getattr(inner, name) for name in ("id", "model_name", "model_version")}
                | {"parameters": plain(inner).get("parameters")}
            )
        return answers

    def http(self, method: str, path: str, **options: Any) -> Any:
        """The JSON of a raw HTTP answer, or its text. Raises `Refused`."""
        response = self._http.request(method, path, **options)
        try:
            payload = response.json()
        except ValueError:
            payload = response.text
        if response.status_code != 200:
            raise Refused(response.status_code, payload)
        return payload

    def error(self, method: str, path: str) -> str:
        """The text of a refusal."""
        return str(self._http.request(method, path).json()["error"])

    def http_headers(self, method: str, path: str, **options: Any) -> httpx.Headers:
        return self._http.request(method, path, **options).headers

    def tensor(self, name: str, array: Any, datatype: str = "BYTES", **options: Any) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, **options)
        return tensor

    def inputs(self, groups: Sequence[Group]) -> list[Any]:
        return [self.tensor(name, array) for name, array in encode_groups(groups).items()]

    def outputs(self, *names: str, **options: Any) -> list[Any]:
        return [self.module.InferRequestedOutput(name, **options) for name in names]

    def _called(self, method: str, *args: Any, **options: Any) -> Any:
        if self.client is not None:
            return getattr(self.client, method)(*args, **options)

        async def main() -> Any:
            async with MODULES[self._kind].InferenceServerClient(self._address) as client:
                return await getattr(client, method)(*args, **options)

        return asyncio.run(main())


def ask(call: Callable[[Wire], Any], wire: Wire) -> Answer:
    """What the call comes to. Texts of refusals are each server's own, and left out."""
    try:
        return Answer(status="OK", payload=call(wire))
    except InferenceServerException as error:
        status = str(error.status()).removeprefix("StatusCode.")
        return Answer(status=GRPC_NAMES.get(int(status), status) if status.isdecimal() else status)
    except grpc.RpcError as error:
        return Answer(status=error.code().name)
    except Refused as error:
        payload = error.payload
        well_formed = (
            isinstance(payload, dict) and list(payload) == ["error"] and isinstance(payload["error"], str)
        )
        status = GRPC_NAMES.get(error.status, str(error.status))
        return Answer(status=status, payload=None if well_formed else payload)


def difference(one: Any, other: Any) -> str:
    """Where two answers, or parts of them, differ; "" if they do not. Numbers may differ by `TOLERANCE`."""
    if isinstance(one, Answer):
        if one.status != other.status:
            return f"{one.status} and {other.status}"
        return difference(one.payload, other.payload)
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f"{sorted(one)} and {sorted(other)}"
        found = ((name, difference(one[name], other[name])) for name in one)
        return next((f"{name}: {what}" for name, what in found if what), "")
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{one} and {other}"
        return next((what for pair in zip(one, other, strict=True) if (what := difference(*pair))), "")
    if isinstance(one, float) and isinstance(other, float):
        same = math.isclose(one, other, rel_tol=0, abs_tol=TOLERANCE) or (one != one and other != other)
    else:
        same = type(one) is type(other) and one == other
    return "" if same else f"{one!r} and {other!r}"


def plain(answer: Any) -> Any:
    if hasattr(answer, "DESCRIPTOR"):
        return MessageToDict(answer, preserving_proto_field_name=True)
    return answer


def result(answer: Any) -> dict[str, Any]:
    """An inference result of the stock client: what it says of itself, and each tensor's elements."""
    response = plain(answer.get_response())
    outputs = response["outputs"]
    return {
        "model": (response["model_name"], response["model_version"]),
        "id": response.get("id"),
        "parameters": response.get("parameters"),
        "order": [output["name"] for output in outputs],
        "tensors": {
            output["name"]: (
                output["datatype"],
                [int(extent) for extent in output["shape"]],
                answer.as_numpy(output["name"]).ravel().tolist(),
            )
            for output in outputs
        },
    }


def rows(*elements: Sequence[bytes]) -> Any:
    """A BYTES array of these rows."""
    array = np.empty((len(elements), len(elements[0])), dtype=object)
    for place, row in enumerate(elements):
        array[place, :] = row
    return array


def packed(*elements: bytes) -> bytes:
    """The raw bytes of a BYTES tensor."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def infer_request(
    prompt: bytes = b"p",
    images: Sequence[bytes] = (),
    *,
    model: str = "judge",
    id: str = "",
    **parameters: Any,
) -> Any:
    """A gRPC request of one group that asks for `valid` alone.

    Args:
        parameters: each as a pair: the field of `InferParameter`, and its value.
    """
    request = pb.ModelInferRequest(model_name=model, id=id)
    request.inputs.add(name="prompt", datatype="BYTES", shape=[1, 1])
    request.inputs.add(name="images", datatype="BYTES", shape=[1, len(images)])
    request.raw_input_contents.extend([packed(prompt), packed(*images)])
    request.outputs.add(name="valid")
    for name, (field, value) in parameters.items():
        setattr(request.parameters[name], field, value)
    return request
