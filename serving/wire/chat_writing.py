"""The answer of `POST /v1/chat/completions`, from the win matrix of a pair."""

import json
import random
import time
import uuid
from typing import Any

from prefrm.winmatrix import WinMatrix
from serving.errors import InvalidRequestError
from serving.steps import Steps
from serving.wire.chat_answers import Answer, Token, continuing, generate, sentences
from serving.wire.chat_reading import Question

__all__ = ["write_completion"]

# More than any answer has.
DEFAULT_TOKENS = 2**12


def write_completion(asked: Question, matrix: WinMatrix, *, model: str, cost: int) -> Steps[bytes]:
    """The answer as JSON, of the fields of `ChatAnswer`.

    Args:
        asked: the question.
        matrix: of its two images.
        model: the name of the judge.
        cost: of the comparison, in tokens.

    Raises:
        InvalidRequestError: the pair was not judged, or the answer cannot begin as the client wants.
    """
    _check_judged(asked, matrix)
    request = asked.request
    found = continuing(sentences(matrix, asked.dialect.answers(float(matrix.p[0, 1]))), asked.prefix)
    most = request.max_completion_tokens or request.max_tokens or DEFAULT_TOKENS
    source, choices, count = random.Random(request.seed), [], 0
    for n in range(request.n or 1):
        answer = generate(found, temperature=request.temperature or 0.0, most=most, source=source)
        count += len(answer.tokens)
        choices.append(_choice(n, answer, request.top_logprobs or 0 if request.logprobs else None))
        yield
    completion = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": choices,
        "usage": {"prompt_tokens": cost, "completion_tokens": count, "total_tokens": cost + count},
    }
    return json.dumps(completion, allow_nan=False).encode()


def _check_judged(asked: Question, matrix: WinMatrix) -> None:
    for n, refusal in enumerate(asked.refusals):
        if reason := refusal or matrix.errors[n]:
            raise InvalidRequestError(f"image {n + 1} cannot be judged: {reason}")
    if reason := matrix.reason(0, 1):
        raise InvalidRequestError(f"the pair cannot be judged: {reason}")


def _choice(index: int, answer: Answer, top: int | None) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": None if top is None else {"content": [_token(token, top) for token in answer.tokens]},
        "finish_reason": "stop" if answer.is_complete else "length",
    }


def _token(token: Token, top: int) -> dict[str, Any]:
    alternatives = [_logprob(text, logprob) for text, logprob in token.alternatives[:top]]
    return _logprob(token.text, token.logprob) | {"top_logprobs": alternatives}


def _logprob(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
