"""Inference calls of the stock client, and gRPC requests that it cannot make."""

from dataclasses import replace

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from prefrm.protocol import encode_groups
from prefrm.winmatrix import Candidate, Group
from tests.prefrm.candidates import candidate, noise_clip
from tests.serving.triton.conftest import KINDS, noise
from tests.serving.triton.registry import add, on
from tests.serving.triton.wire import AIO, BOTH, Wire, infer_request, packed, rows

A, B, C = noise(1), noise(2), noise(3)
GROUPS = [
    Group(prompt="two dogs", candidates=(A, B, C)),
    Group(prompt="zwei Äpfel", candidates=(A, None, b"no image\x00")),
]


def unreadable(kind: str) -> Candidate:
    """A candidate of that kind which no judge can read."""
    if kind == "text":
        return "x" * 9000
    return noise_clip(3)[:-40] if kind == "video" else b"no image\x00"


def groups_of(kind: str) -> list[Group]:
    """A group with a context and a criterion, and one without."""
    one, two, bad = candidate(kind, 1), candidate(kind, 2), unreadable(kind)
    return [
        Group(prompt="a hat", candidates=(one, two, None), context=(A, B), criterion="hue"),
        Group(prompt="zwei Äpfel", candidates=(two, bad, one)),
    ]


@on(*BOTH, *AIO)
def answers(wire):
    return wire.infer(wire.inputs(GROUPS))


@on(*BOTH, *AIO)
def answers_with_an_id(wire):
    return wire.infer(wire.inputs(GROUPS), request_id="r-1")


@on(*BOTH, *AIO)
def unknown_model(wire):
    return wire.infer(wire.inputs(GROUPS), model="nobody")


for model, kind in KINDS.items():

    def ask_model(wire, groups, model=model):
        return wire.infer(wire.inputs(groups), model=model)

    whole, plain = groups_of(kind)
    add(f"answers_of_{model}s", lambda wire, ask=ask_model, two=(whole, plain): ask(wire, two), *BOTH, *AIO)
    add(f"answers_of_plain_{model}s", lambda wire, ask=ask_model, one=plain: ask(wire, [one]))
    for field in ("context", "criterion"):
        part = replace(whole, **{field: Group.__dataclass_fields__[field].default})
        add(f"answers_of_{model}s_without_a_{field}", lambda wire, ask=ask_model, one=part: ask(wire, [one]))


def with_another(wire, model, name, array):
    """The inputs of a good request to a model, with another input or another array of one."""
    tensors = encode_groups(groups_of(KINDS[model])[:1]) | {name: array}
    return wire.infer([wire.tensor(key, value) for key, value in tensors.items()], model=model)


# Of each, the model, the input and its array: what a model reads besides a prompt and images.
for name, arguments in {
    "context_that_cannot_be_read": ("edit", "context", rows([A, b"junk"])),
    "context_with_a_gap": ("edit", "context", rows([b"", A])),
    "context_of_no_image": ("edit", "context", np.empty((1, 0), dtype=object)),
    "context_of_too_many_images": ("edit", "context", rows([A] * 65)),
    "context_of_another_number_of_groups": ("edit", "context", rows([A], [A])),
    "two_criteria_a_group": ("edit", "criterion", rows([b"hue", b"form"])),
    "criterion_that_is_no_utf8": ("edit", "criterion", rows([b"\xff"])),
    "empty_criterion": ("edit", "criterion", rows([b""])),
    "text_that_is_no_utf8": ("text", "texts", rows([b"a", b"\xff", b"b"])),
    "text_with_nuls": ("text", "texts", rows([b"a\0b\0", b"c", b"\0"])),
    "missing_texts": ("text", "texts", rows([b"", b"", b""])),
    "texts_of_one": ("text", "texts", rows([b"a"])),
    "images_beside_texts": ("text", "images", rows([A, B, C])),
    "image_among_videos": ("video", "images", rows([A, candidate("video", 1), candidate("video", 2)])),
    "garbage_among_videos": (
        "video",
        "images",
        rows([candidate("video", 1), b"no video\x00", candidate("video", 2)]),
    ),
    "truncated_video": ("video", "images", rows([candidate("video", n)[:-40] for n in (1, 2)])),
}.items():
    add(name, lambda wire, arguments=arguments: with_another(wire, *arguments))

# Groups of what the model does not read.
for name, (model, kind) in {
    "context_and_criterion_not_read": ("judge", "image"),
    "texts_for_a_judge_of_images": ("edit", "text"),
    "images_for_a_judge_of_texts": ("text", "image"),
    "images_for_a_judge_of_videos": ("video", "image"),
    "videos_for_a_judge_of_images": ("edit", "video"),
}.items():
    add(
        name,
        lambda wire, model=model, kind=kind: wire.infer(wire.inputs(groups_of(kind)[:1]), model=model),
    )

# What differs from a good request, and how it is said to the stock client.
for name, options in {
    "version": {"model_version": "1"},
    "version_with_a_zero": {"model_version": "01"},
    "unknown_version": {"model_version": "7"},
    "version_that_is_no_number": {"model_version": "abc"},
    "negative_version": {"model_version": "-1"},
    "generous_timeout": {"timeout": 60_000_000},
    "priority": {"priority": 1},
    "sequence": {"sequence_id": 3, "sequence_start": True},
    "custom_parameters": {"parameters": {"mine": "x", "n": 3, "flag": True}},
}.items():
    add(name, lambda wire, options=options: wire.infer(wire.inputs(GROUPS), **options))

# What is asked for, and how.
for name, (names, options) in {
    "one_output": (["error"], {}),
    "outputs_in_the_models_order": (["win_rate", "valid"], {}),
    "outputs_in_another_order": (["valid", "win_rate"], {}),
    "unknown_output": (["rank"], {}),
    "output_asked_for_twice": (["valid", "valid"], {}),
    "classification": (["win_rate"], {"class_count": 2}),
}.items():
    add(
        name,
        lambda wire, names=names, options=options: wire.infer(
            wire.inputs(GROUPS), outputs=wire.outputs(*names, **options)
        ),
    )


def sending(prompt, images, datatypes=("BYTES", "BYTES"), names=("prompt", "images")):
    """A call with these two arrays."""

    def call(wire: Wire):
        arrays = zip(names, (prompt, images), datatypes, strict=True)
        return wire.infer([wire.tensor(name, array, datatype) for name, array, datatype in arrays])

    return call


P, PAIR = rows([b"p"]), rows([A, B])
for name, call in {
    "unreadable_image": sending(P, rows([A, b"junk", B])),
    "truncated_image": sending(P, rows([A, B[:200]])),
    "missing_candidate": sending(P, rows([A, b"", B])),
    "all_candidates_missing": sending(P, rows([b"", b""])),
    "prompt_with_nuls": sending(rows([b"a\0b\0\0"]), PAIR),
    "image_that_is_a_nul": sending(P, rows([A, b"\0"])),
    "empty_prompt": sending(rows([b""]), PAIR),
    "prompt_that_is_no_utf8": sending(rows([b"\xff\xfe"]), PAIR),
    "group_of_one": sending(P, rows([A])),
    "group_of_none": sending(P, np.empty((1, 0), dtype=object)),
    "group_too_large": sending(P, rows([b"x"] * 65)),
    "no_group": sending(np.empty((0, 1), dtype=object), np.empty((0, 2), dtype=object)),
    "too_many_groups": sending(rows(*[[b"p"]] * 257), rows(*[[b"a", b"b"]] * 257)),
    "other_numbers_of_groups": sending(P, rows([A, B], [A, C])),
    "prompt_of_one_dimension": sending(np.array([b"p"], dtype=object), PAIR),
    "two_prompts_a_group": sending(rows([b"p", b"q"]), PAIR),
    "images_of_one_dimension": sending(P, np.array([A, B], dtype=object)),
    "images_of_three_dimensions": sending(P, PAIR.reshape(1, 2, 1)),
    "prompt_of_another_type": sending(np.zeros((1, 1), np.float32), PAIR, ("FP32", "BYTES")),
    "images_of_another_type": sending(P, np.zeros((1, 2), np.int64), ("BYTES", "INT64")),
    "renamed_input": sending(P, PAIR, names=("prompt", "image")),
}.items():
    add(name, call)


@on()
def missing_input(wire):
    return wire.infer(wire.inputs(GROUPS)[:1])


@on()
def no_input(wire):
    return wire.infer([])


@on()
def input_too_many(wire):
    return wire.infer([*wire.inputs(GROUPS), wire.tensor("mask", rows([b"a"], [b"b"]))])


@on()
def input_sent_twice(wire):
    return wire.infer([*wire.inputs(GROUPS), *wire.inputs(GROUPS)[:1]])


@on()
def too_few_elements(wire):
    inputs = wire.inputs(GROUPS)
    inputs[1].set_shape([2, 4])
    return wire.infer(inputs)


@on()
def too_many_elements(wire):
    inputs = wire.inputs(GROUPS)
    inputs[1].set_shape([2, 2])
    return wire.infer(inputs)


@on()
def negative_extent(wire):
    inputs = wire.inputs(GROUPS)
    inputs[1].set_shape([2, -3])
    return wire.infer(inputs)


@on()
def input_in_shared_memory(wire):
    inputs = wire.inputs(GROUPS)
    inputs[1].set_shared_memory("region", 10)
    return wire.infer(inputs)


@on()
def output_in_shared_memory(wire):
    outputs = wire.outputs("valid")
    outputs[0].set_shared_memory("region", 100)
    return wire.infer(wire.inputs(GROUPS), outputs=outputs)


@on("grpc")
def compressed(wire):
    return wire.infer(wire.inputs(GROUPS), compression_algorithm="gzip")


@on("http")
def compressed_both_ways(wire):
    options = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "deflate"}
    return wire.infer(wire.inputs(GROUPS), **options)


# A parameter of a gRPC request: the field of its value, and the value.
for name, parameter in {
    "timeout_that_is_over": ("timeout", "int64_param", 1),
    "timeout_of_zero": ("timeout", "int64_param", 0),
    "negative_timeout": ("timeout", "int64_param", -5),
    "timeout_as_text": ("timeout", "string_param", "5"),
    "timeout_as_truth": ("timeout", "bool_param", True),
    "timeout_as_double": ("timeout", "double_param", 1.5),
    "unsigned_timeout": ("timeout", "uint64_param", 10**9),
    "signed_priority": ("priority", "int64_param", 1),
    "priority_as_text": ("priority", "string_param", "x"),
    "double_parameter": ("mine", "double_param", 1.5),
    "reserved_parameter": ("triton_mine", "string_param", "x"),
    "parameter_headers": ("headers", "string_param", "x"),
    "parameter_binary_data_output": ("binary_data_output", "bool_param", True),
    "sequence_id_as_number": ("sequence_id", "int64_param", 5),
    "empty_final_response": ("triton_enable_empty_final_response", "bool_param", True),
}.items():
    add(
        name,
        lambda wire, key=parameter[0], value=parameter[1:]: wire.send(
            infer_request(images=[A, B], **{key: value})
        ),
        "grpc",
    )


@on("grpc")
def typed_contents(wire):
    request = infer_request(images=[A, B])
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.bytes_contents.append(b"p")
    request.inputs[1].contents.bytes_contents.extend([A, B])
    return wire.send(request)


@on("grpc")
def typed_contents_too_few(wire):
    request = infer_request(images=[A, B])
    request.ClearField("raw_input_contents")
    request.inputs[0].contents.bytes_contents.append(b"p")
    request.inputs[1].contents.bytes_contents.append(A)
    return wire.send(request)


@on("grpc")
def typed_and_raw_contents(wire):
    request = infer_request(images=[A, B])
    request.inputs[0].contents.bytes_contents.append(b"p")
    return wire.send(request)


@on("grpc")
def no_contents(wire):
    request = infer_request(images=[A, B])
    request.ClearField("raw_input_contents")
    return wire.send(request)


# The raw contents of the two inputs.
for name, raws in {
    "too_few_raw_contents": [packed(b"p")],
    "too_many_raw_contents": [packed(b"p"), packed(A, B), packed(b"q")],
    "truncated_element": [packed(b"p"), packed(A, B)[:-1]],
    "truncated_length": [packed(b"p"), packed(A, B) + b"\x01\x00"],
}.items():

    def raw(wire, raws=raws):
        request = infer_request(images=[A, B])
        request.ClearField("raw_input_contents")
        request.raw_input_contents.extend(raws)
        return wire.send(request)

    add(name, raw, "grpc")


@on("grpc")
def unknown_datatype(wire):
    request = infer_request(images=[A, B])
    request.inputs[0].datatype = "TEXT"
    return wire.send(request)


@on("grpc")
def empty_request(wire):
    return wire.send(pb.ModelInferRequest())


@on("grpc")
def empty_model_name(wire):
    return wire.send(infer_request(images=[A, B], model=""))


@on("grpc")
def deadline_that_is_over(wire):
    return wire.send(infer_request(images=[noise(n) for n in range(40)]), timeout=0.001)
