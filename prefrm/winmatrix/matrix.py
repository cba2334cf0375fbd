"""The win matrix: what a judge says of a group's pairs, and what follows from that without another word.

Shapes: K candidates of a group.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from prefrm.errors import ConfigError, IncompleteMatrixError, RecordError
from prefrm.winmatrix.calibration import CalibrationMap
from prefrm.winmatrix.group import check_permutation
from prefrm.winmatrix.probabilities import (
    LARGEST_LOG_ODDS,
    calibrate_ties,
    half_difference,
    logit,
    shown_log_odds,
    sigmoid,
    win_probabilities,
)

__all__ = ["Bools", "Floats", "OnMissing", "WinMatrix", "check_on_missing"]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
OnMissing = Literal["raise", "drop"]
_ARRAYS: dict[str, Any] = {"p": np.float32, "valid": np.bool_, "tie": np.float32, "order_gap": np.float32}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WinMatrix:
    """What a judge says of a group's pairs, and what follows from that for others. Every array is read-only.

    A pair of candidates is *judged*, or it was not and its p was *inferred* from pairs that were, or it is
    neither. Only a judged pair has a tie and an order gap.

    Attributes:
        p: float32 [K, K]; `p[i, j]` is P(candidate i beats candidate j), a tie counting half to each.
            `p[i, j] + p[j, i] == 1` and `p[i, i] == 0.5`, exactly. NaN where neither judged nor inferred.
        valid: bool [K, K]; whether the pair was judged. A missing candidate is invalid on its diagonal too.
        tie: float32 [K, K], symmetric; P(tie), NaN where the judge does not model ties or the pair was not
            judged.
        order_gap: float32 [K, K], symmetric; `|P(i beats j | i shown first) - P(i beats j | j shown first)|`,
            0 on the diagonal, NaN where not judged or where the judge has no presentation order.
        errors: length K; why a candidate could not be judged, "" where it could. With an error, no pair of
            the candidate is judged or inferred.
        spread: float32 [K, K], symmetric: of an ensemble, the standard deviation of its members' p, 0 on the
            diagonal and NaN where not judged. None of a single judge.
    """

    p: Floats
    valid: Bools
    tie: Floats
    order_gap: Floats
    errors: tuple[str, ...]
    spread: Floats | None = None

    def __post_init__(self) -> None:
        shape = (len(self.errors), len(self.errors))
        arrays = _ARRAYS if self.spread is None else {**_ARRAYS, "spread": np.float32}
        for name, dtype in arrays.items():
            array = np.array(getattr(self, name), dtype=dtype)
            if array.shape != shape:
                raise RecordError(
                    f"{name} has shape {list(array.shape)}; {len(self.errors)} candidates need {list(shape)}"
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self._check()

    def _check(self) -> None:
        # Every answer of a server goes through here twice, so it takes few operations.
        known, valid = self.known, self.valid
        if not _symmetric(valid):
            raise RecordError("valid is not symmetric: a pair is judged in both directions or in none")
        if (valid > known).any():
            raise RecordError("p must be a number wherever valid is true")
        inside = (self.p >= 0) & (self.p <= 1)
        # The sum would be rounded to 1; of the difference, the one from the larger side is exact.
        if (inside != known).any() or ((self.p == 1 - self.p.T) != known).any():
            raise RecordError("p must lie in [0, 1] with p[i, j] + p[j, i] == 1 exactly, or be NaN")
        usable = np.array([not error for error in self.errors])
        if (valid.diagonal() != usable).any() or (known > usable[:, None]).any():
            raise RecordError(
                "all along the row of a candidate with an error valid must be false and p NaN, "
                "and valid true on the diagonal of any other"
            )
        shares = {"tie": self.tie, "order_gap": self.order_gap}
        if self.spread is not None:
            shares["spread"] = self.spread
        for name, values in shares.items():
            _check_shares(name, np.where(valid | np.isnan(values), values, np.inf))
        if (self.order_gap.diagonal() > 0).any():
            raise RecordError("order_gap must be 0 on the diagonal: a candidate meets itself in one order")

    @classmethod
    def from_order_logits(
        cls,
        logits: npt.NDArray[np.floating],
        *,
        errors: Sequence[str] | None = None,
        tie: npt.NDArray[np.floating] | None = None,
        order_free: bool = False,
        calibration: CalibrationMap | None = None,
    ) -> "WinMatrix":
        """Build a matrix from the log-odds of each presentation order, which are merged here alone.

        A calibration f is applied here as well (and in `with_inferred`). The orders' log-odds m + d and m - d
        become f(m) + f(d) and f(m) - f(d): p is that of f(m), whether the orders agree (|d| < |m|) does not
        change, and one calibration after another is their composition. Log-odds count up to 16.6, which
        float32 probabilities show and calibrations are fitted to.

        Args:
            logits: [K, K]; `logits[i, j]` is the log-odds that candidate i beats candidate j when i is
                shown first. The diagonal is ignored; a pair with a non-finite entry is not judged.
            errors: why a candidate could not be judged; such a candidate has no valid pair.
            tie: [K, K] P(tie) of both orders together, before calibration, of which at most 2 min(p, 1 - p)
                counts; None if the judge does not model ties.
            order_free: the judge has no presentation order (`logits` is skew-symmetric), hence no order gap.
            calibration: of the log-odds; None leaves them as they are.

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
        ties = None if tie is None else np.asarray(tie)[None]
        if ties is not None:
            _check_shares("tie", ties[0])
        (matrix,) = cls._of_groups(z[None], [reasons], ties, order_free, calibration)
        # The rest is as it must be by how it was computed.
        return matrix

    @classmethod
    def all_from_order_logits(
        cls, logits: npt.NDArray[np.floating], *, order_free: bool = False
    ) -> list["WinMatrix"]:
        """What `from_order_logits` makes of each of several groups of one size, [B, K, K], in one go."""
        z = np.array(logits, dtype=np.float64)
        if z.ndim != 3 or z.shape[1] != z.shape[2]:
            raise RecordError(f"logits must have the shape [B, K, K]; received {list(z.shape)}")
        return cls._of_groups(z, [("",) * z.shape[1]] * len(z), None, order_free)

    @classmethod
    def _of_groups(
        cls,
        z: npt.NDArray[np.float64],
        errors: Sequence[tuple[str, ...]],
        ties: npt.NDArray[Any] | None,
        order_free: bool,
        calibration: CalibrationMap | None = None,
    ) -> list["WinMatrix"]:
        """Matrices of B groups of one size: of their log-odds [B, K, K], which are changed, and P(tie)."""
        diagonals = np.s_[:, :: z.shape[1] + 1]
        z.reshape(len(z), -1)[diagonals] = 0.0
        finite = np.isfinite(z)
        valid = finite & finite.swapaxes(1, 2)
        for b, reasons in enumerate(errors):
            if any(reasons):
                usable = np.array([not reason for reason in reasons])
                valid[b] &= usable[:, None] & usable[None, :]
        z = np.where(valid, z, 0.0)
        back = z.swapaxes(1, 2)
        mean = merged = z / 2 - back / 2
        if calibration is not None:
            merged, apart = shown_log_odds(merged, z / 2 + back / 2)
            mean = calibration.apply(merged)
            z = mean + calibration.apply(apart)
            back = z.swapaxes(1, 2)
        gap = np.full(z.shape, np.nan) if order_free else np.abs(sigmoid(z) - sigmoid(-back))
        # The same number from either side, but for rounding.
        gap = np.maximum(gap, gap.swapaxes(1, 2))
        if order_free:
            gap.reshape(len(z), -1)[diagonals] = 0.0
        tie = np.full(z.shape, np.nan) if ties is None else calibrate_ties(ties, merged, mean)
        p, order_gap, tie = (_masked(values, valid) for values in (win_probabilities(mean), gap, tie))
        return [
            cls._unchecked(p=p[b], valid=valid[b], tie=tie[b], order_gap=order_gap[b], errors=reasons)
            for b, reasons in enumerate(errors)
        ]

    @classmethod
    def _unchecked(cls, *, errors: tuple[str, ...], **arrays: npt.NDArray[Any]) -> "WinMatrix":
        """A matrix of new arrays of the right types and shapes: an engine builds one for each group."""
        matrix = object.__new__(cls)
        for name, array in arrays.items():
            array.flags.writeable = False
            object.__setattr__(matrix, name, array)
        object.__setattr__(matrix, "errors", errors)
        object.__setattr__(matrix, "spread", None)
        return matrix

    @classmethod
    def missing(cls, errors: Sequence[str]) -> "WinMatrix":
        """A matrix in which nothing was judged; `errors` holds each candidate's reason."""
        size = len(errors)
        return cls.from_order_logits(np.full((size, size), np.nan), errors=errors)

    def with_inferred(
        self, log_odds: npt.NDArray[np.floating], *, calibration: CalibrationMap | None = None
    ) -> "WinMatrix":
        """The matrix whose gaps are filled: p = sigmoid(log_odds) where a pair was not judged.

        Args:
            log_odds: [K, K], skew-symmetric; finite where judged pairs say how an unjudged one would go,
                anything but finite where they do not. Entries of judged pairs, and of candidates with an
                error, are ignored.
            calibration: applied to `log_odds`; None leaves them as they are.

        Raises:
            RecordError: `log_odds` has another shape or is not skew-symmetric.
        """
        z = np.array(log_odds, dtype=np.float64)
        if z.shape != self.p.shape:
            raise RecordError(
                f"log_odds has shape {list(z.shape)}; {self.size} candidates need {list(self.p.shape)}"
            )
        if not np.array_equal(z, -z.T, equal_nan=True):
            raise RecordError("log_odds is not skew-symmetric: log_odds[j, i] must be -log_odds[i, j]")
        usable = self.valid.diagonal()
        fill = np.isfinite(z) & ~self.valid & usable[:, None] & usable[None, :]
        z = np.where(fill, z, 0.0)
        if calibration is not None:
            z = calibration.apply(np.clip(z, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))
        return replace(self, p=np.where(fill, win_probabilities(z), self.p))

    def calibrated(self, calibration: CalibrationMap) -> "WinMatrix":
        """The matrix that the judge would have given with `calibration` applied to its log-odds.

        The log-odds of both presentation orders follow from p and the order gap, so this needs no scorer.
        Where the judge has a calibration of its own, `calibration` comes after it.

        `spread` stays that of the members. Exact up to the precision of float32 probabilities.
        """
        mean = logit(self.p.astype(np.float64))
        order_free = bool(np.isnan(self.order_gap[self.valid & ~np.eye(self.size, dtype=bool)]).any())
        # Which order favours the first image is not kept, nor needed: p and the gap are the same for either.
        z = mean + half_difference(mean, np.nan_to_num(self.order_gap.astype(np.float64)))
        judged = WinMatrix.from_order_logits(
            np.where(self.valid, z, np.nan),
            errors=self.errors,
            tie=self.tie,
            order_free=order_free,
            calibration=calibration,
        )
        whole = judged.with_inferred(np.where(self.inferred, mean, np.nan), calibration=calibration)
        return whole if self.spread is None else replace(whole, spread=self.spread)

    @property
    def size(self) -> int:
        """K, the group size."""
        return len(self.errors)

    @property
    def known(self) -> Bools:
        """bool [K, K]: whether the pair was judged or its p inferred."""
        return np.asarray(~np.isnan(self.p))

    @property
    def inferred(self) -> Bools:
        """bool [K, K]: whether p was inferred from other pairs that were judged."""
        return self.known & ~self.valid

    @property
    def judged(self) -> Bools:
        """bool [K]: whether the candidate was compared, having at least one known opponent."""
        return np.asarray(self._opponents().any(axis=1))

    def reason(self, i: int, j: int) -> str:
        """Why the pair (i, j) was neither judged nor inferred; "" if it was."""
        if self.known[i, j]:
            return ""
        silence = "the judge gave no finite answer for this pair"
        if self.inferred.any():
            silence = "this pair was not judged, and no chain of judged pairs connects the two"
        return self.errors[i] or self.errors[j] or silence

    def win_rate(self, *, hard: bool = False, on_missing: OnMissing = "raise") -> Floats:
        """The mean of each candidate's row over its known opponents: float32 [K] in [0, 1].

        An inferred p counts like a judged one: the mean over a budget's few judged opponents alone would
        say more of who they happen to be than of the candidate.

        Args:
            hard: count p > 0.5 as a win and p == 0.5 as half a win, instead of averaging p.
            on_missing: "raise" refuses a matrix with a pair that is neither judged nor inferred; "drop"
                averages over the known opponents and gives NaN to a candidate that has none.

        Raises:
            IncompleteMatrixError: a pair is neither judged nor inferred and `on_missing` is "raise".
        """
        self.require_complete(on_missing)
        opponents = self._opponents()
        score = (np.sign(self.p - np.float32(0.5)) + 1) / 2 if hard else self.p
        wins = np.where(opponents, score, 0).sum(axis=1, dtype=np.float64)
        count = opponents.sum(axis=1)
        return np.where(count > 0, wins / np.maximum(count, 1), np.nan).astype(np.float32)

    def require_complete(self, on_missing: OnMissing = "raise") -> None:
        """Raise `IncompleteMatrixError` naming the first pair that is neither judged nor inferred.

        Not if `on_missing` is "drop".
        """
        check_on_missing(on_missing)
        if on_missing == "drop" or self.known.all():
            return
        bad = np.argwhere(~self.known)
        if len(bad):
            i, j = (int(x) for x in bad[0])
            raise IncompleteMatrixError(
                f"{len(bad)} of {self.size**2} entries were not judged; ({i}, {j}): {self.reason(i, j)}; "
                'pass on_missing="drop" to use the other pairs only'
            )

    def permuted(self, order: Sequence[int]) -> "WinMatrix":
        """The matrix of the group in which candidate `order[n]` stands in place n."""
        return self.subset(check_permutation(order, self.size))

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
            spread=None if self.spread is None else self.spread[index],
        )

    def equals(self, other: "WinMatrix") -> bool:
        """Whether every bit agrees, NaN with NaN included."""
        if self.errors != other.errors or (self.spread is None) != (other.spread is None):
            return False
        same = all(
            np.array_equal(getattr(self, name), getattr(other, name), equal_nan=name != "valid")
            for name in _ARRAYS
        )
        if self.spread is None or other.spread is None:
            return same
        return same and np.array_equal(self.spread, other.spread, equal_nan=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # Through the constructor: a copy that numpy made of an array would be writable.
        return _rebuilt, (self.p, self.valid, self.tie, self.order_gap, self.errors, self.spread)

    def _opponents(self) -> Bools:
        opponents = self.known
        opponents.flat[:: self.size + 1] = False
        return opponents


def check_on_missing(on_missing: str) -> None:
    """Raise `ConfigError` unless it says what `OnMissing` allows."""
    if on_missing not in get_args(OnMissing):
        raise ConfigError(f'on_missing must be "raise" or "drop"; received {on_missing!r}')


def _check_shares(name: str, values: npt.NDArray[Any]) -> None:
    """Raise `RecordError` unless `values` [K, K] are one share for each pair, or NaN."""
    if not (np.isnan(values) | ((values >= 0) & (values <= 1))).all():
        raise RecordError(f"{name} must lie in [0, 1] where a pair was judged, or be NaN")
    if not _symmetric(values):
        raise RecordError(f"{name} is not symmetric: it is one number for each pair")


def _symmetric(array: npt.NDArray[Any]) -> bool:
    """Whether an array equals its transpose, NaN with NaN included; the same bits are so at little cost."""
    return array.tobytes() == array.T.tobytes() or np.array_equal(
        array, array.T, equal_nan=array.dtype != np.bool_
    )


def _rebuilt(
    p: Floats, valid: Bools, tie: Floats, order_gap: Floats, errors: tuple[str, ...], spread: Floats | None
) -> WinMatrix:
    return WinMatrix(p=p, valid=valid, tie=tie, order_gap=order_gap, errors=errors, spread=spread)


def _masked(values: npt.NDArray[np.floating], valid: Bools) -> Floats:
    return np.where(valid, values, np.nan).astype(np.float32)
