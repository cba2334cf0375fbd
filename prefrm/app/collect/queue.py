"""The queue of pairs: which two candidates an annotator compares next.

A pair that has begun comes before a new one, so that what was asked of several people is answered by as many.
A new one is the pair from which most is learned: the largest `p (1 - p) Var(u_i - u_j)` of all groups, as a
budget of pairs chooses them inside one group (`prefrm.rewards.design`). p is the mean of the judges'
probabilities, so it is near 1/2 where they are uncertain or contradict each other, and the utilities'
covariance starts at a weak prior plus the covariance of the judges' own utilities. Each pair that is asked
shrinks it: the next one is rarely about the same candidates. So that annotators are measured, a share of the
pairs are known, and a share are ones that the annotator answered before, with the sides exchanged.

Knows no file, no image and no page. Not safe to use from several threads at once.

Shapes: K candidates of a group, J judges.
"""

import heapq
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np

from prefrm.answers import Purpose, Question, Verdict
from prefrm.errors import ConfigError
from prefrm.rewards.design import PRIOR_PRECISION, covariance_after, difference_variances
from prefrm.rewards.utilities import fit_utilities
from prefrm.winmatrix import Doubles, WinMatrix

__all__ = ["KnownPair", "Order", "PairQueue", "QueueSettings", "Showing"]

Order = Literal["informative", "random"]
# People's utilities are taken to be those of the judges within a standard deviation of one nat.
PEOPLE_PRECISION = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """How pairs are chosen.

    Attributes:
        annotators: how many people answer each pair.
        known: share of the pairs shown that are known ones, while there are any.
        repeats: share of the pairs shown that the annotator answered before.
        order: of new pairs: what is learned, or chance.
        gap: a pair is not repeated before this many others.
        lease_s: seconds after which a pair that was shown and not answered is shown to another annotator.
        seed: of what is left to chance.

    Raises:
        ConfigError: a value is out of range.
    """

    annotators: int = 1
    known: float = 0.05
    repeats: float = 0.05
    order: Order = "informative"
    gap: int = 20
    lease_s: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.annotators < 1:
            raise ConfigError(f"a pair is answered by at least 1 annotator; received {self.annotators}")
        if not (self.known >= 0 and self.repeats >= 0 and self.known + self.repeats < 1):
            raise ConfigError(
                "the shares of known and repeated pairs are at least 0 and leave something for new ones; "
                f"received {self.known} and {self.repeats}"
            )
        if self.order not in get_args(Order):
            raise ConfigError(f"the order is one of {', '.join(get_args(Order))}; received {self.order!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPair:
    """A pair whose answer is known.

    Attributes:
        group: id of its group.
        criterion: what the candidates are compared by.
        first: digest of a candidate.
        second: digest of another one.
        p: probability that `first` is preferred.
    """

    group: str
    criterion: str
    first: str
    second: str
    p: float

    @property
    def pair(self) -> tuple[str, str, str, str]:
        """As `Question.pair`."""
        return (self.group, self.criterion, min(self.first, self.second), max(self.first, self.second))


class Showing(NamedTuple):
    """A pair as it is shown next; the fields are those of `Question`."""

    group: str
    criterion: str
    left: str
    right: str
    purpose: Purpose
    known: float | None


Pair = tuple[str, str, str, str]
"""As `Question.pair`."""
GroupKey = tuple[str, str]
"""Id of a group and criterion."""


@dataclass(slots=True)
class _Asked:
    """A new pair that somebody was shown: who, since when, and who has answered or skipped it."""

    since: dict[str, float] = field(default_factory=dict)
    answered: set[str] = field(default_factory=set)
    skipped: set[str] = field(default_factory=set)

    def active(self, now: float, lease_s: float) -> int:
        """How many have answered, or may be about to."""
        waiting = self.since.keys() - self.answered - self.skipped
        return len(self.answered) + sum(now - self.since[name] < lease_s for name in waiting)


@dataclass(slots=True)
class _History:
    """What an annotator was shown.

    Attributes:
        shown: how many pairs.
        known: the known ones.
        answered: the new ones that were answered and not yet repeated, with `shown` at that time.
    """

    shown: int = 0
    known: set[Pair] = field(default_factory=set)
    answered: dict[Pair, tuple[int, Question]] = field(default_factory=dict)


class PairQueue:
    """Pairs of groups that are added one after another; known pairs are there from the start.

    Args:
        settings: how pairs are chosen.
        known: pairs whose answers are known.
    """

    def __init__(self, settings: QueueSettings, known: Sequence[KnownPair] = ()) -> None:
        self._settings = settings
        self._known = known
        self._rng = random.Random(settings.seed)
        self._groups: dict[GroupKey, _GroupPairs] = {}
        # (- what its best pair gains, the group), outdated entries too.
        self._heap: list[tuple[float, GroupKey]] = []
        self._asked: defaultdict[GroupKey, dict[Pair, _Asked]] = defaultdict(dict)
        self._begun: dict[Pair, _Asked] = {}
        self._histories: defaultdict[str, _History] = defaultdict(_History)

    def add(
        self,
        group: str,
        candidates: Sequence[str | None],
        matrices: Sequence[WinMatrix] = (),
        criterion: str = "",
    ) -> None:
        """Add the pairs of a group, or judge them anew; those that were asked before stay so.

        Args:
            group: its id.
            candidates: their digests [K]; None if one is missing. Equal ones are not compared.
            matrices: of each judge. Without any, every pair is as uncertain as can be.
            criterion: what the candidates are compared by.
        """
        key = (group, criterion)
        rng = self._rng if self._settings.order == "random" else None
        self._groups[key] = pairs = _GroupPairs(candidates, matrices, rng)
        for _, _, *both in self._asked[key]:
            pairs.take(*both)
        self._push(key)

    def next(self, annotator: str, now: float) -> Showing | None:
        """The pair that an annotator without an open question is shown at a Unix time; None if there is none.

        There may be one later: a pair that somebody else was shown and did not answer.
        """
        pair = self._new(annotator, now)
        if pair is None:
            return None
        history = self._histories[annotator]
        rng = random.Random(f"{self._settings.seed} {annotator} {history.shown}")
        kind = rng.random()
        if kind < self._settings.known:
            if unseen := [known for known in self._known if known.pair not in history.known]:
                return _known(rng.choice(unseen), swapped=rng.random() < 0.5)
        elif kind < self._settings.known + self._settings.repeats:
            latest = history.shown - self._settings.gap
            if old := [asked for number, asked in history.answered.values() if number <= latest]:
                return _repeat(rng.choice(old))
        group, criterion, first, second = pair
        left, right = (first, second) if rng.random() < 0.5 else (second, first)
        return Showing(group, criterion, left, right, "new", None)

    def shown(self, question: Question) -> None:
        """Take note that a question was asked, now or in an earlier session."""
        history = self._histories[question.annotator]
        history.shown += 1
        if question.purpose == "known":
            history.known.add(question.pair)
        elif question.purpose == "repeat":
            history.answered.pop(question.pair, None)
        else:
            key = (question.group, question.criterion)
            if question.pair not in self._asked[key]:
                self._asked[key][question.pair] = self._begun[question.pair] = _Asked()
                if key in self._groups:
                    self._groups[key].take(question.left, question.right)
                    self._push(key)
            self._asked[key][question.pair].since[question.annotator] = question.asked_at

    def answered(self, question: Question, verdict: Verdict) -> None:
        """Take note of the answer to a question that was `shown`."""
        if question.purpose != "new":
            return
        asked = self._asked[question.group, question.criterion][question.pair]
        if verdict == "skip":
            asked.skipped.add(question.annotator)
            return
        asked.answered.add(question.annotator)
        history = self._histories[question.annotator]
        history.answered[question.pair] = (history.shown, question)
        if len(asked.answered) >= self._settings.annotators:
            self._begun.pop(question.pair, None)

    def waiting(self, annotator: str) -> bool:
        """Whether a pair that others were shown may yet be one for this annotator."""
        return any(annotator not in asked.since for asked in self._begun.values())

    def progress(self) -> tuple[int, int]:
        """How many new pairs as many people have answered as are asked to, and how many pairs there are."""
        done = sum(
            len(asked.answered) >= self._settings.annotators
            for pairs in self._asked.values()
            for asked in pairs.values()
        )
        return done, sum(pairs.count for pairs in self._groups.values())

    def _new(self, annotator: str, now: float) -> Pair | None:
        """One that has begun and lacks an answer, or else the best of all others."""
        for pair, asked in self._begun.items():
            if annotator not in asked.since:
                active = asked.active(now, self._settings.lease_s)
                if active < self._settings.annotators:
                    return pair
        while self._heap:
            gain, (group, criterion) = self._heap[0]
            best = self._groups[group, criterion].best()
            if best is not None and -best[0] == gain:
                return (group, criterion, *best[1])
            heapq.heappop(self._heap)
        return None

    def _push(self, key: GroupKey) -> None:
        if best := self._groups[key].best():
            heapq.heappush(self._heap, (-best[0], key))


class _GroupPairs:
    """What is still to be learned about the pairs of a group."""

    def __init__(
        self, candidates: Sequence[str | None], matrices: Sequence[WinMatrix], rng: random.Random | None
    ) -> None:
        self._names = list(candidates)
        self._place = {name: n for n, name in enumerate(candidates) if name is not None}
        size = len(candidates)
        distinct = np.array([self._place.get(name or "") == n for n, name in enumerate(candidates)])
        self._free = np.triu(distinct[:, None] & distinct[None, :], 1)
        self.count = int(self._free.sum())
        self._weight_KK = _uncertainty(matrices, size)
        self._covariance_KK = _covariance(matrices, size)
        self._chance_KK = (
            None if rng is None else np.array([rng.random() for _ in range(size * size)]).reshape(size, size)
        )

    def best(self) -> tuple[float, tuple[str, str]] | None:
        """What the best pair that was not taken gains, and the pair, its digests in order."""
        if not self._free.any():
            return None
        gain_KK = self._weight_KK * difference_variances(self._covariance_KK)
        gain_KK = np.where(self._free, gain_KK if self._chance_KK is None else self._chance_KK, -1.0)
        i, j = divmod(int(gain_KK.argmax()), len(gain_KK))
        first, second = sorted(name for name in (self._names[i], self._names[j]) if name is not None)
        return float(gain_KK[i, j]), (first, second)

    def take(self, first: str, second: str) -> None:
        """The pair is asked: it is not free any more, and its candidates are better known."""
        if first not in self._place or second not in self._place:
            return
        i, j = sorted((self._place[first], self._place[second]))
        self._free[i, j] = False
        self._covariance_KK = covariance_after(self._covariance_KK, i, j, float(self._weight_KK[i, j]))


def _uncertainty(matrices: Sequence[WinMatrix], size: int) -> Doubles:
    """p (1 - p) of the judges' mean [K, K]; where nobody judged, p is as uncertain as can be."""
    votes_KK = np.sum([np.where(m.valid, m.p, 0.0) for m in matrices], axis=0) if matrices else np.zeros(())
    count_KK = np.sum([m.valid for m in matrices], axis=0) if matrices else np.zeros((size, size))
    p_KK = np.where(count_KK > 0, votes_KK / np.maximum(count_KK, 1), 0.5)
    return np.asarray(p_KK * (1 - p_KK), np.float64)


def _covariance(matrices: Sequence[WinMatrix], size: int) -> Doubles:
    """Of people's utilities around those of the judges [K, K]."""
    covariance_KK = np.eye(size) / PEOPLE_PRECISION
    if len(matrices) < 2:
        return covariance_KK
    others = ~np.eye(size, dtype=bool)
    u_JK = [
        fit_utilities(np.where(m.valid, m.p, 0.5).astype(np.float64), m.valid & others, PRIOR_PRECISION)
        for m in matrices
    ]
    return np.asarray(covariance_KK + np.cov(u_JK, rowvar=False))


def _known(known: KnownPair, *, swapped: bool) -> Showing:
    if swapped:
        return Showing(known.group, known.criterion, known.second, known.first, "known", 1 - known.p)
    return Showing(known.group, known.criterion, known.first, known.second, "known", known.p)


def _repeat(asked: Question) -> Showing:
    return Showing(asked.group, asked.criterion, asked.right, asked.left, "repeat", None)
