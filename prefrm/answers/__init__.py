"""People's answers to pairs of candidates: the file that holds them, and what they say of who gave them."""

from prefrm.answers.store import (
    Answer,
    AnswerConflict,
    AnswersOf,
    AnswerStore,
    Purpose,
    Question,
    Verdict,
    read_answers,
)

__all__ = [
    "Answer",
    "AnswerConflict",
    "AnswerStore",
    "AnswersOf",
    "Purpose",
    "Question",
    "Verdict",
    "read_answers",
]
