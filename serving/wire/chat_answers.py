"""Answers of a chat completion, token by token: three possible sentences and their probabilities.

The probability of a token is that of the sentences that go on with it, given the tokens before it: what a
language model would report that says each sentence with its probability. So a reader of logprobs finds P(tie)
at the token where the sentence of a tie branches off, and P(image 1 is better, given no tie) at the digit.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prefrm.winmatrix import WinMatrix
from serving.errors import InvalidRequestError

__all__ = ["Answer", "Token", "continuing", "generate", "sentences"]

# A word with the space before it, or a single character, as the tokenizers of language models have them.
TOKENS = re.compile(r" ?[^\W\d_]+|.", re.DOTALL)
END = ""
# vLLM's number for minus infinity, which JSON lacks.
SMALLEST_LOGPROB = -9999.0

Sentences = Mapping[tuple[str, ...], float]
"""Token sequences, each ending with `END`, and their probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token of an answer, its log-probability, and those of all tokens that could stand there, likeliest
    first."""

    text: str
    logprob: float
    alternatives: Sequence[tuple[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The tokens of one choice; `is_complete` says whether its end was reached."""

    tokens: Sequence[Token]
    is_complete: bool

    @property
    def text(self) -> str:
        """The text of all tokens."""
        return "".join(token.text for token in self.tokens)


def sentences(matrix: WinMatrix, answers: tuple[str, str, str]) -> Sentences:
    """Token sequences of the three answers, with the probabilities of a judged pair.

    A p of exactly 0.5 is a tie, so that no image is named for standing first. Otherwise there is a tie only
    if the judge models ties. Where there is no answer for one, it counts half to each.

    Args:
        matrix: of two candidates, both judged.
        answers: for the first, the second, and a tie, "" if there is none; equal ones are one sequence.
    """
    p, tie = float(matrix.p[0, 1]), float(matrix.tie[0, 1])
    if p == 0.5:
        tie = 1.0
    if not answers[2]:
        tie = math.nan
    half = 0.0 if math.isnan(tie) else tie / 2
    shares = (max(0.0, p - half), max(0.0, 1 - p - half), tie)
    found: dict[tuple[str, ...], float] = {}
    for answer, share in zip(answers, shares, strict=True):
        if not math.isnan(share):
            sequence = (*TOKENS.findall(answer), END)
            found[sequence] = found.get(sequence, 0.0) + share
    return found


def continuing(found: Sentences, prefix: str) -> Sentences:
    """What follows a prefix that the client wrote itself, in the sentences that begin with it.

    Raises:
        InvalidRequestError: no sentence does, up to the end of a token.
    """
    rest = {}
    for sequence, share in found.items():
        starts = (n for n in range(len(sequence)) if "".join(sequence[:n]) == prefix)
        if (start := next(starts, None)) is not None:
            rest[sequence[start:]] = share
    if not rest:
        known = " or ".join(repr("".join(sequence)) for sequence in found)
        raise InvalidRequestError(
            f"messages: an answer of this dialect is {known}; the last message, which the answer would "
            "continue, is not the beginning of any, so leave it out"
        )
    return rest


def generate(found: Sentences, *, temperature: float, most: int, source: random.Random) -> Answer:
    """Choose a sentence, token by token.

    Args:
        found: at least one.
        temperature: 0 takes the likeliest token; above it, one is drawn from the probabilities to the power
            1 / temperature. The log-probabilities are those before.
        most: tokens; what exceeds them is cut off.
        source: of random numbers.
    """
    tokens: list[Token] = []
    while len(tokens) < most:
        logprobs = _next_logprobs(found, len(tokens))
        text = _chosen(logprobs, temperature, source)
        if text == END:
            return Answer(tokens=tokens, is_complete=True)
        found = {sequence: share for sequence, share in found.items() if sequence[len(tokens)] == text}
        ranked = sorted(logprobs.items(), key=lambda entry: -entry[1])
        tokens.append(Token(text=text, logprob=logprobs[text], alternatives=ranked))
    return Answer(tokens=tokens, is_complete=False)


def _next_logprobs(found: Sentences, n: int) -> dict[str, float]:
    """The log-probability of each token that comes after the first n, which all sentences share."""
    # Sentences of probability 0 that the client asked for are equally likely.
    total = sum(found.values())
    shares: dict[str, float] = {}
    for sequence, share in found.items():
        shares[sequence[n]] = shares.get(sequence[n], 0.0) + (share / total if total else 1 / len(found))
    return {text: max(math.log(s), SMALLEST_LOGPROB) if s else SMALLEST_LOGPROB for text, s in shares.items()}


def _chosen(logprobs: Mapping[str, float], temperature: float, source: random.Random) -> str:
    best = max(logprobs, key=lambda text: logprobs[text])
    if not temperature:
        return best
    weights = [math.exp((logprob - logprobs[best]) / temperature) for logprob in logprobs.values()]
    return source.choices(list(logprobs), weights)[0]
