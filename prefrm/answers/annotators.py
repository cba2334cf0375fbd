"""Annotators' reliability: how often each prefers the candidate that is truly preferred.

The model is that of Dawid and Skene ("Maximum likelihood estimation of observer error-rates using the EM
algorithm", Applied Statistics 28, 1979) with one parameter for each annotator: of the two candidates of a
pair one is truly preferred, and annotator k names it with probability q_k, in any presentation order and
independently of the others. Known pairs, repeated pairs and pairs that several people answered all inform q_k
through one likelihood: for n_a and n_b answers of annotator k to a pair,

    L(q) = w q^n_a (1 - q)^n_b + (1 - w) q^n_b (1 - q)^n_a,

where w is the probability that candidate a is truly preferred, from the answers of the others alone. q is
integrated on a grid, so that an interval is exact for given reliabilities of the others; these are iterated.
Ties and skipped pairs say nothing about q.

Shapes: N pairs that an annotator answered, Q points of the grid.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prefrm.answers.store import Answer
from prefrm.winmatrix import Doubles

__all__ = ["AnnotatorReport", "Share", "assess_annotators"]


GRID = np.linspace(0.005, 0.995, 199)
PRIOR = (GRID * (1 - GRID)) ** 0.5 * GRID
"""Beta(2.5, 1.5), unnormalised: mean 0.625. Its lean to the right decides which of two symmetric solutions is
meant where nobody's answers are known; a dozen known pairs outweigh it."""
ROUNDS = 100
TOLERANCE = 1e-6
CONFIDENCE = 0.95
FLOOR = 0.6
"""A reliability that is surely lower is too low, whatever that of the others."""
ONE_SIDED = 0.8
"""Sides are drawn for each pair, so that a share of answers for one of them that is surely larger is no
chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of answers: `count` of `total`."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """In [0, 1]; NaN of nothing."""
        return self.count / self.total if self.total else float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatorReport:
    """What an annotator's answers say about the annotator.

    Attributes:
        name: the annotator's.
        answers: number of answers, skipped pairs included.
        reliability: posterior mean of q, the probability of preferring what is truly preferred; 0.5 is
            chance.
        low: lower bound of its 95% credible interval.
        high: upper bound.
        known: known pairs answered as they are known, of those with a strict answer.
        repeats: repeated pairs answered as before, ties included.
        left: strict answers that prefer the candidate on the left.
        ties: answers that prefer neither, "both bad" included.
        skipped: pairs that were skipped.
        median_s: median response time in seconds; NaN without any.
        unreliable: `high` is below 0.6, or below the middle between chance and the median reliability of all
            annotators: the answers are surely closer to chance than those of most others. Or surely more
            than 80% of the strict answers prefer the same side.
    """

    name: str
    answers: int
    reliability: float
    low: float
    high: float
    known: Share
    repeats: Share
    left: Share
    ties: int
    skipped: int
    median_s: float
    unreliable: bool


Pair = tuple[str, str, str, str]
Votes = dict[Pair, list[int]]
"""Of one annotator: answers that prefer the pair's first digest, and its second."""


def assess_annotators(answers: Iterable[Answer]) -> list[AnnotatorReport]:
    """A report for each annotator, by name.

    Without known pairs, repeats or pairs that others answered too, the interval is that of the prior.
    """
    by_name: defaultdict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_name[answer.question.annotator].append(answer)
    votes = {name: _votes(given) for name, given in by_name.items()}
    posteriors = _fit(votes, _known_odds(by_name.values()))
    means = {name: float(posterior @ GRID) for name, posterior in posteriors.items()}
    threshold = max(FLOOR, (0.5 + float(np.median(list(means.values())))) / 2) if means else FLOOR
    return [
        _report(name, by_name[name], posteriors[name], means[name], threshold) for name in sorted(by_name)
    ]


def _fit(votes: Mapping[str, Votes], known: Mapping[Pair, float]) -> dict[str, Doubles]:
    """The posterior [Q] of each annotator's q, given the posterior means of the others."""
    log_odds = dict.fromkeys(votes, float(np.log(0.625 / 0.375)))
    posteriors: dict[str, Doubles] = {}
    for _ in range(ROUNDS):
        total: defaultdict[Pair, float] = defaultdict(float, known)
        for name, given in votes.items():
            for pair, (a, b) in given.items():
                total[pair] += (a - b) * log_odds[name]
        posteriors = {name: _posterior(given, total, log_odds[name]) for name, given in votes.items()}
        means = {name: float(posterior @ GRID) for name, posterior in posteriors.items()}
        updated = {name: float(np.log(mean / (1 - mean))) for name, mean in means.items()}
        change = max((abs(updated[name] - log_odds[name]) for name in votes), default=0.0)
        log_odds = updated
        if change < TOLERANCE:
            break
    return posteriors


def _posterior(given: Votes, total: Mapping[Pair, float], own: float) -> Doubles:
    a_N1, b_N1 = np.array(list(given.values()), np.float64).reshape(-1, 2, 1).swapaxes(0, 1)
    others_N1 = np.array([total[pair] for pair in given]).reshape(-1, 1) - (a_N1 - b_N1) * own
    log_right, log_wrong = np.log(GRID), np.log1p(-GRID)
    likelihood_NQ = np.logaddexp(
        -np.logaddexp(0.0, -others_N1) + a_N1 * log_right + b_N1 * log_wrong,
        -np.logaddexp(0.0, others_N1) + b_N1 * log_right + a_N1 * log_wrong,
    )
    return _normalized(np.log(PRIOR) + likelihood_NQ.sum(axis=0))


def _votes(answers: Sequence[Answer]) -> Votes:
    votes: defaultdict[Pair, list[int]] = defaultdict(lambda: [0, 0])
    for answer in answers:
        if (first := _prefers_first(answer)) is not None:
            votes[answer.question.pair][0 if first else 1] += 1
    return dict(votes)


def _prefers_first(answer: Answer) -> bool | None:
    """Whether a strict answer prefers the candidate with the lower digest; None of any other."""
    if not answer.is_strict:
        return None
    return (answer.verdict == "left") == (answer.question.left < answer.question.right)


def _known_odds(all_answers: Iterable[Sequence[Answer]]) -> dict[Pair, float]:
    """Log-odds that the first digest of a known pair is preferred."""
    odds = {}
    for answers in all_answers:
        for question in (answer.question for answer in answers):
            if question.known is not None:
                p = min(max(question.known, GRID[0]), GRID[-1])
                sign = 1.0 if question.left < question.right else -1.0
                odds[question.pair] = sign * float(np.log(p / (1 - p)))
    return odds


def _report(
    name: str, answers: Sequence[Answer], posterior: Doubles, mean: float, threshold: float
) -> AnnotatorReport:
    strict = [answer for answer in answers if answer.is_strict]
    known = [answer for answer in strict if answer.question.known not in (None, 0.5)]
    times = [answer.response_s for answer in answers if answer.response_s is not None]
    low, high = _interval(posterior)
    left = sum(answer.verdict == "left" for answer in strict)
    least, most = _interval(_of_share(left, len(strict)))
    return AnnotatorReport(
        name=name,
        answers=len(answers),
        reliability=mean,
        low=low,
        high=high,
        known=Share(count=sum(map(_is_right, known)), total=len(known)),
        repeats=_repeats(answers),
        left=Share(count=left, total=len(strict)),
        ties=sum(answer.p_left == 0.5 for answer in answers),
        skipped=sum(answer.verdict == "skip" for answer in answers),
        median_s=float(np.median(times)) if times else float("nan"),
        unreliable=high < threshold or least > ONE_SIDED or most < 1 - ONE_SIDED,
    )


def _interval(posterior: Doubles) -> tuple[float, float]:
    """The 95% credible interval of a distribution on the grid [Q]."""
    tails = np.searchsorted(np.cumsum(posterior), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    low, high = GRID[np.minimum(tails, len(GRID) - 1)]
    return float(low), float(high)


def _of_share(count: int, total: int) -> Doubles:
    """The posterior [Q] of a share of which `count` of `total` were seen, from a uniform prior."""
    return _normalized(count * np.log(GRID) + (total - count) * np.log1p(-GRID))


def _normalized(log_posterior: Doubles) -> Doubles:
    """The distribution [Q] with these logarithms, up to a constant."""
    posterior = np.exp(log_posterior - log_posterior.max())
    return np.asarray(posterior / posterior.sum())


def _is_right(answer: Answer) -> bool:
    assert answer.question.known is not None
    return (answer.verdict == "left") == (answer.question.known > 0.5)


def _repeats(answers: Sequence[Answer]) -> Share:
    """Repeated pairs with the same answer as the latest one before."""
    before: dict[Pair, float] = {}
    same = total = 0
    for answer in answers:
        if answer.p_left is None:
            continue
        in_order = answer.question.left < answer.question.right
        p_first = answer.p_left if in_order else 1 - answer.p_left
        if answer.question.purpose == "repeat" and answer.question.pair in before:
            same += before[answer.question.pair] == p_first
            total += 1
        before[answer.question.pair] = p_first
    return Share(count=same, total=total)
