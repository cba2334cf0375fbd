"""Groups and win matrices as named tensors: what travels between client and server. Numpy only.

The names, datatypes and shapes stand here once; the server's metadata, both sides' validation and the
clients read them. This module knows no network, no HTTP, no gRPC and no tritonclient.

Shapes: B groups of one request, all of one size; K candidates of a group; C context images of the group that
has the most.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prefrm.errors import ProtocolError, RecordError
from prefrm.winmatrix import EVERYTHING, Candidate, Group, Inputs, WinMatrix

__all__ = [
    "ANSWER_HEADER_BYTES",
    "BUNDLE_PARAMETER",
    "CONTEXT",
    "CRITERION",
    "DEFAULT_MODEL",
    "GRADIENT",
    "GRADIENT_INPUTS",
    "GRADIENT_OUTPUTS",
    "GRPC_PORT",
    "HTTP_PORT",
    "IMAGES",
    "INPUTS",
    "KINDS_PARAMETER",
    "MATRIX_OUTPUTS",
    "MAX_ANSWER_BYTES",
    "MAX_REQUEST_BYTES",
    "MAX_REQUEST_GROUPS",
    "METRICS_PORT",
    "OUTPUTS",
    "PIXELS",
    "PROMPT",
    "TEXTS",
    "TIE",
    "UTILITIES",
    "Part",
    "TensorSpec",
    "Tensors",
    "answer_bytes",
    "check_input_names",
    "decode_groups",
    "decode_matrices",
    "encode_groups",
    "encode_matrices",
    "input_tensors",
    "inputs_named",
    "judge_identity",
    "largest_difference",
    "partition",
    "reassemble",
]

# The ports of the Open Inference Protocol's reference server.
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
DEFAULT_MODEL = "judge"
# The parameter of a model's configuration that holds what `judge_identity` says of the judge that is served.
BUNDLE_PARAMETER = "bundle"
# And the one that holds the kinds of candidates that it reads, with commas between them.
KINDS_PARAMETER = "kinds"

# The limits of a client on one request, of which a server accepts more by default, and on the answer to it.
MAX_REQUEST_BYTES = 32 * 2**20
MAX_REQUEST_GROUPS = 64
MAX_ANSWER_BYTES = 32 * 2**20
# Of an answer: what is not content, and a candidate's error with its length.
ANSWER_HEADER_BYTES = 16 * 2**10
ERROR_BYTES = 4 * 2**10

Tensors = Mapping[str, npt.NDArray[Any]]


def judge_identity(digest: str, pairs: int | None = None) -> str:
    """What tells a judge's answers from another's: its bundle's digest, and its budget of pairs if any."""
    return digest if pairs is None else f"{digest} with {pairs} pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor of the protocol: its name, Open Inference Protocol datatype, and shape with -1 for any extent.

    A BYTES tensor is a numpy array of dtype object whose elements are `bytes`.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]

    def check(self, array: npt.NDArray[Any]) -> None:
        """Raise `ProtocolError` unless the array has this datatype and this shape."""
        if array.dtype != _DTYPES[self.datatype]:
            raise ProtocolError(f"tensor {self.name!r} must be {self.datatype}; received dtype {array.dtype}")
        if not self.admits(array.shape):
            raise ProtocolError(
                f"tensor {self.name!r} must have the shape {list(self.shape)}; received {list(array.shape)}"
            )
        if self.datatype == "BYTES" and not all(isinstance(element, bytes) for element in array.flat):
            raise ProtocolError(f"tensor {self.name!r} holds an element that is not bytes")

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether a concrete shape fits this one."""
        return len(shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, shape, strict=True)
        )


_DTYPES = {"BYTES": np.dtype(object), "FP32": np.dtype(np.float32), "BOOL": np.dtype(np.bool_)}

PROMPT = TensorSpec(name="prompt", datatype="BYTES", shape=(-1, 1))
IMAGES = TensorSpec(name="images", datatype="BYTES", shape=(-1, -1))
TEXTS = TensorSpec(name="texts", datatype="BYTES", shape=(-1, -1))
CONTEXT = TensorSpec(name="context", datatype="BYTES", shape=(-1, -1))
CRITERION = TensorSpec(name="criterion", datatype="BYTES", shape=(-1, 1))
WIN_MATRIX = TensorSpec(name="win_matrix", datatype="FP32", shape=(-1, -1, -1))
WIN_RATE = TensorSpec(name="win_rate", datatype="FP32", shape=(-1, -1))
ORDER_GAP = TensorSpec(name="order_gap", datatype="FP32", shape=(-1, -1, -1))
TIE = TensorSpec(name="tie", datatype="FP32", shape=(-1, -1, -1))
VALID = TensorSpec(name="valid", datatype="BOOL", shape=(-1, -1, -1))
ERROR = TensorSpec(name="error", datatype="BYTES", shape=(-1, -1))

# A request has a prompt and one of images and texts.
INPUTS = (PROMPT, IMAGES, TEXTS, CONTEXT, CRITERION)
OUTPUTS = (WIN_MATRIX, WIN_RATE, ORDER_GAP, TIE, VALID, ERROR)

# Of the gradient of a group's utilities: pixels in [0, 1] of K candidates that are all H high and W wide.
PIXELS = TensorSpec(name="pixels", datatype="FP32", shape=(-1, 3, -1, -1))
UTILITIES = TensorSpec(name="utilities", datatype="FP32", shape=(-1,))
GRADIENT = TensorSpec(name="gradient", datatype="FP32", shape=(-1, 3, -1, -1))

GRADIENT_INPUTS = (PROMPT, PIXELS)
GRADIENT_OUTPUTS = (UTILITIES, GRADIENT)

# A client rebuilds the whole `WinMatrix` from these; the win rate follows from them.
MATRIX_OUTPUTS = (WIN_MATRIX, ORDER_GAP, TIE, VALID, ERROR)


def input_tensors(inputs: Inputs) -> dict[TensorSpec, bool]:
    """The input tensors of a judge that reads `inputs`, each with whether a request may leave it out."""
    texts, encoded = "text" in inputs.kinds, set(inputs.kinds) != {"text"}
    found = {PROMPT: False}
    if encoded:
        found[IMAGES] = texts
    if texts:
        found[TEXTS] = encoded
    if inputs.context:
        found[CONTEXT] = not inputs.needs_context
    if inputs.criterion:
        found[CRITERION] = not inputs.needs_criterion
    return found


def inputs_named(tensors: Mapping[str, bool], kinds: str) -> Inputs:
    """What a served judge reads, by its input tensors and its parameter `KINDS_PARAMETER`.

    The tensors are given by name, each with whether a request may leave it out. Without any, the judge may
    read anything. Without kinds it was not served by prefrm, and reads no video.
    """
    if not tensors:
        return EVERYTHING
    named = (
        kinds.split(",")
        if kinds
        else [*["image"] * (IMAGES.name in tensors), *["text"] * (TEXTS.name in tensors)]
    )
    return Inputs(
        kinds=tuple(kind for kind in EVERYTHING.kinds if kind in named),
        context=CONTEXT.name in tensors,
        criterion=CRITERION.name in tensors,
        needs_context=not tensors.get(CONTEXT.name, True),
        needs_criterion=not tensors.get(CRITERION.name, True),
    )


def check_input_names(names: Iterable[str]) -> None:
    """Raise `ProtocolError` unless these are `prompt`, one of `images` and `texts`, and other `INPUTS`."""
    found, known = list(names), [spec.name for spec in INPUTS]
    expected = "prompt, images or texts, and perhaps context and criterion"
    if unknown := [name for name in found if name not in known]:
        raise ProtocolError(f"unknown input {unknown[0][:60]!r}; the inputs are {expected}")
    if PROMPT.name not in found:
        raise ProtocolError(f"missing input {PROMPT.name!r}; the inputs are {expected}")
    if IMAGES.name in found and TEXTS.name in found:
        raise ProtocolError("candidates are in one of images and texts; received both")
    if IMAGES.name not in found and TEXTS.name not in found:
        raise ProtocolError(f"missing input {IMAGES.name!r} or {TEXTS.name!r}; the inputs are {expected}")
    if len(set(found)) < len(found):
        raise ProtocolError(f"an input was sent twice: {', '.join(found)}")


def encode_groups(groups: Sequence[Group]) -> dict[str, npt.NDArray[Any]]:
    """The input tensors of one request.

    These are `prompt` BYTES [B, 1]; `images` BYTES [B, K], of images or videos, or `texts` BYTES [B, K]; and
    where a group has some, `context` BYTES [B, C] and `criterion` BYTES [B, 1]. A missing candidate is an
    empty element, and so are the places after a group's context images.

    Raises:
        ProtocolError: there is no group, the groups differ in size, texts are among images or videos, or a
            text is not valid Unicode.
    """
    sizes = sorted({group.size for group in groups})
    if len(sizes) != 1:
        raise ProtocolError(f"a request carries groups of one size; received the sizes {sizes}")
    kinds = sorted({group.kind for group in groups if any(group.candidates)})
    if "text" in kinds and len(kinds) > 1:
        raise ProtocolError(f"a request carries texts, or images and videos; received {' and '.join(kinds)}s")
    found: dict[TensorSpec, list[Sequence[Candidate]]] = {
        PROMPT: [[group.prompt] for group in groups],
        TEXTS if "text" in kinds else IMAGES: [group.candidates for group in groups],
    }
    if images := max(len(group.context) for group in groups):
        found[CONTEXT] = [(*group.context, *[b""] * (images - len(group.context))) for group in groups]
    if any(group.criterion for group in groups):
        found[CRITERION] = [[group.criterion] for group in groups]
    return {
        spec.name: _bytes_array([[_element(x) for x in row] for row in rows]) for spec, rows in found.items()
    }


def decode_groups(tensors: Tensors) -> list[Group]:
    """The groups of one request, from untrusted tensors as `encode_groups` makes them.

    Raises:
        ProtocolError: a tensor is missing, unknown, or of another datatype or shape; they disagree on B;
            K < 2; a text is not UTF-8; or a context image is empty before one that is not.
    """
    check_input_names(tensors)
    found = {spec: tensors[spec.name] for spec in INPUTS if spec.name in tensors}
    for spec, array in found.items():
        spec.check(array)
    lengths = [len(array) for array in found.values()]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ProtocolError(
            f"{' and '.join(spec.name for spec in found)} need the same number of groups, at least 1; "
            f"received {' and '.join(map(str, lengths))}"
        )
    try:
        return [_group({spec: array[b] for spec, array in found.items()}) for b in range(lengths[0])]
    except RecordError as error:
        raise ProtocolError(str(error)) from error


def _group(rows: Mapping[TensorSpec, npt.NDArray[Any]]) -> Group:
    """The group of one row of each tensor."""
    context = list(rows.get(CONTEXT, ()))
    while context and not context[-1]:
        context.pop()
    if not all(context):
        raise ProtocolError("context: empty elements stand at the end, after a group's images")
    candidates = rows[IMAGES] if IMAGES in rows else [_text(x, TEXTS) for x in rows[TEXTS]]
    return Group(
        prompt=_text(rows[PROMPT][0], PROMPT),
        candidates=tuple(candidate or None for candidate in candidates),
        context=tuple(context),
        criterion=_text(rows[CRITERION][0], CRITERION) if CRITERION in rows else "",
    )


def encode_matrices(
    matrices: Sequence[WinMatrix], names: Sequence[str] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The output tensors of one request, from at least one matrix; all have the same K.

    Args:
        matrices: one for each group.
        names: of the wanted tensors, in order; None for all.
    """
    return {name: _ENCODERS[name](matrices) for name in (_ENCODERS if names is None else names)}


def decode_matrices(tensors: Tensors, *, count: int, size: int) -> list[WinMatrix]:
    """The matrices of one response, from untrusted tensors; `win_rate` is not needed.

    Args:
        tensors: the named outputs.
        count: B, the number of groups that were sent.
        size: K, their size.

    Raises:
        ProtocolError: a tensor is missing, of another datatype or shape, or holds no win matrix.
    """
    wanted = {spec.name: tensors[spec.name] for spec in MATRIX_OUTPUTS if spec.name in tensors}
    _check_all(wanted, MATRIX_OUTPUTS)
    for name, array in wanted.items():
        if array.shape[0] != count or set(array.shape[1:]) != {size}:
            raise ProtocolError(
                f"tensor {name!r} has the shape {list(array.shape)}, "
                f"but {count} groups of {size} candidates were sent"
            )
    try:
        return [
            WinMatrix(
                p=wanted[WIN_MATRIX.name][b],
                valid=wanted[VALID.name][b],
                tie=wanted[TIE.name][b],
                order_gap=wanted[ORDER_GAP.name][b],
                errors=tuple(reason.decode("utf-8") for reason in wanted[ERROR.name][b]),
            )
            for b in range(count)
        ]
    except (RecordError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the tensors are no win matrix: {error}") from error


def largest_difference(tensors: Tensors, others: Tensors) -> float:
    """How far two answers to the same groups are apart: the largest difference of a number in them.

    Infinite if anything else differs: the names, types or shapes of the tensors, where they hold NaN, which
    pairs are valid, a reason. So NaN agrees with NaN in the same place, and with nothing else.
    """
    if tensors.keys() != others.keys():
        return math.inf
    # Python's max would lose a NaN.
    return float(np.max([_difference(array, others[name]) for name, array in tensors.items()], initial=0.0))


def answer_bytes(count: int, size: int) -> int:
    """Bytes of the largest answer to B = `count` groups of K = `size` candidates.

    That is three FP32 and a BOOL for each pair, and an error of at most 4 KiB for each candidate.
    """
    return ANSWER_HEADER_BYTES + count * size * (13 * size + ERROR_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One request's worth of groups, all of one size and with texts or without, and their places in the
    caller's list."""

    places: tuple[int, ...]
    groups: tuple[Group, ...]

    def halves(self) -> "tuple[Part, Part]":
        """A part of two groups or more as two."""
        middle = len(self.groups) // 2
        return (
            Part(places=self.places[:middle], groups=self.groups[:middle]),
            Part(places=self.places[middle:], groups=self.groups[middle:]),
        )


def partition(
    groups: Sequence[Group],
    *,
    max_bytes: int = MAX_REQUEST_BYTES,
    max_groups: int = MAX_REQUEST_GROUPS,
) -> list[Part]:
    """Split groups of any sizes and kinds into requests; `reassemble` puts the answers back in order.

    Each part has groups of one size, with texts or without, at most `max_groups` of them, at most `max_bytes`
    of content, and an answer of at most `MAX_ANSWER_BYTES`. A group that alone exceeds a limit travels alone,
    and the server decides.
    """
    alike: dict[tuple[int, bool], list[int]] = {}
    for place, group in enumerate(groups):
        alike.setdefault((group.size, group.kind == "text"), []).append(place)
    runs: list[list[int]] = []
    for (size, _), places in alike.items():
        run, total = list[int](), 0
        most = min(max_groups, MAX_ANSWER_BYTES // answer_bytes(1, size))
        for place in places:
            cost = groups[place].content_bytes
            if run and (len(run) >= most or total + cost > max_bytes):
                runs.append(run)
                run, total = [], 0
            run.append(place)
            total += cost
        runs.append(run)
    return [Part(places=tuple(run), groups=tuple(groups[place] for place in run)) for run in runs]


def reassemble(parts: Sequence[Part], answers: Sequence[Sequence[WinMatrix]]) -> list[WinMatrix]:
    """The answers to `partition`'s parts, in the order of the groups it was given."""
    placed = {
        place: matrix
        for part, matrices in zip(parts, answers, strict=True)
        for place, matrix in zip(part.places, matrices, strict=True)
    }
    return [placed[place] for place in range(len(placed))]


_ENCODERS: dict[str, Callable[[Sequence[WinMatrix]], npt.NDArray[Any]]] = {
    WIN_MATRIX.name: lambda matrices: _stacked([matrix.p for matrix in matrices]),
    WIN_RATE.name: lambda matrices: _stacked([matrix.win_rate(on_missing="drop") for matrix in matrices]),
    ORDER_GAP.name: lambda matrices: _stacked([matrix.order_gap for matrix in matrices]),
    TIE.name: lambda matrices: _stacked([matrix.tie for matrix in matrices]),
    VALID.name: lambda matrices: _stacked([matrix.valid for matrix in matrices]),
    ERROR.name: lambda matrices: _bytes_array([[_utf8(error) for error in one.errors] for one in matrices]),
}


def _stacked(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    # Most requests have one group, for which np.stack takes ten times as long.
    return arrays[0][None].copy() if len(arrays) == 1 else np.stack(arrays)


def _check_all(tensors: Tensors, specs: Sequence[TensorSpec]) -> None:
    names = [spec.name for spec in specs]
    if missing := [name for name in names if name not in tensors]:
        raise ProtocolError(f"missing tensors: {', '.join(missing)}; expected {', '.join(names)}")
    if unknown := sorted(set(tensors) - set(names)):
        raise ProtocolError(f"unknown tensors: {', '.join(unknown)}; expected {', '.join(names)}")
    for spec in specs:
        spec.check(tensors[spec.name])


def _difference(array: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    if array.dtype != other.dtype or array.shape != other.shape:
        return math.inf
    if array.dtype.kind != "f":
        return 0.0 if np.array_equal(array, other) else math.inf
    known = ~np.isnan(array)
    if not np.array_equal(known, ~np.isnan(other)):
        return math.inf
    return float(np.abs(array[known] - other[known]).max(initial=0.0))


def _bytes_array(rows: Sequence[Sequence[bytes]]) -> npt.NDArray[np.object_]:
    # Filled element by element: np.array would read a row of bytes as numpy's S dtype, which strips NULs.
    array = np.empty((len(rows), len(rows[0])), dtype=object)
    for b, row in enumerate(rows):
        for k, element in enumerate(row):
            array[b, k] = element
    return array


def _element(content: Candidate) -> bytes:
    return _utf8(content) if isinstance(content, str) else content or b""


def _text(element: bytes, spec: TensorSpec) -> str:
    try:
        return element.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError(
            f"a {spec.name.removesuffix('s')} is not UTF-8: {error.reason} at byte {error.start}"
        ) from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{text[:60]!r} is not valid Unicode text: {error.reason}") from error
