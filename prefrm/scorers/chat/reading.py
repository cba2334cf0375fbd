"""From the answers to one question to log-odds or a utility, and what tells how far to trust it.

An answer's own words say where its label stands; where the endpoint returns log-probabilities, those of that
token are read instead of the word. Shapes: L labels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prefrm.errors import ProtocolError
from prefrm.scorers.chat.dialects import Dialect
from prefrm.scorers.chat.parsing import Unreadable, Verdict, spellings
from prefrm.winmatrix.probabilities import LARGEST_LOG_ODDS, sigmoid

__all__ = ["Bounds", "Reading", "read_answers", "read_choice", "without_tie"]

CERTAIN_TIE = 0.99
"""P(tie) from which it does not matter who would win without one: P(first is better) is 0.5 within 0.005."""
SHOWN = 200
"""Characters of an answer that a reason quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What makes a reading valid: the least mass of the labels, and the least share of readable samples."""

    min_mass: float
    min_read: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the answers to one question say.

    Attributes:
        value: of a pair, the log-odds that the image shown first is better; of one image, its utility. NaN
            where it could not be read.
        tie: P(neither is better); None where the dialect has no tie.
        mass: probability of all labels together where they were read; NaN without log-probabilities.
        agreement: share of the readable samples that have the outcome of most; NaN if there is none.
        unread: share of the samples that could not be read.
        scores: of a pair, the log-odds in each dimension that the judge states.
        reason: why there is no value; "" if there is one.
    """

    value: float
    tie: float | None = None
    mass: float = math.nan
    agreement: float = math.nan
    unread: float = 0.0
    scores: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One answer: log-odds or utility, infinite where the text alone names the outcome."""

    value: float
    outcome: int
    tie: float | None = None
    mass: float = math.nan
    scores: Mapping[str, float] = field(default_factory=dict)


def without_tie(dialect: Dialect, choice: Mapping[str, Any]) -> str | None:
    """The start of an answer that names a winner where this one names a tie; None if it names none.

    Raises:
        ProtocolError: the choice is not one of a chat completion.
    """
    text, tokens = read_choice(choice)
    if dialect.tie is None or dialect.opening is None or not tokens:
        return None
    try:
        verdict = dialect.parser(text)
    except Unreadable:
        return None
    return text[: verdict.opening] + dialect.opening if verdict.label == 2 else None


def read_answers(
    dialect: Dialect,
    choices: Sequence[Mapping[str, Any]],
    bounds: Bounds,
    untied: Mapping[str, Mapping[str, Any]] | None = None,
) -> Reading:
    """The reading of all `choices` of a chat completion.

    Samples are averaged in probability. Where a text alone names the outcome, k wins of n count as
    (k + 1/2) / (n + 1), the mean under Jeffreys' prior: no number of samples makes a judge certain.

    `untied` has the choices that continue the starts of answers that `without_tie` gives: who would win if
    it were not a tie. Where it is not known, a tie that is less than certain cannot be read.

    Raises:
        ProtocolError: a choice is not one of a chat completion.
    """
    samples: list[_Sample] = []
    unread: list[str] = []
    for choice in choices:
        text, tokens = read_choice(choice)
        try:
            samples.append(_sample(dialect, text, tokens, untied or {}))
        except Unreadable as error:
            unread.append(f"the answer {error}: {_quoted(text)}{_cut(choice)}")
    share = len(unread) / len(choices)
    if not samples or 1 - share < bounds.min_read:
        several = f" ({len(unread)} of {len(choices)} samples)" if len(choices) > 1 else ""
        return Reading(value=math.nan, unread=share, reason=unread[0] + several)
    masses = [one.mass for one in samples if not math.isnan(one.mass)]
    mass = sum(masses) / len(masses) if masses else math.nan
    outcomes = [one.outcome for one in samples]
    agreement = max(map(outcomes.count, outcomes)) / len(outcomes)
    if mass < bounds.min_mass:
        reason = (
            f"the labels {', '.join(dialect.labels)} have a probability of {mass:.3g} together, less than "
            f"min_mass={bounds.min_mass:g}; the answer is {_quoted(read_choice(choices[0])[0])}"
        )
        return Reading(value=math.nan, mass=mass, agreement=agreement, unread=share, reason=reason)
    return Reading(
        value=_merged(dialect, samples),
        tie=_mean([one.tie for one in samples if one.tie is not None]),
        mass=mass,
        agreement=agreement,
        unread=share,
        scores=_merged_scores(samples),
    )


def read_choice(choice: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """The text of a choice, and its tokens if the endpoint returned them: the text is then theirs.

    Raises:
        ProtocolError: the choice is not one of a chat completion.
    """
    try:
        tokens = (choice.get("logprobs") or {}).get("content") or []
        if not tokens:
            return str(choice["message"].get("content") or ""), []
        return b"".join(map(_spelling, tokens)).decode("utf-8", "surrogateescape"), list(tokens)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ProtocolError(f"a choice is not one of a chat completion: {error!r}") from error


def _spelling(token: Mapping[str, Any]) -> bytes:
    return (
        bytes(token["bytes"]) if token.get("bytes") else str(token["token"]).encode("utf-8", "surrogatepass")
    )


def _sample(
    dialect: Dialect,
    text: str,
    tokens: Sequence[Mapping[str, Any]],
    untied: Mapping[str, Mapping[str, Any]],
) -> _Sample:
    if dialect.direct and tokens:
        return _of_labels(dialect, tokens[0])
    verdict = dialect.parser(text)
    if verdict.share is not None:
        scores = {name: _stated(share) for name, share in verdict.scores.items()}
        return _Sample(value=_stated(verdict.share), outcome=verdict.label, scores=scores)
    scores = {name: _logit(share) for name, share in verdict.scores.items()}
    if tokens and dialect.labels and (soft := _at_label(dialect, verdict, text, tokens, untied)) is not None:
        return replace(soft, scores=scores)
    return _of_text(dialect, verdict, scores)


def _of_text(dialect: Dialect, verdict: Verdict, scores: Mapping[str, float]) -> _Sample:
    """Of an answer whose words are all there is."""
    if dialect.values:
        return _Sample(value=dialect.values[verdict.label], outcome=verdict.label)
    value = (math.inf, -math.inf, 0.0)[verdict.label]
    tie = float(verdict.label == 2) if dialect.ties else None
    return _Sample(value=value, outcome=verdict.label, tie=tie, scores=scores)


def _of_labels(dialect: Dialect, token: Mapping[str, Any]) -> _Sample:
    """Of the alternatives of one token: log-odds, or the expectation of the labels' values."""
    found_L = _log_probabilities(dialect.labels, token)
    p_L = [math.exp(x) for x in found_L]
    if not (mass := sum(p_L)):
        raise Unreadable(f"has none of the labels {', '.join(dialect.labels)} among its likely first tokens")
    outcome = p_L.index(max(p_L))
    if dialect.values:
        expected = sum(p * v for p, v in zip(p_L, dialect.values, strict=True)) / mass
        return _Sample(value=expected, outcome=outcome, mass=mass)
    if len(found_L) == 2:
        return _Sample(value=_difference(found_L, token), outcome=outcome, mass=mass)
    tie = p_L[2] / mass
    value = _with_ties(_difference(found_L, token), tie)
    return _Sample(value=value, outcome=outcome, tie=tie, mass=mass)


def _at_label(
    dialect: Dialect,
    verdict: Verdict,
    text: str,
    tokens: Sequence[Mapping[str, Any]],
    untied: Mapping[str, Mapping[str, Any]],
) -> _Sample | None:
    """Of the token that is the label in a longer answer, and of the one at which a tie parts from a win.

    None if the label is not a token of its own.
    """
    tie, mass = _branch(dialect, verdict, text, tokens)
    if verdict.at is not None:
        token = _covering(text, verdict.at, tokens)
    elif tie is None:
        return None
    elif (forced := untied.get(f"{text[: verdict.opening]}{dialect.opening}")) and read_choice(forced)[1]:
        token = read_choice(forced)[1][0]
    else:
        return _of_tie(tie, mass)
    found_L = _log_probabilities(dialect.labels, token)
    labelled = sum(map(math.exp, found_L))
    if not labelled:
        return None if verdict.at is not None or tie is None else _of_tie(tie, mass)
    value = _difference(found_L, token)
    if tie:
        value = _with_ties(value, tie)
    return _Sample(value=value, outcome=verdict.label, tie=tie, mass=min(labelled, mass))


def _of_tie(tie: float, mass: float) -> _Sample:
    """Of an answer that names a tie, where nothing tells who would win without one."""
    if tie < CERTAIN_TIE:
        raise Unreadable(f"is a tie with a probability of {tie:.3g}, and does not say who wins without one")
    return _Sample(value=0.0, outcome=2, tie=tie, mass=mass)


def _branch(
    dialect: Dialect, verdict: Verdict, text: str, tokens: Sequence[Mapping[str, Any]]
) -> tuple[float | None, float]:
    """P(tie) and the mass of both continuations at the first token of the sentence; None and 1 of others."""
    if dialect.tie is None or dialect.opening is None or verdict.opening is None:
        return None, 1.0
    token = _covering(text, verdict.opening, tokens)
    tied, won = map(math.exp, _log_probabilities((dialect.tie, dialect.opening.split(" ")[0]), token))
    # The opening may be several tokens, of which the text shows the first.
    won = won if verdict.label == 2 else max(won, math.exp(float(token["logprob"])))
    return (tied / (tied + won), tied + won) if tied + won else (None, 1.0)


def _covering(text: str, at: int, tokens: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The token in which the character at that offset stands."""
    left = len(text[:at].encode("utf-8", "surrogateescape"))
    for token in tokens:
        if left < (size := len(_spelling(token))):
            return token
        left -= size
    raise Unreadable("has no token at its label")


def _log_probabilities(labels: Sequence[str], token: Mapping[str, Any]) -> list[float]:
    """Of each label among the alternatives of a token, -inf if it is not listed.

    Spellings that differ in white space around them or in case are one label, and so are those of a label.
    """
    listed = _listed(token)
    found = []
    for one in labels:
        spelled = {spelling.strip().casefold() for spelling in spellings(one)}
        same = [x for name, x in listed.items() if name.strip().casefold() in spelled]
        found.append(_log_sum(same))
    return found


def _listed(token: Mapping[str, Any]) -> dict[str, float]:
    """Log-probabilities of a token and of its alternatives, by their text."""
    return {str(one["token"]): float(one["logprob"]) for one in [*(token.get("top_logprobs") or ()), token]}


def _difference(found_L: Sequence[float], token: Mapping[str, Any]) -> float:
    """Log-odds of the first label against the second; one that is not listed has the most that it can have.

    That is the least probability that is listed, and what the listed ones leave.
    """
    listed = _listed(token)
    left = 1 - sum(map(math.exp, listed.values()))
    most = min(min(listed.values()), math.log(left) if left > 0 else -math.inf)
    most = max(most, max(found_L) - LARGEST_LOG_ODDS)
    first, second = (x if math.isfinite(x) else most for x in found_L[:2])
    return first - second


def _merged(dialect: Dialect, samples: Sequence[_Sample]) -> float:
    values = [one.value for one in samples]
    if dialect.values or (len(values) == 1 and math.isfinite(values[0])):
        return sum(values) / len(values)
    return _mean_log_odds(values)


def _merged_scores(samples: Sequence[_Sample]) -> dict[str, float]:
    """Log-odds by dimension, over the samples that state it."""
    names = dict.fromkeys(name for one in samples for name in one.scores)
    return {
        name: _mean_log_odds([one.scores[name] for one in samples if name in one.scores]) for name in names
    }


def _mean_log_odds(values: Sequence[float]) -> float:
    total = float(sigmoid(values).sum())
    if all(map(math.isfinite, values)):
        return _logit(total / len(values))
    return _logit((total + 0.5) / (len(values) + 1))


def _with_ties(log_odds: float, tie: float) -> float:
    """Log-odds of a win where a tie counts half to each."""
    return _logit((1 - tie) * float(sigmoid(log_odds)) + tie / 2)


def _stated(share: float) -> float:
    """Log-odds of a share that an answer states, within what float32 probabilities show."""
    return max(-LARGEST_LOG_ODDS, min(LARGEST_LOG_ODDS, _logit(share)))


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values, default=-math.inf)
    if len(values) < 2 or not math.isfinite(largest):
        return largest
    return largest + math.log(sum(math.exp(x - largest) for x in values))


def _logit(p: float) -> float:
    return math.inf if p >= 1 else -math.inf if p <= 0 else math.log(p) - math.log1p(-p)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _quoted(text: str) -> str:
    shown = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    return repr(shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}...")


def _cut(choice: Mapping[str, Any]) -> str:
    return "; it was cut at max_tokens, raise that" if choice.get("finish_reason") == "length" else ""
