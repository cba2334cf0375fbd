"""Round trips of groups and matrices through named tensors, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefrm.errors import ProtocolError
from prefrm.protocol import (
    INPUTS,
    MAX_ANSWER_BYTES,
    OUTPUTS,
    answer_bytes,
    decode_groups,
    decode_matrices,
    encode_groups,
    encode_matrices,
    input_tensors,
    inputs_named,
    largest_difference,
    partition,
    reassemble,
)
from prefrm.tensors import pack
from prefrm.winmatrix import EVERYTHING, Group, Inputs, WinMatrix

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
# Trailing NULs are what numpy's own byte strings lose.
IMAGE = st.none() | st.binary(min_size=1, max_size=20) | st.just(b"\x89PNG\x00\x00")
SIZE = st.integers(2, 5)


ANSWER = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
CONTEXTS = st.lists(st.binary(min_size=1, max_size=9), max_size=3).map(tuple)


@st.composite
def groups_of(
    draw: st.DrawFn, size: st.SearchStrategy[int] = SIZE, candidate: st.SearchStrategy | None = None
) -> Group:
    k = draw(size)
    candidate = draw(st.sampled_from([IMAGE, ANSWER])) if candidate is None else candidate
    candidates = tuple(draw(st.lists(candidate, min_size=k, max_size=k)))
    return Group(
        prompt=draw(TEXT), candidates=candidates, context=draw(CONTEXTS), criterion=draw(st.just("") | TEXT)
    )


@st.composite
def matrices_of(draw: st.DrawFn, size: st.SearchStrategy[int] = SIZE) -> WinMatrix:
    k = draw(size)
    logit = st.floats(-50, 50) | st.just(float("nan"))
    logits = np.array(draw(st.lists(logit, min_size=k * k, max_size=k * k))).reshape(k, k)
    tie = None
    if draw(st.booleans()):
        tie = np.full((k, k), draw(st.floats(0, 1, width=32)))
    errors = draw(st.lists(st.just("") | TEXT, min_size=k, max_size=k))
    u = np.array(draw(st.lists(logit, min_size=k, max_size=k)))
    inferred = u[:, None] - u[None, :]
    return WinMatrix.from_order_logits(logits, errors=errors, tie=tie).with_inferred(inferred)


@st.composite
def several(draw: st.DrawFn, make) -> list:
    size = st.just(draw(SIZE))
    return draw(st.lists(make(size), min_size=1, max_size=4))


@settings(deadline=None)
@given(
    several(lambda size: groups_of(size, IMAGE)) | several(lambda size: groups_of(size, ANSWER)),
)
def test_groups_survive_the_round_trip(groups):
    tensors = encode_groups(groups)
    assert decode_groups(tensors) == groups
    assert ("context" in tensors) == any(group.context for group in groups)
    assert ("criterion" in tensors) == any(group.criterion for group in groups)
    assert ("texts" in tensors) == any(group.kind == "text" for group in groups) != ("images" in tensors)
    for spec in INPUTS:
        if spec.name in tensors:
            spec.check(tensors[spec.name])


def test_an_empty_text_is_a_missing_candidate():
    (group,) = decode_groups(encode_groups([Group(prompt="p", candidates=("a", ""))]))
    assert group.candidates == ("a", None)


@settings(deadline=None)
@given(several(matrices_of))
def test_matrices_survive_the_round_trip_bit_by_bit(matrices):
    tensors = encode_matrices(matrices)
    decoded = decode_matrices(tensors, count=len(matrices), size=matrices[0].size)
    assert all(a.equals(b) for a, b in zip(matrices, decoded, strict=True))
    for spec in OUTPUTS:
        spec.check(tensors[spec.name])


@settings(deadline=None)
@given(several(matrices_of))
def test_the_win_rate_travels_with_nan_where_there_is_no_opponent(matrices):
    rates = encode_matrices(matrices)["win_rate"]
    for rate, matrix in zip(rates, matrices, strict=True):
        np.testing.assert_array_equal(rate, matrix.win_rate(on_missing="drop"))
        np.testing.assert_array_equal(np.isfinite(rate), matrix.judged)


@settings(deadline=None)
@given(st.lists(groups_of(), max_size=12), st.integers(1, 80), st.integers(1, 4))
def test_parts_hold_one_size_within_bounds_and_come_back_in_order(groups, max_bytes, max_groups):
    parts = partition(groups, max_bytes=max_bytes, max_groups=max_groups)
    for part in parts:
        assert decode_groups(encode_groups(part.groups)) == list(part.groups)
        assert len(part.groups) <= max_groups
        content = sum(
            len(x.encode() if isinstance(x, str) else x or b"")
            for g in part.groups
            for x in (g.prompt, g.criterion, *g.candidates, *g.context)
        )
        assert content <= max_bytes or len(part.groups) == 1
        assert [groups[place] for place in part.places] == list(part.groups)
    answers = [[WinMatrix.missing([str(place)] * groups[place].size) for place in p.places] for p in parts]
    places = [matrix.errors[0] for matrix in reassemble(parts, answers)]
    assert places == [str(n) for n in range(len(groups))]


def test_few_groups_of_one_size_are_one_request():
    groups = [Group(prompt="p", candidates=(b"a", b"b"))] * 5
    assert [part.places for part in partition(groups)] == [(0, 1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([], "one size"),
        ([Group(prompt="", candidates=(b"a",) * k) for k in (2, 3)], r"\[2, 3\]"),
        ([Group(prompt="\ud800", candidates=(b"a", b"b"))], "Unicode"),
        ([Group(prompt="", candidates=("\ud800", "b"))], "Unicode"),
        ([Group(prompt="", candidates=(b"a", b"b"), criterion="\ud800")], "Unicode"),
        ([Group(prompt="", candidates=two) for two in (("a", "b"), (b"a", b"b"))], "image and texts"),
    ],
)
def test_what_cannot_be_one_request_is_refused(groups, message):
    with pytest.raises(ProtocolError, match=message):
        encode_groups(groups)


@pytest.mark.parametrize(
    ("inputs", "tensors"),
    [
        (Inputs(), "prompt images"),
        (Inputs(kinds=("video",), criterion=True), "prompt images criterion?"),
        (Inputs(kinds=("text",), context=True), "prompt texts context?"),
        (EVERYTHING, "prompt images? texts? context? criterion?"),
        (Inputs(context=True, criterion=True, needs_context=True), "prompt images context criterion?"),
        (Inputs(criterion=True, needs_criterion=True), "prompt images criterion"),
    ],
)
def test_the_tensors_of_a_judge_say_what_it_reads(inputs, tensors):
    found = input_tensors(inputs)
    assert " ".join(spec.name + "?" * optional for spec, optional in found.items()) == tensors
    tensors = {spec.name: optional for spec, optional in found.items()}
    assert inputs_named(tensors, ",".join(inputs.kinds)) == inputs


def test_a_judge_that_another_server_serves_reads_what_its_tensors_are_called():
    assert inputs_named({"prompt": False, "images": False}, "") == Inputs()
    needed = inputs_named({"prompt": False, "texts": False, "context": False}, "")
    assert needed == Inputs(kinds=("text",), context=True, needs_context=True)
    assert inputs_named({}, "") == EVERYTHING


def objects(rows) -> np.ndarray:
    array = np.empty((len(rows), len(rows[0])), dtype=object)
    for b, row in enumerate(rows):
        for k, element in enumerate(row):
            array[b, k] = element
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "missing input 'prompt'"),
        ({"images": None}, "missing input 'images' or 'texts'"),
        ({"texts": objects([[b"a", b"b"]])}, "one of images and texts; received both"),
        ({"extra": objects([[b"x"]])}, "unknown input 'extra'"),
        ({"prompt": np.zeros((1, 1), np.float32)}, "'prompt' must be BYTES"),
        ({"images": np.array([[b"a", b"b"]])}, "'images' must be BYTES; received dtype"),
        ({"prompt": objects([[b"a", b"b"]])}, r"shape \[-1, 1\]; received \[1, 2\]"),
        ({"images": objects([[b"a", b"b"]])[0]}, r"received \[2\]"),
        ({"images": objects([["a", "b"]])}, "not bytes"),
        ({"images": objects([[b"a", b"b"], [b"a", b"b"]])}, "received 1 and 2"),
        ({"context": objects([[b"a"], [b"a"]])}, "prompt and images and context need .* 1 and 1 and 2"),
        ({"context": objects([[b"", b"a"]])}, "context: empty elements stand at the end"),
        ({"criterion": objects([[b"a", b"b"]])}, r"shape \[-1, 1\]; received \[1, 2\]"),
        ({"criterion": objects([[b"\xff"]])}, "a criterion is not UTF-8"),
        ({"images": None, "texts": objects([[b"a", b"\xff"]])}, "a text is not UTF-8"),
        ({"images": objects([[b"a"]])}, "at least 2 candidates"),
        ({"prompt": objects([[b"\xff"]])}, "not UTF-8"),
        ({"prompt": np.empty((0, 1), object), "images": np.empty((0, 2), object)}, "at least 1"),
    ],
)
def test_malformed_inputs_are_refused(change, message):
    tensors = encode_groups([Group(prompt="p", candidates=(b"a", b"b"))]) | change
    with pytest.raises(ProtocolError, match=message):
        decode_groups({name: array for name, array in tensors.items() if array is not None})


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("tie", None, "missing tensors: tie"),
        ("win_matrix", np.full((1, 2, 2), 0.5), "must be FP32"),
        ("win_matrix", np.full((1, 2, 2), 0.6, np.float32), "exactly"),
        ("win_matrix", np.array([[[0.5, np.nan], [np.nan, 0.5]]], np.float32), "a number wherever"),
        ("win_matrix", np.full((1, 3, 3), 0.5, np.float32), "1 groups of 2 candidates"),
        ("valid", np.ones((2, 2, 2), bool), "1 groups of 2 candidates"),
        ("valid", np.array([[[True, False], [True, True]]]), "not symmetric"),
        ("error", objects([[b"", b"\xff"]]), "no win matrix"),
    ],
)
def test_a_malformed_answer_is_never_a_matrix(name, array, message):
    tensors = encode_matrices([WinMatrix.from_order_logits(np.zeros((2, 2)))])
    tensors.pop(name)
    if array is not None:
        tensors[name] = array
    with pytest.raises(ProtocolError, match=message):
        decode_matrices(tensors, count=1, size=2)


def answer(**changes: object) -> dict[str, np.ndarray]:
    """The tensors of one matrix of three candidates, the last of which is missing, with elements replaced."""
    logits = np.array([[0.0, 1.0, 0.0], [-0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    tensors = encode_matrices([WinMatrix.from_order_logits(logits, errors=["", "", "it is missing"])])
    for name, value in changes.items():
        tensors[name].flat[1] = value
    return tensors


def test_an_answer_is_not_apart_from_itself_where_it_holds_nan():
    assert np.isnan(answer()["win_matrix"]).any()
    assert largest_difference(answer(), answer()) == 0.0


def test_answers_are_as_far_apart_as_their_numbers_at_most():
    p, gap = answer()["win_matrix"].flat[1], answer()["order_gap"].flat[1]
    apart = largest_difference(answer(win_matrix=p + 0.25, order_gap=gap - 0.125), answer())
    assert apart == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"win_matrix": np.nan},
        {"order_gap": np.nan},
        {"win_rate": np.inf},
        {"tie": 0.5},
        {"valid": False},
        {"error": b"it is large"},
    ],
)
def test_answers_that_differ_in_more_than_numbers_are_infinitely_far_apart(changes: dict[str, object]):
    assert largest_difference(answer(**changes), answer()) == np.inf
    assert largest_difference(answer(), answer(**changes)) == np.inf


def test_inferring_a_number_is_not_judging_it():
    half = np.array([[0.5, 0.75], [0.25, 0.5]])
    z = np.log(half / half.T)
    judged = WinMatrix.from_order_logits(z, order_free=True)
    inferred = WinMatrix.from_order_logits(np.where(np.eye(2), z, np.nan), order_free=True).with_inferred(z)
    assert np.array_equal(judged.p, inferred.p)
    assert largest_difference(encode_matrices([judged]), encode_matrices([inferred])) == np.inf
    assert largest_difference(encode_matrices([inferred]), encode_matrices([inferred])) == 0
    (received,) = decode_matrices(encode_matrices([inferred]), count=1, size=2)
    assert received.inferred[0, 1] and received.win_rate()[0] == np.float32(0.75)


def test_so_are_answers_of_other_tensors():
    tensors = answer()
    less = {name: array for name, array in tensors.items() if name != "tie"}
    wide = tensors | {"win_rate": tensors["win_rate"].astype(np.float64)}
    small = tensors | {"win_rate": tensors["win_rate"][:, :2]}
    for other in (less, wide, small):
        assert largest_difference(tensors, other) == np.inf


def test_a_request_is_no_larger_than_its_answer_may_be():
    groups = [Group(prompt="p", candidates=(b"x",) * 800)] * 5
    parts = partition(groups)
    assert [len(part.groups) for part in parts] == [2, 2, 1]
    assert all(answer_bytes(len(part.groups), 800) <= MAX_ANSWER_BYTES for part in parts)
    # A group whose answer alone is larger travels alone.
    assert [len(part.groups) for part in partition([Group(prompt="p", candidates=(b"x",) * 3000)] * 2)] == [
        1,
        1,
    ]


def test_the_bound_on_an_answer_holds_its_tensors():
    matrices = [WinMatrix.missing(["x" * 4000] * 7)] * 3
    content = sum(len(pack(array)) for array in encode_matrices(matrices).values())
    assert content <= answer_bytes(3, 7) < 1.3 * content
