"""Win matrices as rewards of trainers; TRL's `GRPOTrainer` first.

Importing this package imports neither torch nor trl.
"""

from prefrm.grpo.combined import CombinedReward
from prefrm.grpo.reward import AsyncPreferenceReward, AsyncScorer, PreferenceReward, last_user_text

__all__ = ["AsyncPreferenceReward", "AsyncScorer", "CombinedReward", "PreferenceReward", "last_user_text"]
