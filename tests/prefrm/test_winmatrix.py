"""The matrix's invariants: exact complements, exact permutation, and nothing invented."""

import copy
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prefrm.errors import ConfigError, IncompleteMatrixError, ProtocolError, RecordError
from prefrm.winmatrix import FakeScorer, Group, Scorer, TemperatureScaling, WinMatrix, check_answer
from prefrm.winmatrix.probabilities import calibrate_ties

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


@st.composite
def order_logits(draw, elements=ANY_FLOAT, max_size=6):
    size = draw(st.integers(2, max_size))
    return draw(hnp.arrays(np.float64, (size, size), elements=elements))


@st.composite
def matrices(draw):
    """Matrices with unjudged pairs, inferred ones and missing candidates among them."""
    logits = draw(order_logits())
    errors = draw(
        st.lists(st.sampled_from(["", "", "unreadable"]), min_size=len(logits), max_size=len(logits))
    )
    tie = draw(st.none() | st.just(np.full(logits.shape, 0.25)))
    matrix = WinMatrix.from_order_logits(logits, errors=errors, tie=tie, order_free=draw(st.booleans()))
    return matrix.with_inferred(draw(inferences(matrix.size))) if draw(st.booleans()) else matrix


@st.composite
def inferences(draw, size):
    """Skew-symmetric log-odds, some of them no number."""
    upper = np.triu(draw(hnp.arrays(np.float64, (size, size), elements=ANY_FLOAT)), 1)
    return np.where(np.tri(size, k=-1, dtype=bool), -upper.T, upper)


@st.composite
def shuffled(draw, strategy):
    value = draw(strategy)
    return value, draw(st.permutations(range(len(value))))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_a_groups_bytes_are_those_of_its_prompt_in_utf8_and_of_its_images():
    for prompt, size in (("", 0), ("a red cube", 10), ("zwei Äpfel \U0001f34e", 16), ("\ud800", 3)):
        group = Group(prompt=prompt, candidates=(b"xy", None, b"z"))
        assert (group.text_bytes, group.content_bytes) == (size, size + 3)


@given(matrices())
def test_complements_are_exact(matrix):
    p, known = matrix.p, matrix.known
    assert p.dtype == np.float32
    assert np.array_equal((p + p.T)[known], np.ones(known.sum(), np.float32))
    diagonal = p.diagonal()[known.diagonal()]
    assert np.array_equal(diagonal, np.full(len(diagonal), 0.5, np.float32))


@given(matrices())
def test_what_was_neither_judged_nor_inferred_is_nan_and_has_a_reason(matrix):
    assert np.array_equal(matrix.known, matrix.valid | matrix.inferred)
    assert not (matrix.valid & matrix.inferred).any()
    assert np.isnan(matrix.p[~matrix.known]).all()
    assert np.isnan(matrix.tie[~matrix.valid]).all()
    assert np.isnan(matrix.order_gap[~matrix.valid]).all()
    for i, j in np.ndindex(matrix.size, matrix.size):
        assert bool(matrix.reason(i, j)) == (not matrix.known[i, j])


@given(shuffled(order_logits()))
def test_permuting_the_candidates_permutes_the_matrix_to_the_last_bit(case):
    logits, order = case
    direct = WinMatrix.from_order_logits(logits[np.ix_(order, order)])
    assert direct.equals(WinMatrix.from_order_logits(logits).permuted(order))


@given(shuffled(st.lists(st.floats(-30, 30) | st.none(), min_size=2, max_size=6)))
def test_permuting_a_group_permutes_its_matrix(case):
    utilities, order = case
    images = tuple(None if u is None else repr(u).encode() for u in utilities)
    group = Group(prompt="a cat", candidates=images)
    scorer = FakeScorer(lambda prompt, image: float(image), first_bonus=0.7)
    before, after = scorer.score([group, group.permuted(order)])
    assert after.equals(before.permuted(order))


@given(matrices())
def test_win_rate_is_a_mean_over_known_opponents(matrix):
    for hard in (False, True):
        rates = matrix.win_rate(hard=hard, on_missing="drop")
        assert rates.dtype == np.float32
        for i in range(matrix.size):
            row = [float(matrix.p[i, j]) for j in range(matrix.size) if j != i and matrix.known[i, j]]
            if hard:
                row = [1.0 if p > 0.5 else 0.5 if p == 0.5 else 0.0 for p in row]
            assert matrix.judged[i] == bool(row)
            if row:
                assert rates[i] == pytest.approx(sum(row) / len(row), rel=1e-6, abs=1e-37)
            else:
                assert np.isnan(rates[i])


@given(order_logits(elements=st.floats(-50, 50)))
def test_the_win_rates_of_a_complete_matrix_average_one_half(logits):
    assert WinMatrix.from_order_logits(logits).win_rate().mean(dtype=np.float64) == pytest.approx(
        0.5, abs=1e-6
    )


@given(matrices())
def test_win_rate_refuses_an_incomplete_matrix_by_default(matrix):
    if matrix.known.all():
        assert np.isfinite(matrix.win_rate()).all()
    else:
        with pytest.raises(IncompleteMatrixError, match='on_missing="drop"'):
            matrix.win_rate()


@pytest.mark.parametrize(
    ("high", "low"),
    [
        # Each sum is 1 once it is rounded to float32.
        (np.nextafter(np.float32(0.75), np.float32(1)), 0.25),
        (0.75, np.nextafter(np.float32(0.25), np.float32(1))),
        (1.0, 1e-9),
        (1.0, 1e-38),
        (0.5, np.nextafter(np.float32(0.5), np.float32(0))),
    ],
)
def test_a_sum_that_only_rounds_to_one_is_refused(high, low):
    p = np.array([[0.5, high], [low, 0.5]], np.float32)
    assert p[0, 1] + p[1, 0] == 1
    others = {"tie": np.zeros((2, 2)), "order_gap": np.zeros((2, 2)), "errors": ("", "")}
    for array in (p, p.T):
        with pytest.raises(RecordError, match=r"p\[i, j\] \+ p\[j, i\] == 1 exactly"):
            WinMatrix(p=array, valid=np.ones((2, 2)), **others)


def test_both_orders_are_averaged_in_logit_space():
    # Shown first, candidate 0 beats 1 with log-odds 3; shown first, candidate 1 beats 0 with log-odds 1.
    matrix = WinMatrix.from_order_logits(np.array([[9.0, 3.0], [1.0, 9.0]]))
    assert matrix.p[0, 1] == np.float32(sigmoid(1.0))
    assert matrix.p[1, 0] == 1 - np.float32(sigmoid(1.0))
    # P(0 beats 1 | 0 first) = sigmoid(3), P(0 beats 1 | 1 first) = 1 - sigmoid(1).
    assert matrix.order_gap[0, 1] == pytest.approx(sigmoid(3.0) - (1 - sigmoid(1.0)), abs=1e-7)
    assert matrix.order_gap[1, 0] == pytest.approx(matrix.order_gap[0, 1], abs=1e-7)
    assert matrix.order_gap.diagonal().tolist() == [0.0, 0.0]
    assert np.isnan(matrix.tie).all()


def test_a_constant_bonus_for_the_first_place_cancels_in_p_and_shows_in_the_gap():
    group = Group(prompt="a cat", candidates=(b"1", b"0"))
    plain, biased = (
        FakeScorer(lambda prompt, image: float(image), first_bonus=b).score([group])[0] for b in (0.0, 2.0)
    )
    assert np.array_equal(plain.p, biased.p)
    assert plain.order_gap[0, 1] == pytest.approx(0, abs=1e-7)
    assert biased.order_gap[0, 1] == pytest.approx(sigmoid(3.0) - sigmoid(-1.0), abs=1e-7)


def test_an_order_free_judge_has_no_order_gap():
    matrix = WinMatrix.from_order_logits(np.array([[0.0, 1.0], [-1.0, 0.0]]), order_free=True)
    assert matrix.order_gap[0, 0] == 0
    assert np.isnan(matrix.order_gap[0, 1])


@given(order_logits(), st.booleans(), st.data())
def test_what_is_built_of_log_odds_passes_every_check(logits, order_free, data):
    errors = data.draw(st.lists(st.sampled_from(["", "gone"]), min_size=len(logits), max_size=len(logits)))
    matrix = WinMatrix.from_order_logits(logits, errors=errors, order_free=order_free)
    checked = WinMatrix(
        p=matrix.p, valid=matrix.valid, tie=matrix.tie, order_gap=matrix.order_gap, errors=matrix.errors
    )
    assert matrix.equals(checked)
    for name in ("p", "valid", "tie", "order_gap"):
        built, copy = getattr(matrix, name), getattr(checked, name)
        assert (built.dtype, built.shape, built.flags.writeable) == (copy.dtype, copy.shape, False)


@given(order_logits(max_size=4), st.booleans())
def test_groups_that_are_built_together_are_what_each_is_alone(logits, order_free):
    both = np.stack([logits, -logits])
    together = WinMatrix.all_from_order_logits(both, order_free=order_free)
    alone = [WinMatrix.from_order_logits(one, order_free=order_free) for one in both]
    assert [a.equals(b) for a, b in zip(together, alone, strict=True)] == [True, True]
    with pytest.raises(RecordError, match="the shape"):
        WinMatrix.all_from_order_logits(logits)


def test_extreme_log_odds_saturate():
    big = np.finfo(np.float64).max
    matrix = WinMatrix.from_order_logits(np.array([[0.0, big], [-big, 0.0]]))
    assert matrix.p.tolist() == [[0.5, 1.0], [0.0, 0.5]]


def test_one_infinite_order_is_enough_to_leave_a_pair_unjudged():
    matrix = WinMatrix.from_order_logits(np.array([[0.0, np.inf], [1.0, 0.0]]))
    assert not matrix.valid[0, 1]
    assert not matrix.valid[1, 0]
    assert matrix.reason(0, 1) == "the judge gave no finite answer for this pair"


def test_hard_win_rate_by_hand():
    # 0 beats 1, ties with 2; 1 loses to 0, beats 2.
    logits = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.2], [0.0, -0.2, 0.0]])
    matrix = WinMatrix.from_order_logits(logits)
    assert matrix.win_rate(hard=True).tolist() == [0.75, 0.5, 0.25]
    assert matrix.win_rate()[0] == pytest.approx((sigmoid(1.0) + 0.5) / 2)


def test_a_missing_candidate_drops_out_of_the_others_win_rates():
    group = Group(prompt="a cat", candidates=(b"2", None, b"0"))
    (matrix,) = FakeScorer(lambda prompt, image: float(image)).score([group])
    assert matrix.errors == ("", "the candidate is missing", "")
    assert matrix.valid.tolist() == [[True, False, True], [False, False, False], [True, False, True]]
    assert matrix.judged.tolist() == [True, False, True]
    rates = matrix.win_rate(on_missing="drop")
    assert rates[[0, 2]].tolist() == [matrix.p[0, 2], matrix.p[2, 0]]
    assert np.isnan(rates[1])
    with pytest.raises(IncompleteMatrixError, match=r"\(0, 1\): the candidate is missing"):
        matrix.require_complete()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_fake_utility_that_is_no_number_makes_its_candidate_missing(value):
    group = Group(prompt="a cat", candidates=(b"2", b"x"))
    (matrix,) = FakeScorer(lambda prompt, image: value if image == b"x" else 1.0).score([group])
    assert matrix.errors == ("", f"the utility is {value}")


def test_a_matrix_in_which_nothing_was_judged():
    matrix = WinMatrix.missing(["no image", "too large"])
    assert not matrix.valid.any()
    assert np.isnan(matrix.win_rate(on_missing="drop")).all()
    assert matrix.reason(0, 1) == "no image"


def test_subset_keeps_the_order_given():
    logits = np.arange(9.0).reshape(3, 3)
    matrix = WinMatrix.from_order_logits(logits, errors=["", "", "gone"])
    assert matrix.subset([2, 0]).equals(matrix.permuted([2, 0, 1]).subset([0, 1]))
    assert matrix.subset([2, 0]).errors == ("gone", "")


@pytest.mark.parametrize("candidates", [[0, 0], [2], [-1]])
def test_a_subset_names_each_candidate_once(candidates):
    with pytest.raises(RecordError, match=r"different candidates of 0\.\.1"):
        WinMatrix.missing(["", ""]).subset(candidates)


def test_arrays_are_copies_and_read_only():
    logits = np.zeros((2, 2))
    matrix = WinMatrix.from_order_logits(logits)
    with pytest.raises(ValueError, match="read-only"):
        matrix.p[0, 1] = 1
    valid = np.ones((2, 2), bool)
    other = WinMatrix(p=matrix.p, valid=valid, tie=matrix.tie, order_gap=matrix.order_gap, errors=("", ""))
    valid[:] = False
    assert other.equals(matrix)


def test_equals_sees_every_field():
    matrix = WinMatrix.from_order_logits(np.array([[0.0, 1.0], [1.0, 0.0]]), tie=np.full((2, 2), 0.1))
    fields = {name: getattr(matrix, name) for name in ("p", "valid", "tie", "order_gap", "errors")}
    assert matrix.equals(WinMatrix(**fields))
    half = np.array([[0.0, 0.5], [0.5, 0.0]])
    for name in ("tie", "order_gap", "spread"):
        assert not matrix.equals(WinMatrix(**{**fields, name: half}))
    other = WinMatrix(**fields, spread=half)
    assert other.equals(other.permuted([0, 1])) and other.equals(copy.copy(other))
    assert not other.equals(WinMatrix(**fields, spread=half / 2))
    assert not matrix.equals(WinMatrix.from_order_logits(np.array([[0.0, 3.0], [1.0, 0.0]])))
    assert not matrix.equals(WinMatrix.missing(["", "gone"]))


def sound(**changes):
    p = np.array([[0.5, 0.75], [0.25, 0.5]])
    fields = dict(p=p, valid=~np.isnan(p), tie=p * 0, order_gap=p * 0, errors=("", ""))
    return WinMatrix(**{**fields, **changes})


nan = math.nan
BROKEN = {
    "p has shape": dict(p=np.full((3, 3), 0.5)),
    "valid is not symmetric": dict(valid=np.array([[True, True], [False, True]])),
    "p must be a number wherever": dict(p=np.array([[0.5, nan], [nan, 0.5]])),
    r"p\[i, j\] \+ p\[j, i\] == 1": dict(p=np.array([[0.5, 0.75], [0.3, 0.5]])),
    "p must lie in": dict(p=np.array([[0.5, 1.5], [-0.5, 0.5]])),
    "row of a candidate with an error": dict(errors=("gone", "")),
    "valid must be false and p NaN": dict(errors=("gone", ""), valid=np.diag([False, True])),
    "valid true on the diagonal": dict(valid=np.diag([False, True])),
    "tie must lie in": dict(tie=np.array([[0.5, 1.5], [1.5, 0.5]])),
    "order_gap must lie in": dict(order_gap=np.array([[0.5, np.inf], [np.inf, 0.5]])),
    "tie is not symmetric": dict(tie=np.array([[0.0, 0.2], [0.3, 0.0]])),
    "order_gap is not symmetric": dict(order_gap=np.array([[0.0, 0.2], [nan, 0.0]])),
    "spread must lie in": dict(spread=np.array([[0.0, -0.1], [-0.1, 0.0]])),
    "spread is not symmetric": dict(spread=np.array([[0.0, 0.1], [0.2, 0.0]])),
    "order_gap must be 0 on the diagonal": dict(order_gap=np.full((2, 2), 0.5)),
}


@pytest.mark.parametrize("message", BROKEN)
def test_an_unsound_matrix_is_refused(message):
    sound()
    with pytest.raises(RecordError, match=message):
        sound(**BROKEN[message])


def test_an_inferred_number_is_a_probability_without_a_tie_or_a_gap():
    apart = np.eye(2, dtype=bool)
    nothing = np.where(apart, 0.0, nan)
    inferred = sound(valid=apart, tie=nothing, order_gap=nothing)
    assert inferred.inferred.tolist() == [[False, True], [True, False]]
    for p, q in ((np.inf, np.inf), (1.5, -0.5), (0.6, 0.6), (0.5, nan)):
        with pytest.raises(RecordError, match="p must lie in"):
            sound(p=np.array([[0.5, p], [q, 0.5]]), valid=apart, tie=nothing, order_gap=nothing)
    for name in ("tie", "order_gap"):
        with pytest.raises(RecordError, match=f"{name} must lie in"):
            sound(**{"valid": apart, "tie": nothing, "order_gap": nothing, name: np.zeros((2, 2))})


@given(shuffled(order_logits()), st.data())
def test_permuting_permutes_what_was_inferred_too(case, data):
    logits, order = case
    z = data.draw(inferences(len(logits)))
    direct = WinMatrix.from_order_logits(logits[np.ix_(order, order)]).with_inferred(z[np.ix_(order, order)])
    assert direct.equals(WinMatrix.from_order_logits(logits).with_inferred(z).permuted(order))


@pytest.mark.parametrize(
    ("logits", "options"),
    [
        (np.zeros((2, 3)), {}),
        (np.zeros(2), {}),
        (np.zeros((2, 2)), {"errors": [""] * 3}),
        (np.zeros((2, 2)), {"tie": np.zeros((3, 3))}),
    ],
)
def test_shapes_that_do_not_fit_are_refused(logits, options):
    with pytest.raises(RecordError, match="has shape"):
        WinMatrix.from_order_logits(logits, **options)


def test_a_group_needs_two_candidates():
    with pytest.raises(RecordError, match="received 1 for the prompt 'a cat'"):
        Group(prompt="a cat", candidates=(b"x",))


@pytest.mark.parametrize("order", [[0, 0], [0], [0, 2], [0, 1, 2]])
def test_what_is_no_permutation_is_refused(order):
    group = Group(prompt="a cat", candidates=(b"x", None))
    for permuted in (group.permuted, WinMatrix.missing(["", ""]).permuted):
        with pytest.raises(RecordError, match=r"not a permutation of 0\.\.1"):
            permuted(order)


def test_the_fake_is_a_scorer():
    assert isinstance(FakeScorer(lambda prompt, image: 0.0), Scorer)
    assert not isinstance(object(), Scorer)


@given(matrices())
def test_a_gap_and_a_tie_are_one_number_for_each_pair(matrix):
    assert np.array_equal(matrix.order_gap, matrix.order_gap.T, equal_nan=True)
    assert np.array_equal(matrix.tie, matrix.tie.T, equal_nan=True)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
def test_a_copy_is_as_read_only_as_the_original(copied):
    matrix = WinMatrix.from_order_logits(np.zeros((2, 2)), errors=("", "gone"))
    again = copied(matrix)
    assert again.equals(matrix)
    for name in ("p", "valid", "tie", "order_gap"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(again, name)[0, 0] = 0


def test_a_typo_in_on_missing_is_a_mistake_and_not_a_drop():
    for matrix in (WinMatrix.missing(["", "gone"]), WinMatrix.from_order_logits(np.zeros((2, 2)))):
        with pytest.raises(ConfigError, match='"raise" or "drop"; received \'rasie\''):
            matrix.win_rate(on_missing="rasie")


def test_no_candidate_is_no_matrix():
    with pytest.raises(RecordError, match="none was named"):
        sound().subset([])


def test_an_answer_is_one_matrix_of_its_size_for_each_group():
    groups = [Group(prompt="p", candidates=(b"x", b"y"))] * 2
    check_answer([sound(), sound()], groups)
    for answer in ([sound()], [sound(), sound().subset([0])], [sound()] * 3):
        with pytest.raises(ProtocolError, match=r"groups of \[2, 2\] candidates and answered with matrices"):
            check_answer(answer, groups)


def test_ties_keep_their_share_of_what_a_calibration_leaves_open():
    # p = 3/4 leaves 1/2 open, of which 1/4 is half; at temperature 1/2 p is 9/10, which leaves 1/5.
    z = np.array([[0.0, np.log(3)], [-np.log(3), 0.0]])
    tie = np.array([[1.0, 0.25], [0.25, 1.0]])
    assert np.array_equal(calibrate_ties(tie, z, z), tie)
    assert calibrate_ties(tie, z, z / 0.5) == pytest.approx(np.array([[1.0, 0.1], [0.1, 1.0]]))
    # More than is open cannot be a tie; what is not known stays so.
    assert calibrate_ties(np.full((2, 2), 0.9), z, z)[0, 1] == pytest.approx(0.5)
    assert np.isnan(calibrate_ties(np.full((2, 2), np.nan), z, z / 2)).all()


def with_mass() -> WinMatrix:
    """Of three candidates, of which the last two could not be compared with each other."""
    z = np.array([[0, 1.0, 2.0], [-1.0, 0, np.nan], [-2.0, np.nan, 0]])
    mass = np.array([[np.nan, 0.9, 0.8], [0.9, np.nan, 0.125], [0.8, 0.125, np.nan]])
    return WinMatrix.from_order_logits(z, label_mass=mass)


def test_the_label_mass_goes_with_its_pairs():
    matrix = with_mass()
    turned = matrix.permuted([2, 0, 1])
    assert turned.label_mass[0, 2] == np.float32(0.125) and turned.label_mass[1, 2] == np.float32(0.9)
    assert pickle.loads(pickle.dumps(matrix)).equals(matrix)  # noqa: S301
    assert not matrix.equals(replace(matrix, label_mass=None))
    assert np.array_equal(
        matrix.calibrated(TemperatureScaling(temperature=2.0)).label_mass, matrix.label_mass, equal_nan=True
    )
    with pytest.raises(ValueError, match="read-only"):
        matrix.label_mass[0, 1] = 0


@pytest.mark.parametrize(
    ("mass", "message"),
    [(np.full((3, 3), 1.5), "label_mass must lie in"), (np.triu(np.full((3, 3), 0.5)), "is not symmetric")],
)
def test_a_label_mass_that_cannot_be_is_refused(mass, message: str):
    with pytest.raises(RecordError, match=message):
        replace(with_mass(), label_mass=mass)


def test_the_reason_of_a_pair_goes_with_it():
    logits = np.zeros((3, 3))
    logits[0, 2] = np.nan
    matrix = WinMatrix.from_order_logits(logits, pair_errors={(0, 2): "it said maybe"})
    assert matrix.reason(0, 2) == matrix.reason(2, 0) == "it said maybe" and matrix.reason(0, 1) == ""
    for moved in (matrix.permuted([2, 1, 0]), matrix.subset([2, 0]).permuted([1, 0])):
        assert moved.reason(0, moved.size - 1) == "it said maybe"
    assert matrix.subset([0, 1]).pair_errors == {}
    twin = pickle.loads(pickle.dumps(matrix))  # noqa: S301
    assert twin.equals(matrix) and not twin.equals(WinMatrix.from_order_logits(logits))
    assert matrix.calibrated(TemperatureScaling(temperature=2.0)).reason(0, 2) == "it said maybe"
    inferred = np.array([[0.0, np.nan, 1.0], [np.nan, 0.0, np.nan], [-1.0, np.nan, 0.0]])
    assert matrix.with_inferred(inferred).reason(0, 2) == ""


@pytest.mark.parametrize("pair", [(0, 1), (2, 0), (0, 3), (-1, 2)])
def test_a_reason_of_a_pair_that_was_judged_or_is_none_is_refused(pair):
    logits = np.zeros((3, 3))
    logits[0, 2] = np.nan
    with pytest.raises(RecordError, match="pair_errors holds pairs"):
        WinMatrix.from_order_logits(logits, pair_errors={pair: "why"})
