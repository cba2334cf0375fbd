"""Requests of one group each, serialised before anything is timed, as files that the load process reads.

FOLDER/0000.grpc     a ModelInferRequest
FOLDER/0000.http     a whole HTTP request but for its Host
FOLDER/0000.answer   the win matrix that it must get, float32 [K, K]
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import service_pb2 as pb
from tritonclient.http import InferenceServerClient, InferInput

from prefrm.bench.methods import noise_images
from prefrm.bench.random_model import PROMPT, side_of
from prefrm.protocol import DEFAULT_MODEL, encode_groups
from prefrm.winmatrix import Group, Scorer
from serving.bench.scorers import JUDGES
from serving.tensors import pack

__all__ = ["judge_groups", "small_groups", "write_requests"]


GROUP_SIZE = 4
SMALL_SIDE = 32
"""Pixels along a side of an image of the two-layer model: 3 KB of PNG."""


def judge_groups(count: int, judge: str = "judge") -> list[Group]:
    """Groups for one of `JUDGES`, without a common image."""
    return _make_groups(count, side_of(JUDGES[judge].image_tokens))


def small_groups(count: int) -> list[Group]:
    """Groups for the two-layer model, without a common image."""
    return _make_groups(count, SMALL_SIDE)


def _make_groups(count: int, side: int) -> list[Group]:
    # Noise, of which a codec keeps every bit.
    images = noise_images(count * GROUP_SIZE, side)
    return [
        Group(prompt=PROMPT, candidates=tuple(images[start : start + GROUP_SIZE]))
        for start in range(0, len(images), GROUP_SIZE)
    ]


def write_requests(groups: Sequence[Group], scorer: Scorer, folder: Path) -> None:
    """One request for each group; what the scorer says of it is its answer."""
    for n, (group, matrix) in enumerate(zip(groups, scorer.score(groups), strict=True)):
        tensors = encode_groups([group])
        (folder / f"{n:04}.grpc").write_bytes(_grpc_message(tensors))
        (folder / f"{n:04}.http").write_bytes(_http_message(tensors))
        (folder / f"{n:04}.answer").write_bytes(matrix.p.tobytes())


def _grpc_message(tensors: dict[str, npt.NDArray[np.object_]]) -> bytes:
    message = pb.ModelInferRequest(model_name=DEFAULT_MODEL)
    for name, array in tensors.items():
        message.inputs.add(name=name, datatype="BYTES", shape=array.shape)
        message.raw_input_contents.append(pack(array))
    serialised: bytes = message.SerializeToString()
    return serialised


def _http_message(tensors: dict[str, npt.NDArray[np.object_]]) -> bytes:
    inputs = []
    for name, array in tensors.items():
        tensor = InferInput(name, list(array.shape), "BYTES")
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    body, header_length = InferenceServerClient.generate_request_body(inputs)
    head = [
        f"POST /v2/models/{DEFAULT_MODEL}/infer HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(body)}",
        f"Inference-Header-Content-Length: {header_length}",
    ]
    return bytes("\r\n".join([*head, "", ""]).encode() + body)
