"""Generative judges behind an OpenAI-compatible endpoint (vLLM, SGLang, hosted ones) as a scorer. No torch.

    from prefrm.scorers.chat import ChatScorer

    url = "chat+http://localhost:8000/v1?model=UnifiedReward&dialect=unifiedreward-rank"
    with ChatScorer.connect(url) as judge:
        matrices = judge.score(groups)

A dialect says how a kind of judge is asked and how its answers are read (`DIALECTS`, docs/chat.md).
"""

from prefrm.scorers.chat.dialects import DIALECTS, Dialect
from prefrm.scorers.chat.generating import ChatGenerator
from prefrm.scorers.chat.report import ChatReport
from prefrm.scorers.chat.scorer import ChatScorer
from prefrm.scorers.chat.settings import ChatSettings

__all__ = ["DIALECTS", "ChatGenerator", "ChatReport", "ChatScorer", "ChatSettings", "Dialect"]
