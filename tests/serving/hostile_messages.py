"""gRPC requests that nobody means well with, from a seed: mutated messages and ill-formed tensors."""

import random
import struct
from collections.abc import Callable

from tritonclient.grpc import service_pb2 as pb

from tests.serving.hostile_images import mutated

__all__ = ["SERVICE", "infer_message", "message", "pack"]

SERVICE = "/inference.GRPCInferenceService/"
METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods]
STREAM = "ModelStreamInfer"
NUMBERS = (-1, 0, 1, 2, 3, 8, 9, 255, 2**31 - 1, 2**31, 2**32, 2**62, -(2**63), 2**63 - 1)
TEXTS = (
    "",
    "judge",
    "1",
    "x" * 70_000,
    "\0",
    "../../etc/passwd",
    "judge\n",
    "\u202ejudge",
    "images",
    "texts",
    "context",
    "criterion",
    "BYTES",
    "FP32",
)


def pack(elements: list[bytes]) -> bytes:
    """A BYTES tensor as the protocol carries it."""
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def infer_message(prompts: list[bytes], groups: list[list[bytes]], id: str = "") -> pb.ModelInferRequest:
    """A well-formed request."""
    request = pb.ModelInferRequest(model_name="judge", id=id)
    request.inputs.add(name="prompt", datatype="BYTES", shape=[len(prompts), 1])
    request.inputs.add(name="images", datatype="BYTES", shape=[len(groups), len(groups[0])])
    request.raw_input_contents.extend([pack(prompts), pack([image for group in groups for image in group])])
    return request


def message(rng: random.Random, image: bytes) -> tuple[str, bytes]:
    """A method and what to send to it."""
    kind = rng.randrange(10)
    if kind == 0:
        return SERVICE + rng.choice(METHODS), rng.randbytes(rng.choice((0, 1, 7, 300, 5000)))
    if kind == 1:
        name = rng.choice([*METHODS, "NoSuchMethod"])
        return SERVICE + name, mutated(
            pb.ModelReadyRequest(name=_text(rng), version=_text(rng)).SerializeToString() + b"\0", rng
        )
    method = SERVICE + ("ModelInfer" if rng.random() < 0.8 else STREAM)
    request = infer_message([b"a red cube"], [[image, image]])
    _widen(request, rng, image)
    for _ in range(rng.randint(1, 3)):
        rng.choice(CHANGES)(request, rng)
    whole = request.SerializeToString()
    return method, mutated(whole, rng) if kind < 5 else whole


def _widen(request: pb.ModelInferRequest, rng: random.Random, image: bytes) -> None:
    """Texts in the place of images, context images and a criterion, each or not; some are ill-formed."""
    if rng.random() < 0.3:
        request.inputs[1].name = "texts"
        request.raw_input_contents[1] = pack(
            [rng.choice((b"a cube", b"\xff", b"", b"x" * 40_000)) for _ in "ab"]
        )
    for name, elements in (
        ("context", [rng.choice((image, image, b"", b"\0")) for _ in range(rng.choice((0, 1, 2, 17, 300)))]),
        ("criterion", [rng.choice((b"hue", b"", b"\xff", b"x" * 40_000))]),
    ):
        if rng.random() < 0.3:
            request.inputs.add(name=name, datatype="BYTES", shape=[1, len(elements)])
            request.raw_input_contents.append(pack(elements))


def _text(rng: random.Random) -> str:
    return rng.choice(TEXTS)


def _raws(request: pb.ModelInferRequest) -> list[bytes]:
    return list(request.raw_input_contents) or [b""]


def _change_shape(request: pb.ModelInferRequest, rng: random.Random) -> None:
    shape = [rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 2, 2, 2, 3, 500)))]
    if request.inputs:
        tensor = rng.choice(request.inputs)
        del tensor.shape[:]
        tensor.shape.extend(shape)


def _empty_shapes(request: pb.ModelInferRequest, rng: random.Random) -> None:
    """Shapes that need no element, or more than there can be, and no element."""
    for tensor in request.inputs:
        shape = [rng.choice((0, 0, 1, 2**62)), 1 if tensor.name == "prompt" else rng.choice(NUMBERS)]
        del tensor.shape[:]
        tensor.shape.extend(shape)
    raws = [b""] * len(request.raw_input_contents)
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(raws)


def _change_tensor(request: pb.ModelInferRequest, rng: random.Random) -> None:
    if request.inputs:
        tensor = rng.choice(request.inputs)
        setattr(tensor, rng.choice(("name", "datatype")), _text(rng))


def _change_tensors(request: pb.ModelInferRequest, rng: random.Random) -> None:
    if rng.random() < 0.5 and request.inputs:
        del request.inputs[rng.randrange(len(request.inputs))]
    else:
        for _ in range(rng.choice((1, 2, 300))):
            request.inputs.add(name=_text(rng), datatype="BYTES", shape=[1, 1])


def _change_raw(request: pb.ModelInferRequest, rng: random.Random) -> None:
    raws = _raws(request)
    place = rng.randrange(len(raws))
    match rng.randrange(5):
        case 0:
            raws[place] = raws[place][: rng.randrange(len(raws[place]) + 1)]
        case 1:
            raws[place] = struct.pack("<I", rng.choice((2**32 - 1, 2**31, 5))) + raws[place][4:]
        case 2:
            raws[place] = pack([rng.randbytes(3)] * rng.choice((0, 1, 3, 10_000)))
        case 3:
            raws.append(raws[place])
        case 4:
            del raws[place]
    del request.raw_input_contents[:]
    request.raw_input_contents.extend(raws)


def _use_contents(request: pb.ModelInferRequest, rng: random.Random) -> None:
    if not request.inputs:
        return
    contents = rng.choice(request.inputs).contents
    match rng.randrange(4):
        case 0:
            contents.fp32_contents.extend([float("nan")] * 5)
        case 1:
            contents.bytes_contents.extend([b"\xff\xfe\0"] * rng.choice((1, 2, 1000)))
        case 2:
            contents.int64_contents.append(rng.choice(NUMBERS))
        case 3:
            contents.bool_contents.append(True)
    if rng.random() < 0.5:
        del request.raw_input_contents[:]


def _change_outputs(request: pb.ModelInferRequest, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 500))):
        output = request.outputs.add(name=rng.choice((*TEXTS, "win_matrix", "win_matrix", "error")))
        if rng.random() < 0.2:
            output.parameters[rng.choice(("classification", "shared_memory_region"))].int64_param = 1


def _add_parameter(request: pb.ModelInferRequest, rng: random.Random) -> None:
    name = rng.choice(
        ("timeout", "priority", "sequence_id", "headers", "triton_x", "binary_data_output", *TEXTS)
    )
    parameter = request.parameters[name]
    match rng.randrange(4):
        case 0:
            parameter.int64_param = rng.choice(NUMBERS)
        case 1:
            parameter.string_param = _text(rng)
        case 2:
            parameter.bool_param = True
        case 3:
            parameter.double_param = rng.choice((float("nan"), float("inf"), -1.0))


def _rename(request: pb.ModelInferRequest, rng: random.Random) -> None:
    setattr(request, rng.choice(("model_name", "model_version", "id")), _text(rng))


CHANGES: tuple[Callable[[pb.ModelInferRequest, random.Random], None], ...] = (
    _change_shape,
    _change_shape,
    _empty_shapes,
    _change_tensor,
    _change_tensors,
    _change_raw,
    _change_raw,
    _use_contents,
    _change_outputs,
    _add_parameter,
    _rename,
)
