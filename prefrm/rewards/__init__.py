"""What win matrices turn into: one matrix of several, rewards, group advantages, pairs and selections.

Numpy only. A reward that does not exist is NaN and stays NaN; nothing here puts a number in its place.
"""

from prefrm.rewards.advantages import (
    DANCE_GRPO,
    FLOW_GRPO,
    PREF_GRPO,
    AdvantageRule,
    group_advantages,
    weighted_advantages,
)
from prefrm.rewards.chain import AdvantageChain, GroupKey, group_keys, select
from prefrm.rewards.combination import Combination, Combine, Criteria, criterion_name
from prefrm.rewards.selection import (
    PreferencePair,
    best_fraction,
    diffusion_nft_rewards,
    dpo_pairs,
    ranking,
    ranks,
)
from prefrm.rewards.utilities import (
    REWARDS,
    RewardFunction,
    bradley_terry,
    copeland,
    hard_win_rate,
    pref_grpo_rewards,
    win_rate,
)

__all__ = [
    "DANCE_GRPO",
    "FLOW_GRPO",
    "PREF_GRPO",
    "REWARDS",
    "AdvantageChain",
    "AdvantageRule",
    "Combination",
    "Combine",
    "Criteria",
    "GroupKey",
    "PreferencePair",
    "RewardFunction",
    "best_fraction",
    "bradley_terry",
    "copeland",
    "criterion_name",
    "diffusion_nft_rewards",
    "dpo_pairs",
    "group_advantages",
    "group_keys",
    "hard_win_rate",
    "pref_grpo_rewards",
    "ranking",
    "ranks",
    "select",
    "weighted_advantages",
    "win_rate",
]
