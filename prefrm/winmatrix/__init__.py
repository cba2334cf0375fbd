"""Groups, win matrices and the protocol between them. Numpy only.

What happens to a matrix afterwards (advantages, pairs, rankings) lives in `prefrm.rewards`.
"""

from prefrm.winmatrix.group import Group
from prefrm.winmatrix.matrix import Bools, Floats, OnMissing, WinMatrix, check_on_missing
from prefrm.winmatrix.probabilities import temper_ties
from prefrm.winmatrix.reasons import unjudged_reasons
from prefrm.winmatrix.scorer import FakeScorer, Scorer, check_answer

__all__ = [
    "Bools",
    "FakeScorer",
    "Floats",
    "Group",
    "OnMissing",
    "Scorer",
    "WinMatrix",
    "check_answer",
    "check_on_missing",
    "temper_ties",
    "unjudged_reasons",
]
