"""Groups, win matrices and the protocol between them. Numpy only.

What happens to a matrix afterwards (advantages, pairs, rankings) lives in `prefrm.rewards`.

Shapes: K candidates of a group.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError, IncompleteMatrixError, ProtocolError, RecordError

__all__ = [
    "FakeScorer",
    "Group",
    "OnMissing",
    "Scorer",
    "WinMatrix",
    "check_answer",
    "check_on_missing",
    "temper_ties",
]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
OnMissing = Literal["raise", "drop"]
_ARRAYS = ("p", "valid", "tie", "order_gap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A prompt and its K >= 2 candidates, each the bytes of an encoded image or None if it is missing."""

    prompt: str
    images: tuple[bytes | None, ...]

    def __post_init__(self) -> None:
        if len(self.images) < 2:
            raise RecordError(
                f"a group needs at least 2 candidates; received {len(self.images)} "
                f"for the prompt {self.prompt[:60]!r}"
            )

    @property
    def size(self) -> int:
        """K, the group size."""
        return len(self.images)

    def permuted(self, order: Sequence[int]) -> "Group":
        """The same group with candidate `order[n]` in place n."""
        return Group(prompt=self.prompt, images=tuple(self.images[i] for i in _permutation(order, self.size)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WinMatrix:
    """What a judge says of a group's pairs. Every array is read-only.

    Attributes:
        p: float32 [K, K]; `p[i, j]` is P(candidate i beats candidate j), a tie counting half to each.
            `p[i, j] + p[j, i] == 1` and `p[i, i] == 0.5`, exactly. NaN where the pair was not judged.
        valid: bool [K, K]; whether the pair was judged. A missing candidate is invalid on its diagonal too.
        tie: float32 [K, K], symmetric; P(tie), NaN where the judge does not model ties or the pair was not
            judged.
        order_gap: float32 [K, K], symmetric; `|P(i beats j | i shown first) - P(i beats j | j shown first)|`,
            0 on the diagonal, NaN where not judged or where the judge has no presentation order.
        errors: length K; why a candidate could not be judged, "" where it could.
    """

    p: Floats
    valid: Bools
    tie: Floats
    order_gap: Floats
    errors: tuple[str, ...]

    def __post_init__(self) -> None:
        shape = (len(self.errors), len(self.errors))
        for name, dtype in (
            ("p", np.float32),
            ("valid", np.bool_),
            ("tie", np.float32),
            ("order_gap", np.float32),
        ):
            array = np.array(getattr(self, name), dtype=dtype)
            if array.shape != shape:
                raise RecordError(
                    f"{name} has shape {list(array.shape)}; {len(self.errors)} candidates need {list(shape)}"
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self._check()

    def _check(self) -> None:
        if not np.array_equal(self.valid, self.valid.T):
            raise RecordError("valid is not symmetric: a pair is judged in both directions or in none")
        if not np.array_equal(~np.isnan(self.p), self.valid):
            raise RecordError("p must be a number exactly where valid is true, and NaN elsewhere")
        p = self.p[self.valid]
        if np.any((p < 0) | (p > 1)) or np.any(p + self.p.T[self.valid] != 1):
            raise RecordError("p must lie in [0, 1] with p[i, j] + p[j, i] == 1 exactly")
        usable = np.array([not error for error in self.errors])
        if not np.array_equal(self.valid.diagonal(), usable) or self.valid[~usable].any():
            raise RecordError("valid must be false all along the row of a candidate with an error")
        for name in ("tie", "order_gap"):
            values = getattr(self, name)
            if not np.all(np.isnan(values) | (self.valid & (values >= 0) & (values <= 1))):
                raise RecordError(f"{name} must lie in [0, 1] where a pair was judged, or be NaN")
            if not np.array_equal(values, values.T, equal_nan=True):
                raise RecordError(f"{name} is not symmetric: it is one number for each pair")
        if np.any(self.order_gap.diagonal() > 0):
            raise RecordError("order_gap must be 0 on the diagonal: a candidate meets itself in one order")

    @classmethod
    def from_order_logits(
        cls,
        logits: npt.NDArray[np.floating],
        *,
        errors: Sequence[str] | None = None,
        tie: npt.NDArray[np.floating] | None = None,
        order_free: bool = False,
    ) -> "WinMatrix":
        """Build a matrix from the log-odds of each presentation order; the only place where they are merged.

        Args:
            logits: [K, K]; `logits[i, j]` is the log-odds that candidate i beats candidate j when i is
                shown first. The diagonal is ignored; a pair with a non-finite entry is not judged.
            errors: why a candidate could not be judged; such a candidate has no valid pair.
            tie: [K, K] P(tie), or None if the judge does not model ties.
            order_free: the judge has no presentation order (`logits` is skew-symmetric), hence no order gap.

        Raises:
            RecordError: `logits`, `errors` and `tie` are not of one group size, or `tie` is out of range
                or not symmetric.

        The two orders are averaged in logit space. The larger side of each pair is computed and the
        smaller one is its complement, which float32 holds exactly: so p + p.T is exactly 1, and a
        permutation of the candidates permutes the matrix to the last bit.
        """
        z = np.array(logits, dtype=np.float64)
        reasons = tuple(errors) if errors is not None else ("",) * len(z)
        for name, array in (("logits", z), ("tie", z if tie is None else tie)):
            if np.shape(array) != (len(reasons), len(reasons)):
                raise RecordError(
                    f"{name} has shape {list(np.shape(array))}; "
                    f"{len(reasons)} candidates need {[len(reasons)] * 2}"
                )
        usable = np.array([not reason for reason in reasons])
        np.fill_diagonal(z, 0.0)
        valid = np.isfinite(z) & np.isfinite(z.T) & usable[:, None] & usable[None, :]
        z = np.where(valid, z, 0.0)
        merged = z / 2 - z.T / 2
        high = _sigmoid(np.abs(merged)).astype(np.float32)
        p = np.where(merged >= 0, high, np.float32(1) - high)
        gap = np.full(z.shape, np.nan) if order_free else np.abs(_sigmoid(z) - _sigmoid(-z.T))
        # The same number from either side, but for rounding.
        gap = np.maximum(gap, gap.T)
        if order_free:
            np.fill_diagonal(gap, 0.0)
        return cls(
            p=_masked(p, valid),
            valid=valid,
            tie=_masked(np.full(z.shape, np.nan) if tie is None else np.asarray(tie), valid),
            order_gap=_masked(gap, valid),
            errors=reasons,
        )

    @classmethod
    def missing(cls, errors: Sequence[str]) -> "WinMatrix":
        """A matrix in which nothing was judged; `errors` holds each candidate's reason."""
        size = len(errors)
        return cls.from_order_logits(np.full((size, size), np.nan), errors=errors)

    @property
    def size(self) -> int:
        """K, the group size."""
        return len(self.errors)

    @property
    def judged(self) -> Bools:
        """bool [K]: whether the candidate has at least one valid opponent."""
        return np.asarray(self._opponents().any(axis=1))

    def reason(self, i: int, j: int) -> str:
        """Why the pair (i, j) was not judged; "" if it was."""
        if self.valid[i, j]:
            return ""
        return self.errors[i] or self.errors[j] or "the judge gave no finite answer for this pair"

    def win_rate(self, *, hard: bool = False, on_missing: OnMissing = "raise") -> Floats:
        """The mean of each candidate's row over its valid opponents: float32 [K] in [0, 1].

        Args:
            hard: count p > 0.5 as a win and p == 0.5 as half a win, instead of averaging p.
            on_missing: "raise" refuses a matrix with any invalid pair; "drop" averages over the valid
                opponents and gives NaN to a candidate that has none.

        Raises:
            IncompleteMatrixError: a pair is invalid and `on_missing` is "raise".
        """
        self.require_complete(on_missing)
        opponents = self._opponents()
        score = (np.sign(self.p - np.float32(0.5)) + 1) / 2 if hard else self.p
        wins = np.where(opponents, score, 0).sum(axis=1, dtype=np.float64)
        count = opponents.sum(axis=1)
        return np.where(count > 0, wins / np.maximum(count, 1), np.nan).astype(np.float32)

    def require_complete(self, on_missing: OnMissing = "raise") -> None:
        """Raise `IncompleteMatrixError` that names the first invalid pair, unless `on_missing` is "drop"."""
        check_on_missing(on_missing)
        bad = np.argwhere(~self.valid)
        if len(bad) and on_missing == "raise":
            i, j = (int(x) for x in bad[0])
            raise IncompleteMatrixError(
                f"{len(bad)} of {self.size**2} entries were not judged; ({i}, {j}): {self.reason(i, j)}; "
                'pass on_missing="drop" to use the judged pairs only'
            )

    def permuted(self, order: Sequence[int]) -> "WinMatrix":
        """The matrix of the group in which candidate `order[n]` stands in place n."""
        return self.subset(_permutation(order, self.size))

    def subset(self, candidates: Sequence[int]) -> "WinMatrix":
        """The matrix of these candidates alone, in the order given.

        Raises:
            RecordError: none is named, or one is named twice (it would tie with itself) or does not exist.
        """
        if not len(candidates):
            raise RecordError("a matrix has at least one candidate; none was named")
        if len(set(candidates)) < len(candidates) or not set(candidates) <= set(range(self.size)):
            raise RecordError(f"{list(candidates)} are not different candidates of 0..{self.size - 1}")
        index = np.ix_(candidates, candidates)
        return WinMatrix(
            p=self.p[index],
            valid=self.valid[index],
            tie=self.tie[index],
            order_gap=self.order_gap[index],
            errors=tuple(self.errors[i] for i in candidates),
        )

    def equals(self, other: "WinMatrix") -> bool:
        """Whether every bit agrees, NaN with NaN included."""
        return self.errors == other.errors and all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name != "valid")
            for name in _ARRAYS
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor: a copy that numpy made of an array would be writable.
        return _rebuilt, (self.p, self.valid, self.tie, self.order_gap, self.errors)

    def _opponents(self) -> Bools:
        return self.valid & ~np.eye(self.size, dtype=bool)


@runtime_checkable
class Scorer(Protocol):
    """Anything that judges groups: the local engine, a remote client, `FakeScorer`."""

    def score(self, groups: Sequence[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order. Raises `ScoringError` when it cannot answer at all."""
        ...


class FakeScorer:
    """A scorer without a model, for tests and examples: Bradley-Terry over a utility that you supply.

    Args:
        utility: maps (prompt, encoded image) to a real number; candidate i beats j with probability
            sigmoid(utility_i - utility_j). A `ValueError` that it raises makes the candidate missing.
        first_bonus: log-odds that the candidate shown first gains; it cancels in p and shows in order_gap.
    """

    def __init__(self, utility: Callable[[str, bytes], float], *, first_bonus: float = 0.0) -> None:
        self._utility = utility
        self._first_bonus = first_bonus

    def score(self, groups: Iterable[Group]) -> list[WinMatrix]:
        """One matrix for each group, in order."""
        return [self._score(group) for group in groups]

    def _score(self, group: Group) -> WinMatrix:
        judged = [self._judge(group.prompt, image) for image in group.images]
        u = np.array([utility for utility, _ in judged])
        logits = u[:, None] - u[None, :] + self._first_bonus
        return WinMatrix.from_order_logits(logits, errors=[error for _, error in judged])

    def _judge(self, prompt: str, image: bytes | None) -> tuple[float, str]:
        if not image:
            return math.nan, "the candidate is missing"
        try:
            utility = self._utility(prompt, image)
        except ValueError as error:
            return math.nan, str(error)
        return (utility, "") if math.isfinite(utility) else (math.nan, f"the utility is {utility}")


def temper_ties(
    tie: npt.NDArray[np.floating], log_odds: npt.NDArray[np.floating], temperature: float
) -> npt.NDArray[np.float64]:
    """P(tie) where log-odds are divided by a temperature, which was fitted on who wins.

    A tie counts half to each, so P(tie) is at most twice the smaller of p and 1 - p. It keeps the share of
    that bound which it has; what is beyond the bound, because two orders were averaged, is cut.

    Args:
        tie: P(tie) of each pair, symmetric; NaN stays NaN.
        log_odds: of p, both presentation orders merged: skew-symmetric.
        temperature: > 0; 1 only cuts.
    """
    distance = np.abs(np.asarray(log_odds, dtype=np.float64))
    share = np.minimum(np.asarray(tie, dtype=np.float64) / (2 * _sigmoid(-distance)), 1.0)
    return np.asarray(share * 2 * _sigmoid(-distance / temperature))


def check_on_missing(on_missing: str) -> None:
    """Raise `ConfigError` unless it says what `OnMissing` allows."""
    if on_missing not in get_args(OnMissing):
        raise ConfigError(f'on_missing must be "raise" or "drop"; received {on_missing!r}')


def check_answer(matrices: Sequence[WinMatrix], groups: Sequence[Group]) -> None:
    """Raise `ProtocolError` unless a scorer gave each group one matrix, of its size."""
    received, wanted = [matrix.size for matrix in matrices], [group.size for group in groups]
    if received != wanted:
        raise ProtocolError(
            f"the scorer was given groups of {wanted} candidates and answered with matrices of {received}"
        )


def _rebuilt(p: Floats, valid: Bools, tie: Floats, order_gap: Floats, errors: tuple[str, ...]) -> WinMatrix:
    return WinMatrix(p=p, valid=valid, tie=tie, order_gap=order_gap, errors=errors)


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # exp of a non-positive number only, so nothing overflows.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def _masked(values: npt.NDArray[np.floating], valid: Bools) -> Floats:
    return np.where(valid, values, np.nan).astype(np.float32)


def _permutation(order: Sequence[int], size: int) -> Sequence[int]:
    if sorted(order) != list(range(size)):
        raise RecordError(f"{list(order)} is not a permutation of 0..{size - 1}")
    return order
